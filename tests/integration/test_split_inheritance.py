"""A line of networks keeps one split: teacher, student, int8, bundle."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_verb import only_line, run_verb

from kdas_edge.data.lineage import read_lineage
from kdas_edge.data.synthetic import scene
from kdas_edge.distill.training import run_training
from kdas_edge.export.sources import load_sources
from kdas_edge.image_files import read_image
from kdas_edge.recipe import TrainRecipe, load_recipe

COMMON = [
    "data.size=64",
    "model.backbone=mobilenetv2_100",
    "model.width=16",
    "schedule.epochs=1",
    "schedule.batch_size=8",
    "engine.precision=fp32",
    "engine.threads=1",
]


def _train(root: Path, out: Path, name: str, *values: str) -> Path:
    overrides = [*COMMON, f"data.root={root}", f"name={name}", *values]
    run_training(load_recipe(TrainRecipe, None, overrides), out)
    return out / name


def _split(run: Path) -> dict:
    return json.loads((run / "split.json").read_text())


@pytest.fixture(scope="module")
def folder(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("line") / "set"
    shutil.copytree(scenes / "TrainDataset", root / "TrainDataset")
    shutil.copytree(scenes / "TestDataset", root / "TestDataset")
    # a test image that looks like a training image
    seen = sorted((root / "TrainDataset" / "images").iterdir())[0]
    test = next(path for path in sorted((root / "TestDataset").iterdir()) if path.is_dir())
    image = np.roll(read_image(seen), 1, axis=1)
    Image.fromarray(image).save(test / "images" / "twin.png")
    mask = root / "TrainDataset" / "masks" / f"{seen.stem}.png"
    shutil.copy(mask, test / "masks" / "twin.png")
    return root


@pytest.fixture(scope="module")
def teacher(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _train(folder, tmp_path_factory.mktemp("runs"), "teacher", "data.validation=0.25")


def test_a_student_validates_on_images_that_its_teacher_never_saw(
    folder: Path, teacher: Path, tmp_path: Path
) -> None:
    grown = tmp_path / "grown"
    shutil.copytree(folder, grown)
    for index in range(8):
        image, mask = scene(900 + index, 96, polyp=True)
        Image.fromarray(image).save(grown / "TrainDataset" / "images" / f"a{index}.png")
        Image.fromarray(mask).save(grown / "TrainDataset" / "masks" / f"a{index}.png")
    student = _train(
        grown,
        tmp_path,
        "student",
        f"teacher={teacher}",
        "data.split_seed=9",
        "data.validation=0.4",
    )
    before, after = _split(teacher), _split(student)
    assert set(before["validation"]) < set(after["validation"])
    assert set(before["train"]) < set(after["train"])
    assert "keep the side" in (student / "log.txt").read_text()
    # a resumed run has the sides that it began with
    resumed = load_recipe(TrainRecipe, student / "recipe.yaml", [])
    run_training(resumed, tmp_path, resume=True)
    assert _split(student) == after


def test_a_bundle_knows_what_was_trained_on_and_shows_nothing(folder: Path, teacher: Path) -> None:
    lineage = load_sources(teacher, None).lineage
    split = _split(teacher)
    images = {
        path.stem: read_image(path) for path in (folder / "TrainDataset" / "images").iterdir()
    }
    assert all(lineage.trained_on(images[n]) for n in split["train"])
    assert not any(lineage.trained_on(images[n]) for n in split["validation"])
    test = next(path for path in sorted((folder / "TestDataset").iterdir()) if path.is_dir())
    looks = {p.stem for p in (test / "images").iterdir() if lineage.looks_trained_on(read_image(p))}
    assert "twin" in looks
    (part,) = lineage.as_json()
    assert sum(map(len, part.values())) == 32 + 16 * (len(split["hashes"]) + len(looks))


@pytest.mark.slow
def test_the_gate_judges_on_images_that_were_not_trained_on(
    folder: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fast = ["calibration.samples=6", "engine.threads=1", "max_drop=1", "data.size=64"]
    arguments = ["quantize", "--student", str(teacher), "--data", str(folder), "--out"]
    done = run_verb(
        capsys, *arguments, str(tmp_path), "--name", "int8", "data.split_seed=5",
        "data.validation=0.5", *fast,
    )  # fmt: skip
    assert done.code == 0
    assert _split(tmp_path / "int8")["validation"] == _split(teacher)["validation"]
    assert read_lineage(tmp_path / "int8").as_json() == read_lineage(teacher).as_json()
    everything = _train(folder, tmp_path, "everything", "data.validation=0")
    arguments[2] = str(everything)
    refused = run_verb(capsys, *arguments, str(tmp_path), "--name", "none", *fast)
    assert refused.code == 2
    assert "trained on all 24 images" in only_line(refused)
    assert not (tmp_path / "none").exists()
