"""The wheel, built offline from a copy of the sources: what a person who installs it receives."""

import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source = tmp_path_factory.mktemp("wheel") / "source"
    # the shipped models are large and not in question here
    ignored = shutil.ignore_patterns("__pycache__", "*.bin", "*.onnx", "*.npy")
    shutil.copytree(ROOT / "kdas_edge", source / "kdas_edge", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source / name)
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('dist'))"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(source / "dist" / done.stdout.splitlines()[-1]) as archive:
        yield archive


def _dist_info(wheel, name):
    (found,) = (n for n in wheel.namelist() if n.endswith(f".dist-info/{name}"))
    return wheel.read(found)


@pytest.mark.parametrize("name", ["LICENSE", "NOTICE"])
def test_the_wheel_carries_licence_and_notice(wheel, name):
    assert _dist_info(wheel, f"licenses/{name}") == (ROOT / name).read_bytes()


def test_the_wheel_states_its_licence_as_spdx_and_its_extras(wheel):
    metadata = message_from_bytes(_dist_info(wheel, "METADATA"))
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE", "NOTICE"]
    assert {"report", "dicom", "distill", "train"} <= set(metadata.get_all("Provides-Extra"))


def test_the_wheel_holds_package_data_and_no_tests(wheel):
    names = wheel.namelist()
    assert "kdas_edge/shipped/student/manifest.json" in names and "kdas_edge/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]
