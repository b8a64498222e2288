"""A set that does not fit into memory is mapped from a file, and trains to the same weights."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kdas_edge.data.dataset import load_training_data, with_frames
from kdas_edge.data.resident import bytes_needed
from kdas_edge.data.synthetic import scene
from kdas_edge.distill.training import run_training
from kdas_edge.errors import UserError
from kdas_edge.models.checkpoints import BEST
from kdas_edge.recipe import DataRecipe, TrainRecipe, load_recipe

SIZE = 64


def _recipe(root: Path, **values: object) -> DataRecipe:
    return DataRecipe.model_validate({"root": str(root), "size": SIZE, "validation": 0.2, **values})


def test_a_set_that_does_not_fit_needs_a_folder_and_says_how_much(scenes: Path) -> None:
    with pytest.raises(UserError, match=r"24 images of 64×64 pixels .*data.cache=DIR"):
        load_training_data(_recipe(scenes, memory_gb=1e-5))


def test_mapped_images_are_those_in_memory_and_are_decoded_once(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = load_training_data(_recipe(scenes, labelled_fraction=0.5))
    recipe = _recipe(scenes, labelled_fraction=0.5, memory_gb=1e-5, cache=str(tmp_path / "c"))
    for _ in range(2):
        mapped = load_training_data(recipe)
        for one, other in ((mapped.train, held.train), (mapped.validation, held.validation)):
            assert one.mapped == tmp_path / "c" and one.names == other.names
            assert torch.equal(one.images, other.images) and torch.equal(one.masks, other.masks)
        kept = torch.arange(len(held.train)) % 3 == 0
        assert torch.equal(mapped.train.where(kept).images, held.train.where(kept).images)
        assert mapped.train.to("cpu") is mapped.train
        # a write into the tensors does not reach the files
        mapped.train.images[0] = 0
        monkeypatch.setattr("kdas_edge.data.resident._fill", None)
    files = sorted(path.suffix for path in (tmp_path / "c").iterdir())
    assert files == [".images", ".masks"]
    assert sum(p.stat().st_size for p in (tmp_path / "c").iterdir()) == bytes_needed(24, SIZE)


def test_a_changed_image_is_decoded_again(scenes: Path, tmp_path: Path) -> None:
    recipe = _recipe(scenes, memory_gb=1e-5, cache=str(tmp_path / "c"))
    load_training_data(recipe)
    image = next((scenes / "TrainDataset" / "images").iterdir())
    image.touch()
    load_training_data(recipe)
    assert len(list((tmp_path / "c").glob("*.images"))) == 2


def test_a_cache_that_cannot_be_written_is_one_clear_line(scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"data\.cache"):
        load_training_data(_recipe(scenes, memory_gb=1e-5, cache=str(tmp_path / "file" / "c")))


def test_training_and_resuming_from_a_map_give_the_weights_of_memory(
    scenes: Path, tmp_path: Path
) -> None:
    def train(name: str, *values: str) -> dict[str, torch.Tensor]:
        overrides = [
            f"data.root={scenes}", f"name={name}", f"data.size={SIZE}", "data.validation=0.2",
            "model.backbone=mobilenetv2_100", "model.width=16", "schedule.epochs=2",
            "schedule.batch_size=8", "engine.precision=fp32", "engine.threads=1", *values,
        ]  # fmt: skip
        recipe = load_recipe(TrainRecipe, None, overrides)
        run_training(recipe, tmp_path)
        return load_file(tmp_path / name / BEST)

    first = train("memory")
    second = train("mapped", "data.memory_gb=0.00001", f"data.cache={tmp_path / 'cache'}")
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_frames_without_masks_come_from_videos_too(scenes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    film = cv2.VideoWriter(str(folder / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (96, 96))
    for index in range(6):
        film.write(scene(40 + index, 96)[0][..., ::-1].copy())
    film.release()
    cv2.imwrite(str(folder / "still.png"), scene(60, 96)[0][..., ::-1])
    data = load_training_data(_recipe(scenes, unlabelled=str(folder), unlabelled_stride=2))
    names = [
        name
        for name, labelled in zip(data.train.names, data.train.labelled, strict=True)
        if not labelled
    ]
    films = [f"unlabelled/film_{number:06}" for number in (0, 2, 4)]
    assert names == ["unlabelled/still", *films] == list(data.frames)
    shown = data.train.images[data.train.names.index(films[1])].permute(1, 2, 0).numpy()
    expected = cv2.resize(scene(42, 96)[0], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    assert np.abs(shown.astype(int) - expected).mean() < 12
    # only frames that are used count as trained on
    lineage = with_frames(data, set(names[:2])).split.lineage
    assert [lineage.side(data.frames[name]) for name in names] == ["train", "train", None, None]
