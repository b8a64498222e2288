import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import openvino as ov
import pytest
from PIL import Image
from tiny_bundle import (
    hashes,
    make_tiny_bundle,
    onnx_graph,
    probability,
    rewrite_manifest,
    save_ir,
)

from kdas_edge.bundle.manifest import Tolerance
from kdas_edge.errors import UserError
from kdas_edge.evidence.verify import refusal, verify
from kdas_edge.runtime.targets import parse_targets

TARGETS = parse_targets("openvino:CPU:threads=1,onnxruntime:CPU:threads=1")


def failures(bundle: Path) -> list[str]:
    return [check.what for check in verify(bundle, TARGETS).failures]


def test_an_intact_bundle_passes_every_check_on_both_runtimes(bundle):
    report = verify(bundle, TARGETS)
    assert report.passed, report.failures
    named = [check.what for check in report.checks]
    for target in map(str, TARGETS):
        for model in ("fp32 core", "int8 core", "fp32 camera", "int8 camera"):
            assert f"{target} {model}: mask" in named
        assert f"{target} fp32 core: probability" in named
        assert report.targets[target]["precision"] == "f32"
    assert "int8/core.onnx: operators" in named and "int8/core.xml: metadata" in named
    assert json.loads(json.dumps(report.as_json()))["passed"] is True


def test_by_default_every_installed_runtime_of_the_bundle_is_used(bundle):
    assert set(verify(bundle).targets) == {"openvino:CPU", "onnxruntime:CPU"}


def test_a_target_that_the_bundle_has_no_model_for_is_refused(bundle):
    with pytest.raises(UserError, match="has no torch model; it has onnx, openvino"):
        verify(bundle, parse_targets("torch:cpu"))


def test_a_damaged_bundle_is_refused_before_any_inference(bundle):
    path = bundle / "fp32/core.bin"
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(UserError, match=r"fp32/core\.bin"):
        verify(bundle)


def test_a_probability_off_by_more_than_a_ten_thousandth_fails_in_fp32(tmp_path):
    def shifted(frame, size, precision):
        return probability(frame, size, precision) + np.float32(3e-4)

    bundle = make_tiny_bundle(tmp_path / "tiny", presets=("core",), expected=shifted)
    assert failures(bundle) == [f"{target} fp32 core: probability" for target in TARGETS]


def test_a_mask_that_differs_in_one_percent_of_pixels_fails_in_int8(tmp_path):
    def flipped(frame, size, precision):
        values = probability(frame, size, precision)
        if precision == "int8":
            values.flat[:41] = 1 - values.flat[:41]
        return values

    bundle = make_tiny_bundle(tmp_path / "tiny", presets=("core",), expected=flipped)
    assert failures(bundle) == [f"{target} int8 core: mask" for target in TARGETS]


def test_a_bundle_cannot_wave_itself_through_with_wide_tolerances_of_its_own(tmp_path):
    bundle = make_tiny_bundle(
        tmp_path / "tiny",
        presets=("core",),
        expected=lambda frame, size, _: np.full((size, size), 0.9, np.float32),
        tolerances={"fp32": Tolerance(probability=1, disagreement=1)},
    )
    found = failures(bundle)
    for what in ("fp32 core: probability", "fp32 core: mask", "int8 core: mask"):
        assert f"{TARGETS[0]} {what}" in found


def test_a_stricter_tolerance_of_the_manifest_is_kept(tmp_path):
    strict = {"int8": Tolerance(probability=1, disagreement=0.0001)}

    def two_pixels(frame, size, precision):
        values = probability(frame, size, precision)
        values.flat[:2] = 1 - values.flat[:2]
        return values

    bundle = make_tiny_bundle(
        tmp_path / "tiny", presets=("core",), expected=two_pixels, tolerances=strict
    )
    assert f"{TARGETS[0]} int8 core: mask" in failures(bundle)


