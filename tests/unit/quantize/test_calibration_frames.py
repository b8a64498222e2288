"""Which frames set the ranges."""

import itertools
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_student import TinyStudent

from kdas_edge.data.dataset import load_training_data
from kdas_edge.data.synthetic import scene
from kdas_edge.errors import UserError
from kdas_edge.quantize.calibration import calibration_set, spread
from kdas_edge.recipe import CalibrationRecipe, DataRecipe


def test_indices_are_spread_evenly_and_repeatably() -> None:
    chosen = spread(1000, 10, seed=3)
    assert chosen == spread(1000, 10, seed=3) != spread(1000, 10, seed=4)
    assert len(set(chosen)) == 10 and min(chosen) >= 0 and max(chosen) < 1000
    gaps = [b - a for a, b in itertools.pairwise(chosen)]
    assert set(gaps) <= {99, 100, 101}


def test_a_set_smaller_than_asked_for_is_taken_whole() -> None:
    assert spread(5, 300, seed=0) == [0, 1, 2, 3, 4]


def test_frames_come_from_the_training_side_of_the_split(scenes: Path) -> None:
    data = load_training_data(DataRecipe(root=str(scenes), size=64, validation=0.2))
    chosen = calibration_set(data, CalibrationRecipe(samples=8), 64)
    assert len(chosen.names) == 8
    assert set(chosen.names) <= set(data.split.train)
    assert not set(chosen.names) & set(data.split.validation)


def test_a_folder_of_the_users_own_frames_can_be_the_source(
    scenes: Path, student: TinyStudent, tmp_path: Path
) -> None:
    for index in range(5):
        Image.fromarray(scene(index, 120)[0]).save(tmp_path / f"own{index}.png")
    data = load_training_data(DataRecipe(root=str(scenes), size=64, validation=0.2))
    recipe = CalibrationRecipe(samples=3, source=str(tmp_path))
    chosen = calibration_set(data, recipe, 64)
    assert chosen.images.shape == (3, 3, 64, 64) and chosen.images.dtype == torch.uint8
    assert all(name.startswith("own") for name in chosen.names)
    samples = chosen.samples(student.architecture)
    assert [tuple(sample.shape) for sample in samples] == [(1, 3, 64, 64)] * 3
    assert samples[0].dtype == torch.float32


def test_a_folder_without_frames_is_refused(scenes: Path, tmp_path: Path) -> None:
    data = load_training_data(DataRecipe(root=str(scenes), size=64, validation=0.2))
    with pytest.raises(UserError, match="holds no image"):
        calibration_set(data, CalibrationRecipe(source=str(tmp_path)), 64)
