import html
import json

import numpy as np
from tiny_bundle import make_tiny_bundle, probability, rewrite_manifest

from kdas_edge.evidence.report import JSON_NAME, PAGE_NAME, SCHEMA
from kdas_edge.files import sha256

TARGETS = ["--targets", "openvino:CPU:threads=1,onnxruntime:CPU:threads=1"]


def test_an_intact_bundle_exits_0_and_writes_its_report(run, tmp_path):
    bundle = make_tiny_bundle(tmp_path / "tiny")
    code, shown, error = run("verify", bundle, "--json", tmp_path / "report.json", *TARGETS)
    assert code == 0 and "error" not in error
    assert "hashes" in shown and "int8 core: mask" in shown
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["passed"] and not [c for c in report["checks"] if c["verdict"] == "fail"]
    # what could not be checked is said, not left out
    skipped = {c["what"]: c["observed"] for c in report["checks"] if c["verdict"] == "skipped"}
    assert skipped["export"] == "not checked: the bundle holds no torch checkpoint"
    assert len(skipped) == 2 and "sbom.cdx.json: artefacts" in skipped


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


def test_the_verification_is_recorded_as_json_and_as_a_page(run, tmp_path):
    bundle = make_tiny_bundle(tmp_path / "tiny")
    code, _, _ = run("verify", bundle, "--report", tmp_path / "evidence", "--no-export", *TARGETS)
    assert code == 0
    assert {path.name for path in (tmp_path / "evidence").iterdir()} == {JSON_NAME, PAGE_NAME}
    record = json.loads((tmp_path / "evidence" / JSON_NAME).read_text())
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert record["schema"] == SCHEMA and "No regulatory clearance" in record["disclaimer"]
    assert record["manifest_sha256"] == sha256(bundle / "manifest.json")
    assert [check["what"] for check in record["files"]] == list(manifest["files"])
    page = (tmp_path / "evidence" / PAGE_NAME).read_text()
    assert "No regulatory clearance" in page and "every check that was made passed" in page
    for check in [*record["checks"], *record["files"]]:
        assert html.escape(check["what"]) in page and html.escape(check["observed"]) in page


def test_a_bundle_whose_manifest_lies_about_a_file_fails_and_the_record_names_it(run, tmp_path):
    bundle = make_tiny_bundle(tmp_path / "tiny")

    def lie(values):
        values["files"]["fp32/core.onnx"]["sha256"] = "0" * 64

    rewrite_manifest(bundle, lie)
    code, _, error = run("verify", bundle, "--report", tmp_path / "evidence")
    assert code == 2 and error.count("\n") == 1 and "fp32/core.onnx" in error
    record = json.loads((tmp_path / "evidence" / JSON_NAME).read_text())
    assert record["passed"] is False
    assert [c["what"] for c in record["files"] if c["verdict"] == "fail"] == ["fp32/core.onnx"]
    page = (tmp_path / "evidence" / PAGE_NAME).read_text()
    assert "✗ failed" in page and "0" * 64 in page


def test_a_mistyped_option_leaves_no_record(run, tmp_path):
    bundle = make_tiny_bundle(tmp_path / "tiny", presets=("core",))
    code, _, error = run(
        "verify", bundle, "--report", tmp_path / "evidence", "--targets", "torch:cpu"
    )
    assert code == 2 and "has no torch model" in error
    assert not (tmp_path / "evidence").exists()


def test_a_record_that_cannot_be_written_is_one_line(run, tmp_path):
    bundle = make_tiny_bundle(tmp_path / "tiny", presets=("core",))
    (tmp_path / "file").write_text("")
    code, _, error = run("verify", bundle, "--report", tmp_path / "file" / "evidence", *TARGETS)
    assert code == 2 and "cannot write" in error.splitlines()[-1]