@pytest.mark.parametrize("name", ["fp32/core.xml", "int8/core.onnx"])
def test_metadata_in_a_file_that_differs_from_the_manifest_fails(bundle, name):
    def change(values):
        model = next(model for model in values["models"] if model["path"] == name)
        model["metadata"]["soft_threshold"] = "0.3"

    rewrite_manifest(bundle, change)
    report = verify(bundle, TARGETS)
    assert [check.what for check in report.failures] == [f"{name}: metadata"]
    assert "soft_threshold is '0.5', not '0.3'" in report.failures[0].observed


def test_an_ir_without_metadata_fails(bundle):
    graph = ov.Core().read_model(bundle / "fp32/core.xml").clone()
    save_ir(ov.Model(graph.get_results(), graph.get_parameters(), "bare"), bundle / "x.xml", {})
    shutil.move(bundle / "x.xml", bundle / "fp32/core.xml")
    shutil.move(bundle / "x.bin", bundle / "fp32/core.bin")
    rewrite_manifest(bundle, lambda values: None)
    assert failures(bundle) == ["fp32/core.xml: metadata"]


def test_an_operator_outside_standard_onnx_fails_even_if_the_runtime_knows_it(bundle):
    model = onnx_graph(64, "fp32", "core", {})
    old = next(node for node in model.graph.node if node.op_type == "Sigmoid")
    # QuickGelu(x, alpha) = x·sigmoid(alpha·x) is a contrib operator that ONNX Runtime has
    quick = onnx.helper.make_node(
        "QuickGelu", list(old.input), ["unused"], domain="com.microsoft", alpha=1.0
    )
    model.graph.node.insert(1, quick)
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    kept = onnx.load(bundle / "fp32/core.onnx").metadata_props
    model.metadata_props.extend(kept)
    onnx.save(model, bundle / "fp32/core.onnx")
    rewrite_manifest(bundle, lambda values: None)
    report = verify(bundle, TARGETS)
    assert [check.what for check in report.failures] == ["fp32/core.onnx: operators"]
    assert report.failures[0].observed == "com.microsoft.QuickGelu"


def test_without_the_onnx_package_the_operator_sets_tell_a_foreign_operator(bundle, monkeypatch):
    installed = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnx" else installed(name)
    )
    model = onnx.load(bundle / "fp32/core.onnx")
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, bundle / "fp32/core.onnx")
    rewrite_manifest(bundle, lambda values: None)
    report = verify(bundle, TARGETS)
    assert [check.what for check in report.failures] == ["fp32/core.onnx: operators"]
    assert "com.microsoft" in report.failures[0].observed
    assert "int8/core.onnx: operators" in {c.what for c in report.checks if c.verdict == "pass"}


@pytest.mark.parametrize(("key", "value"), [("opset", 17), ("ir_version", 9)])
def test_a_file_of_another_format_than_the_manifest_says_fails(bundle, key, value):
    rewrite_manifest(bundle, lambda values: values["models"][1].update({key: value}))
    report = verify(bundle, TARGETS)
    assert [check.what for check in report.failures] == ["fp32/core.onnx: format"]
    assert key in report.failures[0].observed


def test_an_output_whose_channels_do_not_add_up_to_one_fails(bundle):
    graph = ov.Core().read_model(bundle / "fp32/core.xml")
    ops = ov.opset13
    doubled = ops.multiply(graph.output(0).get_node().input_value(0), ops.constant(np.float32(2)))
    rt_info = graph.get_rt_info(["model_info"]).value
    model = ov.Model([doubled], graph.get_parameters(), "doubled")
    save_ir(model, bundle / "x.xml", {key: str(value) for key, value in rt_info.items()})
    shutil.move(bundle / "x.xml", bundle / "fp32/core.xml")
    shutil.move(bundle / "x.bin", bundle / "fp32/core.bin")
    rewrite_manifest(bundle, lambda values: None)
    report = verify(bundle, TARGETS)
    assert [check.what for check in report.failures] == [f"{TARGETS[0]} fp32 core: output"]
    assert "differs from 1 by 1" in report.failures[0].observed


