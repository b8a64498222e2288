"""`verify` and the presets: what is wrong with an input shows in the golden vectors."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_bundle
from onnx import numpy_helper
from tiny_bundle import make_tiny_bundle, rewrite_manifest

from kdas_edge.bundle.manifest import PRESETS
from kdas_edge.bundle.metadata import model_metadata
from kdas_edge.bundle.reader import open_bundle
from kdas_edge.evidence.verify import verify
from kdas_edge.runtime.targets import parse_targets

TARGETS = parse_targets("openvino:CPU:threads=1,onnxruntime:CPU:threads=1")


def test_a_holoscan_file_reproduces_the_golden_probabilities_on_both_runtimes(
    tmp_path: Path,
) -> None:
    report = verify(make_tiny_bundle(tmp_path / "tiny", presets=PRESETS), TARGETS)
    assert report.passed, report.failures
    checks = {check.what: check.verdict for check in report.checks}
    for target in TARGETS:
        # nothing is resized inside, so that the probabilities are compared, too
        assert checks[f"{target} fp32 holoscan: probability"] == "pass"
        assert checks[f"{target} int8 holoscan: mask"] == "pass"
    assert checks["fp32 holoscan: writers"] == "pass"


def test_a_holoscan_file_for_another_range_of_values_fails(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny", presets=("core", "holoscan"))
    path = bundle / "fp32/holoscan.onnx"
    graph = onnx.load(path)
    for constant in graph.graph.initializer:
        if constant.name in ("mean", "std"):  # for 0…255 instead of 0…1
            values = numpy_helper.to_array(constant) * np.float32(255)
            constant.CopyFrom(numpy_helper.from_array(values, constant.name))
    onnx.save(graph, path)
    rewrite_manifest(bundle, lambda values: None)
    failed = [check.what for check in verify(bundle, TARGETS).failures]
    assert "onnxruntime:CPU:threads=1 fp32 holoscan: probability" in failed
    assert all("holoscan" in what for what in failed)


def test_a_bundle_of_schema_1_1_is_held_to_the_keys_of_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        tiny_bundle,
        "model_metadata",
        lambda *arguments: model_metadata(*arguments, schema="1.1"),
    )
    bundle = make_tiny_bundle(tmp_path / "tiny")

    def older(values: dict) -> None:
        values["schema_version"] = "1.1"
        del values["sha256"]
        for contract in values["inputs"].values():
            del contract["value_range"]

    rewrite_manifest(bundle, older)
    assert open_bundle(bundle).manifest.inputs["camera"].value_range is None
    report = verify(bundle, TARGETS)
    assert report.passed, report.failures
