"""Fixtures that several rooms share."""

import shutil
from pathlib import Path

import pytest
from tiny_bundle import make_tiny_bundle


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny bundle that no test changes."""
    return make_tiny_bundle(tmp_path_factory.mktemp("original") / "tiny")


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle for one test."""
    return Path(shutil.copytree(original, tmp_path / "tiny"))