def test_a_bundle_without_golden_vectors_does_not_pass(bundle):
    rewrite_manifest(bundle, lambda values: values.update(golden=[]))
    assert len(failures(bundle)) == 8


@pytest.mark.parametrize("content", ["pickle", "text", "shape", "nan"])
def test_a_golden_array_that_is_no_map_is_one_line_and_is_never_unpickled(bundle, content):
    path = old_golden(bundle)
    if content == "pickle":
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif content == "text":
        path.write_text("not an array")
    elif content == "nan":
        np.save(path, np.full((64, 64), np.nan, np.float32))
    else:
        np.save(path, np.zeros((3, 3), np.float32))
    rewrite_manifest(bundle, lambda values: None)
    assert "golden/0-fp32.npy" in hashes(bundle)
    with pytest.raises(UserError) as caught:
        verify(bundle, TARGETS)
    assert "golden/0-fp32.npy" in str(caught.value) and "\n" not in str(caught.value)


def old_golden(bundle: Path) -> Path:
    """Give a bundle one golden map as an array, as they were before schema 1.3."""
    path = bundle / "golden/0-fp32.npy"
    frame = np.asarray(Image.open(bundle / "golden/0.png"))
    np.save(path, probability(frame, 64, "fp32"))
    (bundle / "golden/0-fp32.png").unlink()

    def rename(values: dict) -> None:
        values["golden"][0]["expected"]["fp32"] = "golden/0-fp32.npy"

    rewrite_manifest(bundle, rename)
    return path


def test_a_golden_map_of_an_earlier_schema_is_read(bundle):
    old_golden(bundle)
    assert not failures(bundle)


@pytest.mark.parametrize("kind", ["8 bits", "colour", "shape", "text", "cut"])
def test_a_golden_png_that_is_no_map_is_one_line(bundle, kind):
    path = bundle / "golden/0-fp32.png"
    content = {
        "8 bits": Image.new("L", (64, 64)),
        "colour": Image.new("RGB", (64, 64)),
        "shape": Image.new("I;16", (64, 32)),
    }
    if kind in content:
        content[kind].save(path)
    else:
        path.write_bytes(b"not a PNG" if kind == "text" else path.read_bytes()[:60])
    rewrite_manifest(bundle, lambda values: None)
    with pytest.raises(UserError, match=r"golden/0-fp32\.png") as caught:
        verify(bundle, TARGETS)
    assert "\n" not in str(caught.value)


def test_a_bundle_without_models_does_not_pass(bundle):
    rewrite_manifest(bundle, lambda values: values.update(models=[]))
    assert "models" in [check.what for check in verify(bundle).failures]


def test_a_relabelled_schema_does_not_pass(bundle):
    def relabel(values: dict) -> None:
        values["schema_version"] = "1.2"
        del values["sha256"]

    rewrite_manifest(bundle, relabel)
    assert "schema" in failures(bundle)


def test_a_pipe_in_place_of_a_file_is_named_in_the_record_and_does_not_hang(bundle):
    (bundle / "fp32/core.bin").unlink()
    os.mkfifo(bundle / "fp32/core.bin")
    report = refusal(bundle)
    assert report is not None and not report.passed
    [failed] = [check.what for check in report.files if check.verdict == "fail"]
    assert failed == "fp32/core.bin"


@pytest.mark.parametrize("argument", ["-m", "-P -m"])
def test_no_module_of_a_bundle_is_imported_when_it_is_verified_from_within(bundle, argument):
    for name in ("numpy.py", "json.py", "pathlib.py", "openvino.py", "cv2.py"):
        (bundle / name).write_text("raise SystemExit('a file of the bundle was run')")
    rewrite_manifest(bundle, lambda values: None)
    done = subprocess.run(
        [sys.executable, *argument.split(), "kdas_edge", "verify", ".", "--targets",
         "openvino:CPU:threads=1"],
        cwd=bundle, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
