import importlib.metadata
import json

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from tiny_bundle import make_tiny_bundle

from kdas_edge.bundle.reader import open_bundle
from kdas_edge.export.sbom import bill_of_materials, runtime_packages


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return open_bundle(make_tiny_bundle(tmp_path_factory.mktemp("sbom") / "tiny")).manifest


@pytest.fixture(scope="module")
def text(manifest):
    return bill_of_materials(manifest)


def test_the_bill_is_valid_cyclonedx_by_the_librarys_own_validator(text):
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(text) is None
    # the validator does find what is wrong
    broken = json.loads(text)
    broken["components"][0]["type"] = "spaceship"
    assert validator.validate_str(json.dumps(broken)) is not None


def test_every_file_is_named_with_its_hash(text, manifest):
    found = {
        component["name"]: component["hashes"][0]["content"]
        for component in json.loads(text)["components"]
        if "hashes" in component
    }
    assert found == {name: record.sha256 for name, record in manifest.files.items()}


def test_models_are_told_from_golden_frames(text):
    kinds = {component["name"]: component["type"] for component in json.loads(text)["components"]}
    assert kinds["fp32/core.onnx"] == kinds["int8/camera.bin"] == "machine-learning-model"
    assert kinds["golden/0.png"] == "data" and kinds["numpy"] == "library"


def test_the_device_packages_are_named_with_the_installed_versions(text):
    components = {component["name"]: component for component in json.loads(text)["components"]}
    for name in ("openvino", "onnxruntime", "numpy", "opencv-python-headless"):
        version = importlib.metadata.version(name)
        assert components[name]["version"] == version
        assert components[name]["purl"] == f"pkg:pypi/{name}@{version}"
    assert components["kdas-edge"]["licenses"] == [{"expression": "Apache-2.0"}]
    # the workstation's packages do not run on the device
    assert not components.keys() & {"torch", "nncf", "timm", "altair"}


def test_what_a_package_needs_is_followed_to_the_end():
    found = runtime_packages()
    # typer needs rich, rich needs markdown-it-py, which needs mdurl
    assert {"typer", "rich", "markdown-it-py", "mdurl"} <= found.keys()


def test_the_same_bundle_gives_the_same_bill(text, manifest):
    assert bill_of_materials(manifest) == text
    renamed = manifest.model_copy(update={"files": dict(list(manifest.files.items())[1:])})
    first, second = (json.loads(t)["serialNumber"] for t in (text, bill_of_materials(renamed)))
    assert first != second


def test_it_says_that_it_is_research_software(text):
    description = json.loads(text)["metadata"]["component"]["description"]
    assert "No regulatory clearance" in description
