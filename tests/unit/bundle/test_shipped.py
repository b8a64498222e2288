"""The student that comes with the package is complete, small, and says nothing of its maker."""

import shutil
import tomllib
from pathlib import Path

import pytest

from kdas_edge.bundle import shipped
from kdas_edge.bundle.reader import open_bundle
from kdas_edge.errors import UserError

ROOT = Path(__file__).resolve().parents[3]


def test_it_is_taken_where_no_bundle_is_named_and_its_hashes_hold() -> None:
    bundle = open_bundle(shipped.or_shipped(None))
    held = {(model.precision, model.format) for model in bundle.manifest.models}
    assert {("fp32", "openvino"), ("int8", "openvino"), ("int8", "onnx")} <= held
    assert shipped.or_shipped(Path("mine")) == Path("mine")


def test_it_is_below_17_megabytes() -> None:
    files = [path for path in shipped.STUDENT.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 17e6


def test_its_manifest_has_a_digest() -> None:
    assert open_bundle(shipped.STUDENT).manifest.sha256 is not None


def test_no_path_of_a_machine_is_in_it() -> None:
    for path in shipped.STUDENT.rglob("*"):
        if path.suffix in (".json", ".md", ".xml"):
            text = path.read_text()
            assert "/work" not in text and "/home" not in text and "/tmp" not in text, path


def test_every_file_of_it_is_package_data() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["kdas_edge"]
    package = ROOT / "kdas_edge"
    packed = {path for pattern in patterns for path in package.glob(pattern)}
    assert {path for path in shipped.STUDENT.rglob("*") if path.is_file()} <= packed


def test_an_installation_without_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "student"
    shutil.copytree(shipped.STUDENT, copy)
    (copy / "manifest.json").unlink()
    monkeypatch.setattr(shipped, "STUDENT", copy)
    with pytest.raises(UserError, match="name a bundle"):
        shipped.or_shipped(None)
