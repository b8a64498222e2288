"""Format versions are read from the files themselves, without the libraries that wrote them."""

from pathlib import Path

import onnx
import openvino as ov
import pytest
from onnx import helper
from tiny_bundle import make_tiny_bundle

from kdas_edge.bundle.versions import UNKNOWN, file_versions


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("versions") / "tiny")


def test_an_onnx_file_tells_what_the_onnx_package_reads_from_it(bundle: Path) -> None:
    path = bundle / "int8/camera.onnx"
    model = onnx.load(path)
    found = file_versions(path)
    assert (found.ir_version, found.opset) == (model.ir_version, 18) == (8, 18)
    assert found.foreign == ()


def test_the_writer_of_an_onnx_file_is_told(bundle: Path, tmp_path: Path) -> None:
    model = onnx.load(bundle / "fp32/core.onnx")
    model.producer_name, model.producer_version = "kdas", "7"
    onnx.save(model, tmp_path / "signed.onnx")
    assert file_versions(tmp_path / "signed.onnx").written_by == "kdas 7"


def test_an_ir_tells_its_format_and_the_newest_operator_set_of_its_layers(bundle: Path) -> None:
    found = file_versions(bundle / "fp32/core.xml")
    text = (bundle / "fp32/core.xml").read_text()
    assert f'version="{found.ir_version}"' in text.splitlines()[1]
    assert found.opset is not None and f'version="opset{found.opset}"' in text
    assert f'version="opset{found.opset + 1}"' not in text
    assert found.foreign == ()


def test_the_openvino_that_wrote_an_ir_is_told(bundle: Path, tmp_path: Path) -> None:
    model = ov.Core().read_model(bundle / "fp32/core.xml")
    model.set_rt_info(ov.get_version(), ["Runtime_version"])
    ov.save_model(model, tmp_path / "signed.xml")
    release = ov.get_version().partition("-")[0]
    assert file_versions(tmp_path / "signed.xml").written_by == f"openvino {release}"


def test_operator_sets_of_one_vendor_are_named(bundle: Path, tmp_path: Path) -> None:
    model = onnx.load(bundle / "fp32/core.onnx")
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, tmp_path / "foreign.onnx")
    assert file_versions(tmp_path / "foreign.onnx").foreign == ("com.microsoft",)
    text = (bundle / "fp32/core.xml").read_text().replace('version="opset1"', 'version="mine"')
    (tmp_path / "foreign.xml").write_text(text)
    assert file_versions(tmp_path / "foreign.xml").foreign == ("mine",)


@pytest.mark.parametrize("name", ["core.onnx", "core.xml"])
def test_a_file_that_is_cut_short_or_something_else_is_no_model(
    name: str, bundle: Path, tmp_path: Path
) -> None:
    content = (bundle / "fp32" / name).read_bytes()
    cut = (content[: len(content) // 2], content[:-9])
    for damaged in (*cut, b"", b"\xff" * 40, b"a picture", b"<html></html>"):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(ValueError, match=r"ONNX|OpenVINO"):
            file_versions(tmp_path / name)


def test_a_checkpoint_has_no_such_versions(tmp_path: Path) -> None:
    assert file_versions(tmp_path / "model.safetensors") == UNKNOWN
