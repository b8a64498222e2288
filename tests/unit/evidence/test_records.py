"""Writers that contradict each other, bills of materials, exports that differ, hostile names."""

import json
import shutil
from pathlib import Path

import pytest
from tiny_bundle import make_tiny_bundle, openvino_graph, rewrite_manifest, save_ir

from kdas_edge.bundle.reader import open_bundle
from kdas_edge.evidence import reproduce
from kdas_edge.evidence.checks import Check, VerificationReport
from kdas_edge.evidence.materials import check_materials
from kdas_edge.evidence.model_files import check_hashes, check_writers
from kdas_edge.evidence.report import page, record
from kdas_edge.evidence.reproduce import check_exports
from kdas_edge.evidence.verify import refusal


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return make_tiny_bundle(tmp_path_factory.mktemp("records") / "tiny", presets=("core",))


@pytest.fixture
def bundle(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "tiny"))


def only(checks):
    (check,) = checks
    return check


def write_materials(bundle: Path, change) -> None:
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    hashes = {name: record["sha256"] for name, record in files.items()}
    change(hashes)
    components = [
        {"type": "file", "name": name, "hashes": [{"alg": "SHA-256", "content": value}]}
        for name, value in hashes.items()
    ]
    components.append({"type": "library", "name": "numpy"})
    (bundle / "sbom.cdx.json").write_text(json.dumps({"components": components}))
    rewrite_manifest(bundle, lambda values: None)


def test_the_writers_of_an_intact_bundle_agree(bundle):
    checks = {check.what: check for check in check_writers(open_bundle(bundle))}
    assert set(checks) == {"fp32 core: writers", "int8 core: writers"}
    assert all(check.verdict == "pass" for check in checks.values())
    assert "openvino and onnx" in checks["fp32 core: writers"].observed


def test_a_writer_that_tells_another_threshold_than_the_contract_fails(bundle):
    """File and manifest entry agree with each other, so that only the contract tells."""

    def change(values):
        model = next(m for m in values["models"] if m["path"] == "fp32/core.xml")
        metadata = {**model["metadata"], "soft_threshold": "0.3"}
        model["metadata"] = metadata
        save_ir(openvino_graph(64, "fp32", "core"), bundle / "fp32/core.xml", metadata)

    rewrite_manifest(bundle, change)
    rewrite_manifest(bundle, lambda values: None)
    failed = only(c for c in check_writers(open_bundle(bundle)) if c.verdict == "fail")
    assert failed.what == "fp32 core: writers"
    assert failed.observed == "soft_threshold: openvino says '0.3', the contract '0.5'"


def test_every_file_is_listed_with_both_hashes(bundle):
    opened = open_bundle(bundle)
    (bundle / "int8/core.bin").write_bytes(b"other")
    (bundle / "golden/0.png").unlink()
    checks = {check.what: check for check in check_hashes(opened)}
    assert checks.keys() == opened.manifest.files.keys()
    failed = {what for what, check in checks.items() if check.verdict == "fail"}
    assert failed == {"int8/core.bin", "golden/0.png"}
    assert checks["int8/core.bin"].observed.startswith("5 bytes, SHA-256 ")
    assert "No such file" in checks["golden/0.png"].observed


def test_a_bundle_that_opens_is_not_refused(bundle):
    assert refusal(bundle) is None


def test_a_folder_without_a_manifest_is_refused_with_the_reason(tmp_path):
    report = refusal(tmp_path)
    assert report is not None and not report.passed and report.files == []
    assert "manifest.json" in report.failures[0].observed


def test_a_file_that_the_manifest_does_not_name_is_refused(bundle):
    (bundle / "extra.txt").write_text("x")
    report = refusal(bundle)
    assert report is not None and "extra.txt" in report.failures[0].observed


def test_a_bill_of_materials_with_the_same_hashes_passes(bundle):
    write_materials(bundle, lambda hashes: None)
    check = only(check_materials(open_bundle(bundle)))
    assert check.verdict == "pass" and check.observed == "12 artefacts equal"


@pytest.mark.parametrize(
    ("change", "observed"),
    [
        (lambda h: h.update({"fp32/core.xml": "0" * 64}), "fp32/core.xml: another hash"),
        (lambda h: h.pop("int8/core.onnx"), "int8/core.onnx: not named"),
        (lambda h: h.update({"spare.bin": "0" * 64}), "spare.bin: not in the manifest"),
    ],
)
def test_a_bill_of_materials_that_contradicts_the_manifest_fails(bundle, change, observed):
    write_materials(bundle, change)
    check = only(check_materials(open_bundle(bundle)))
    assert check.verdict == "fail" and check.observed == observed


@pytest.mark.parametrize("text", ["not json", "[]", '{"components": [{"type": "file"}]}'])
def test_a_bill_of_materials_that_cannot_be_read_fails(bundle, text):
    (bundle / "sbom.cdx.json").write_text(text)
    rewrite_manifest(bundle, lambda values: None)
    check = only(check_materials(open_bundle(bundle)))
    assert check.verdict == "fail" and check.observed.startswith("cannot be read")


def test_where_the_workstation_is_absent_the_export_is_not_checked(bundle, monkeypatch):
    monkeypatch.setattr(reproduce, "_NEEDED", ("a_package_that_nobody_has",))
    check = only(check_exports(open_bundle(bundle)))
    assert check.verdict == "skipped"
    assert check.observed.startswith("not checked: needs kdas-edge[train]")


@pytest.mark.parametrize("name", ["fp32/core.bin", "fp32/core.xml"])
def test_exports_that_differ_in_one_byte_fail(bundle, tmp_path, name):
    opened = open_bundle(bundle)
    model = opened.model("fp32", "openvino")
    outputs = [Path(shutil.copytree(bundle, tmp_path / side)) for side in ("first", "second")]
    same = reproduce._compare(opened, model, outputs)
    assert same.verdict == "pass" and same.observed == "equal, and as in the bundle"
    changed = bytearray((outputs[1] / name).read_bytes())
    changed[-1] ^= 1
    (outputs[1] / name).write_bytes(changed)
    differs = reproduce._compare(opened, model, outputs)
    assert differs.verdict == "fail" and differs.observed.startswith(f"{name}: SHA-256")
    shutil.copy(outputs[1] / name, outputs[0] / name)
    other = reproduce._compare(opened, model, outputs)
    assert other.verdict == "pass" and other.observed == "equal; the bundle's differs"


def test_names_from_a_bundle_cannot_inject_markup():
    hostile = "<script>alert(1)</script>"
    checks = [Check(hostile, hostile, hostile, "fail")]
    report = VerificationReport(hostile, checks, {hostile: {"x": hostile}}, checks)
    text = page(report, record(report))
    assert "<script>" not in text and text.count("&lt;script&gt;") >= 9
    assert "default-src 'none'" in text
