"""Frames without masks: the student sees those on which the teacher agrees with itself."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_engine import tiny
from torch import Tensor

from kdas_edge.data.dataset import load_training_data
from kdas_edge.data.sampler import epoch_order
from kdas_edge.data.synthetic import scene
from kdas_edge.distill.teacher import Teacher
from kdas_edge.distill.training import run_training
from kdas_edge.errors import UserError
from kdas_edge.files import read_json
from kdas_edge.image_files import read_image
from kdas_edge.models.architecture import Architecture, SegmentationNetwork
from kdas_edge.recipe import TrainRecipe, load_recipe

PLAIN = Architecture("none", size=8, mean=(0, 0, 0), std=(1, 1, 1))


class Brightness(SegmentationNetwork):
    """Marks what is bright; with `biased`, only in the left half of what it is shown."""

    architecture = PLAIN

    def __init__(self, biased: bool) -> None:
        super().__init__()
        self.biased = biased

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = x[:, :1] - 0.5
        if self.biased:
            z = torch.where(torch.arange(x.shape[-1]) < x.shape[-1] // 2, z, -1.0)
        return z, torch.zeros_like(z)


def frames() -> Tensor:
    """A frame with a bright square left of the middle, and a dark one."""
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    images[0, :, 2:6, 0:4] = 255
    return images


def test_a_teacher_whose_masks_of_the_flips_are_alike_is_consistent() -> None:
    found, fraction = Teacher(Brightness(biased=False), 8).consistency(frames())
    assert found.tolist() == [1, 1]
    assert fraction.tolist() == [16 / 64, 0]


def test_consistency_is_the_mean_dice_of_the_masks_of_three_flips() -> None:
    # itself and upside down mark the square, left to right marks nothing: Dice 0, 1 and 0
    found, fraction = Teacher(Brightness(biased=True), 8).consistency(frames())
    assert found.tolist() == pytest.approx([1 / 3, 1])
    assert fraction.tolist() == pytest.approx([2 / 3 * 16 / 64, 0])


@pytest.fixture
def recordings(tmp_path: Path, scenes: Path) -> Path:
    """Four new scenes and a copy of a test image, as a user's folder of recordings."""
    from PIL import Image

    folder = tmp_path / "recordings"
    folder.mkdir()
    for seed in range(4):
        Image.fromarray(scene(900 + seed, 96)[0]).save(folder / f"frame{seed}.png")
    test = sorted((scenes / "TestDataset").rglob("images/*"))[0]
    Image.fromarray(np.asarray(read_image(test))).save(folder / "leak.png")
    return folder


@pytest.fixture(scope="module")
def teacher(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("teacher")
    run_training(tiny(scenes, name="teacher", schedule__epochs=1), out)
    return out / "teacher"


def test_a_distillation_takes_frames_without_masks_and_leaves_test_images_out(
    scenes: Path, tmp_path: Path, teacher: Path, recordings: Path
) -> None:
    recipe = tiny(
        scenes,
        teacher=str(teacher),
        data__unlabelled=str(recordings),
        data__pseudo_label_consistency=0.0,
        data__epoch_images=8,
        schedule__epochs=1,
    )
    run_training(recipe, tmp_path)
    verdicts = {
        row["name"]: row for row in read_json(tmp_path / "tiny" / "unlabelled.json")["frames"]
    }
    assert len(verdicts) == 5
    assert not verdicts["unlabelled/leak"]["used"]
    assert verdicts["unlabelled/leak"]["twin"].startswith("TestDataset/")
    assert sum(row["used"] for row in verdicts.values()) == 4
    assert "4 of 5 used" in (tmp_path / "tiny" / "log.txt").read_text()


def test_no_trustworthy_frame_is_one_clear_line_and_leaves_no_run(
    scenes: Path, tmp_path: Path, teacher: Path, recordings: Path
) -> None:
    for path in recordings.glob("frame*"):
        path.unlink()
    recipe = tiny(scenes, teacher=str(teacher), data__unlabelled=str(recordings))
    with pytest.raises(UserError, match=r"no frame of .* is left"):
        run_training(recipe, tmp_path)
    assert not (tmp_path / "tiny").exists()


def test_frames_without_masks_need_a_teacher(scenes: Path, recordings: Path) -> None:
    with pytest.raises(UserError, match=r"data\.unlabelled .* needs a teacher"):
        load_recipe(
            TrainRecipe,
            {
                "data": {"root": str(scenes), "unlabelled": str(recordings)},
                "schedule": {"epochs": 1},
            },
            [],
        )


def test_a_short_epoch_repeats_nothing_and_a_long_one_only_after_all_were_seen() -> None:
    assert sorted(epoch_order(10, 10, seed=1).tolist()) == list(range(10))
    short = epoch_order(10, 4, seed=1).tolist()
    assert len(set(short)) == 4
    long = epoch_order(10, 25, seed=1).tolist()
    assert set(long[:10]) == set(long[10:20]) == set(range(10))
    assert long[:10] != long[10:20]


def test_masks_of_frames_without_masks_are_empty_and_marked(scenes: Path, recordings: Path) -> None:
    recipe = replace_data(tiny(scenes), recordings)
    data = load_training_data(recipe.data, 64)
    unlabelled = ~data.train.labelled
    assert int(unlabelled.sum()) == 5
    assert not data.train.masks[unlabelled].any()
    assert replace(data, train=data.train).validation.labelled.all()


def test_a_fraction_of_the_masks_is_kept_and_the_other_images_need_a_teacher(
    scenes: Path, teacher: Path, tmp_path: Path
) -> None:
    whole = load_training_data(tiny(scenes).data)
    few = load_training_data(tiny(scenes, data__labelled_fraction=0.25).data)
    again = load_training_data(tiny(scenes, data__labelled_fraction=0.25).data)
    assert int(few.train.labelled.sum()) == round(0.25 * len(whole.train))
    assert torch.equal(few.train.labelled, again.train.labelled)
    assert few.train.names == whole.train.names and few.validation.labelled.all()
    known = few.train.labelled
    assert torch.equal(few.train.masks[known], whole.train.masks[known])
    assert not few.train.masks[~known].any() and whole.train.masks[~known].any()

    counts = {}
    for name, changes in {"alone": {}, "taught": {"teacher": str(teacher)}}.items():
        recipe = tiny(
            scenes, name=name, data__labelled_fraction=0.25, schedule__epochs=1, **changes
        )
        run_training(recipe, tmp_path)
        counts[name] = (tmp_path / name / "log.txt").read_text()
    assert f"data: {int(known.sum())} training and" in counts["alone"]
    assert f"data: {len(whole.train)} training and" in counts["taught"]


def replace_data(recipe: TrainRecipe, recordings: Path) -> TrainRecipe:
    data = recipe.data.model_copy(update={"unlabelled": str(recordings)})
    return recipe.model_copy(update={"data": data})
