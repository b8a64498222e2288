import json
import sys

import numpy as np
import pytest
from tiny_bundle import make_tiny_bundle, probability

from kdas_edge.cli import main

TARGETS = ["--targets", "openvino:CPU:threads=1,onnxruntime:CPU:threads=1"]


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kdas-edge", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
            raise SystemExit(0)
        shown = capsys.readouterr()
        return int(stopped.value.code or 0), shown.out, shown.err

    return call


def test_an_intact_bundle_exits_0_and_writes_its_report(run, tmp_path):
    bundle = make_tiny_bundle(tmp_path / "tiny")
    code, shown, error = run("verify", bundle, "--json", tmp_path / "report.json", *TARGETS)
    assert code == 0 and "error" not in error
    assert "hashes" in shown and "int8 core: mask" in shown
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["passed"] and all(check["verdict"] == "pass" for check in report["checks"])


def test_a_tampered_bundle_exits_2_with_one_line(run, tmp_path):
    bundle = make_tiny_bundle(tmp_path / "tiny")
    content = bytearray((bundle / "int8/core.onnx").read_bytes())
    content[100] ^= 1
    (bundle / "int8/core.onnx").write_bytes(content)
    code, shown, error = run("verify", bundle, "--json", tmp_path / "report.json")
    assert code == 2 and shown == ""
    assert error.count("\n") == 1 and "int8/core.onnx" in error
    assert not (tmp_path / "report.json").exists()


def test_a_disagreement_exits_3_and_the_report_is_on_disk(run, tmp_path):
    def inverted(frame, size, precision):
        return np.float32(1) - probability(frame, size, precision)

    bundle = make_tiny_bundle(tmp_path / "tiny", presets=("core",), expected=inverted)
    code, shown, error = run("verify", bundle, "--json", tmp_path / "report.json", *TARGETS)
    assert code == 3
    assert error.count("\n") == 1 and "checks failed" in error
    assert "fail" in shown
    assert json.loads((tmp_path / "report.json").read_text())["passed"] is False


def test_an_unknown_target_exits_2_with_a_suggestion(run, tmp_path):
    bundle = make_tiny_bundle(tmp_path / "tiny", presets=("core",))
    code, _, error = run("verify", bundle, "--targets", "openvino:CPU,onnxruntme:CPU")
    assert code == 2 and "did you mean 'onnxruntime'" in error
