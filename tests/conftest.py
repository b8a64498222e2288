"""Fixtures: generated where possible; real data and weights where they lie, else skipped."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tiny_student import TinyStudent
    from torch import nn

ROOT = Path(__file__).resolve().parent.parent


def _folder(variable: str, default: str, missing: str) -> Path:
    """A folder of data that may be absent; the test is then skipped, saying what is missing."""
    folder = Path(os.environ.get(variable, ROOT.parent / "shared" / default))
    if not folder.is_dir():
        pytest.skip(f"no {missing}; set {variable} to their folder")
    return folder


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this test run; all processes of a parallel run have the same."""
    root = tmp_path_factory.getbasetemp()
    return root.parent if "PYTEST_XDIST_WORKER" in os.environ else root


@pytest.fixture(scope="session", autouse=True)
def _shared_students(run_folder: Path) -> None:
    """Train each tiny student once in a run, not once in each process and for each test."""
    os.environ["KDAS_EDGE_TEST_STUDENTS"] = str(run_folder / "students")  # for tiny_student.py


@pytest.fixture(autouse=True)
def _width_of_a_log_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are as wide as in a log file; pytest-xdist sets the width of a terminal."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The PraNet images; the test is skipped where they are not."""
    return _folder("KDAS_EDGE_DATA", "data/pranet", "PraNet images")


@pytest.fixture(scope="session")
def encoder_weights() -> Path:
    """The pretrained encoders; the test is skipped where they are not."""
    return _folder("KDAS_EDGE_WEIGHTS", "weights", "pretrained encoders")


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic data set in the PraNet layout: 24 training and 6 test scenes."""
    from kdas_edge.data.synthetic import write_dataset

    root = tmp_path_factory.mktemp("scenes") / "data"
    write_dataset(root, train=24, test=6, size=96, seed=7, empty_fraction=0.1)
    return root


@pytest.fixture(scope="session")
def tiny() -> "TinyStudent":
    """One trained network."""
    from tiny_student import train_tiny_student

    return train_tiny_student()


@pytest.fixture(scope="session")
def tiny_int8(tiny: "TinyStudent") -> "nn.Module":
    """The int8 form of the trained network, fake-quantised."""
    from kdas_edge.quantize.ptq import post_training_quantize
    from kdas_edge.recipe import PtqRecipe

    return post_training_quantize(tiny.network, tiny.inputs(tiny.frames), PtqRecipe())
