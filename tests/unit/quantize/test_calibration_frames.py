"""Which frames set the ranges."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdas_edge.data.dataset import TrainingData, load_training_data
from kdas_edge.data.layout import test_sets as sets_of_tests
from kdas_edge.data.synthetic import scene
from kdas_edge.errors import UserError
from kdas_edge.models.zoo import architecture_of
from kdas_edge.quantize.calibration.frames import calibration_set
from kdas_edge.quantize.calibration.make import Request, make_calibration_set
from kdas_edge.recipe import CalibrationRecipe, DataRecipe

SIZE = 64


@pytest.fixture(scope="module")
def data(scenes: Path) -> TrainingData:
    return load_training_data(DataRecipe(root=str(scenes), size=SIZE, validation=0.2))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Five frames of another hospital."""
    folder = tmp_path / "own"
    folder.mkdir()
    for index in range(5):
        Image.fromarray(scene(5000 + index, 120)[0]).save(folder / f"own{index}.png")
    return folder


@pytest.fixture
def made(scenes: Path, tmp_path: Path) -> Path:
    make_calibration_set(Request((scenes,), count=10), tmp_path / "set")
    return tmp_path / "set"


def test_frames_come_from_the_training_side_of_the_split(data: TrainingData) -> None:
    chosen = calibration_set(data, CalibrationRecipe(samples=8), SIZE)
    assert len(chosen.names) == 8 and chosen.images.shape == (8, 3, SIZE, SIZE)
    assert set(chosen.names) <= set(data.split.train)
    assert not set(chosen.names) & set(data.split.validation)
    for name, image in zip(chosen.names, chosen.images, strict=True):
        assert torch.equal(image, data.train.images[data.train.names.index(name)])
    # a tenth of eight is one: the drawn set has polyp-free scenes
    free = {n for n, m in zip(data.train.names, data.train.masks, strict=True) if not m.any()}
    assert free and free & set(chosen.names)
    again = calibration_set(data, CalibrationRecipe(samples=8), SIZE)
    assert again.names == chosen.names
    other = calibration_set(data, CalibrationRecipe(samples=8), SIZE, seed=1)
    assert other.names != chosen.names


def test_a_training_image_that_shows_a_test_image_is_left_out(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "leaky"
    shutil.copytree(scenes, root)
    test = next(iter(sets_of_tests(root).values())).pairs[0]
    assert test.mask is not None
    with Image.open(test.image) as image:
        near = image.resize((112, 112))
    near.save(root / "TrainDataset" / "images" / "zz_leak.jpg", quality=80)
    with Image.open(test.mask) as mask:
        mask.resize((112, 112)).save(root / "TrainDataset" / "masks" / "zz_leak.png")
    leaky = load_training_data(DataRecipe(root=str(root), size=SIZE, validation=0.0))
    chosen = calibration_set(leaky, CalibrationRecipe(samples=300), SIZE)
    assert "zz_leak" in leaky.train.names and "zz_leak" not in chosen.names
    assert len(chosen.names) == len(leaky.train) - 1
    assert "1 training frames show a test image" in capsys.readouterr().err
    assert chosen.origin["left_out"] == 1


def test_a_folder_of_the_users_own_frames_can_be_the_source(
    data: TrainingData, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = calibration_set(data, CalibrationRecipe(samples=3, source=str(own)), SIZE)
    assert chosen.images.shape == (3, 3, SIZE, SIZE) and chosen.images.dtype == torch.uint8
    assert len(set(chosen.names)) == 3 and all(name.startswith("own") for name in chosen.names)
    samples = chosen.samples(architecture_of("test_efficientnet", size=SIZE))
    assert [tuple(sample.shape) for sample in samples] == [(1, 3, SIZE, SIZE)] * 3
    assert samples[0].dtype == torch.float32
    everything = calibration_set(data, CalibrationRecipe(source=str(own)), SIZE)
    assert len(everything.names) == 5
    assert "fewer than calibration.samples 300: all are used" in capsys.readouterr().err


def test_a_folder_with_a_test_image_is_refused(data: TrainingData, scenes: Path, own: Path) -> None:
    test = next(iter(sets_of_tests(scenes).values())).pairs[0].image
    shutil.copyfile(test, own / "holiday.jpg")
    with pytest.raises(UserError, match=rf"holiday\.jpg is the same picture as .*{test.name}"):
        calibration_set(data, CalibrationRecipe(samples=3, source=str(own)), SIZE)
    with Image.open(test) as image:
        image.resize((90, 80)).save(own / "holiday.jpg", quality=70)
    with pytest.raises(UserError, match=r"holiday\.jpg is a near duplicate of TestDataset.*calibr"):
        calibration_set(data, CalibrationRecipe(samples=3, source=str(own)), SIZE)


def test_frames_of_the_validation_split_are_left_out_of_a_folder(
    data: TrainingData, scenes: Path, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = data.split.validation[0]
    shutil.copyfile(scenes / "TrainDataset" / "images" / f"{name}.jpg", own / "mine.jpg")
    chosen = calibration_set(data, CalibrationRecipe(source=str(own)), SIZE)
    assert len(chosen.names) == 5 and "mine" not in chosen.names
    assert "1 calibration frames show an image of the validation split" in capsys.readouterr().err


def test_a_set_gives_the_frames_that_were_chosen(data: TrainingData, made: Path) -> None:
    listed = [frame["name"] for frame in json.loads((made / "manifest.json").read_text())["frames"]]
    chosen = calibration_set(data, CalibrationRecipe(source=str(made)), SIZE)
    assert list(chosen.names) == [n for n in listed if n not in data.split.validation]
    for name, image in zip(chosen.names, chosen.images, strict=True):
        assert torch.equal(image, data.train.images[data.train.names.index(name)])


def test_a_manifest_finds_its_frames_in_the_data_root(
    data: TrainingData, scenes: Path, made: Path, tmp_path: Path
) -> None:
    manifest = tmp_path / "alone.json"
    make_calibration_set(Request((scenes,), count=10), manifest, manifest_only=True)
    alone = calibration_set(data, CalibrationRecipe(source=str(manifest)), SIZE)
    copied = calibration_set(data, CalibrationRecipe(source=str(made)), SIZE)
    assert alone.names == copied.names and torch.equal(alone.images, copied.images)


def test_a_manifest_knows_a_picture_again_in_another_file_but_no_other_picture(
    data: TrainingData, scenes: Path, tmp_path: Path
) -> None:
    root, manifest = tmp_path / "data", tmp_path / "alone.json"
    shutil.copytree(scenes, root)
    make_calibration_set(Request((root,), count=24), manifest, manifest_only=True)
    first = json.loads(manifest.read_text())["frames"][0]
    original = root / first["path"]
    with Image.open(original) as image:
        picture = image.copy()
    original.unlink()
    recipe = CalibrationRecipe(source=str(manifest))
    other = load_training_data(DataRecipe(root=str(scenes), size=SIZE, validation=0.0))
    moved = replace(other, source=replace(other.source, root=root / "TrainDataset"))
    with pytest.raises(UserError, match=rf"{original.name} is missing"):
        calibration_set(moved, recipe, SIZE)
    picture.save(original.with_suffix(".png"))
    assert first["name"] in calibration_set(moved, recipe, SIZE).names
    picture.rotate(90).save(original.with_suffix(".png"))
    with pytest.raises(UserError, match=rf"{original.stem}\.png has changed"):
        calibration_set(moved, recipe, SIZE)


def test_a_set_that_was_changed_is_refused(data: TrainingData, made: Path) -> None:
    recipe = CalibrationRecipe(source=str(made))
    frame = sorted((made / "frames").iterdir())[3]
    kept = frame.read_bytes()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(frame)
    with pytest.raises(UserError, match=rf"{frame.name} has changed"):
        calibration_set(data, recipe, SIZE)
    frame.unlink()
    with pytest.raises(UserError, match=rf"{frame.name} is missing"):
        calibration_set(data, recipe, SIZE)
    frame.write_bytes(kept)
    calibration_set(data, recipe, SIZE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "kdas-edge/calibration/9"}, "not a calibration manifest"),
        ({"method": "guess"}, "method: Input should be"),
        ({"frames": []}, "frames: List should have at least 1"),
        ({"comment": "mine"}, "comment: Extra inputs"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(
    data: TrainingData, made: Path, change: dict[str, object], words: str
) -> None:
    path = made / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=words):
        calibration_set(data, CalibrationRecipe(source=str(made)), SIZE)


@pytest.mark.parametrize(
    "path", ["../../secret.png", "/etc/passwd", "frames/../../x.png", "..\\x.png", "C:x.png"]
)
def test_a_manifest_cannot_lead_out_of_its_folder(
    data: TrainingData, made: Path, path: str
) -> None:
    content = json.loads((made / "manifest.json").read_text())
    content["frames"][0]["file"] = path
    (made / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="leads out of the folder"):
        calibration_set(data, CalibrationRecipe(source=str(made)), SIZE)


def test_a_set_that_shows_a_test_image_is_refused(
    data: TrainingData, scenes: Path, tmp_path: Path
) -> None:
    # made where the test images were not known
    folder = tmp_path / "recordings"
    folder.mkdir()
    shutil.copyfile(next(iter(sets_of_tests(scenes).values())).pairs[1].image, folder / "a.jpg")
    Image.fromarray(scene(5000, 96)[0]).save(folder / "b.png")
    make_calibration_set(Request((folder,)), tmp_path / "set")
    with pytest.raises(UserError, match=r"0000_a\.jpg is the same picture as TestDataset"):
        calibration_set(data, CalibrationRecipe(source=str(tmp_path / "set")), SIZE)


def test_a_folder_without_frames_or_with_an_unreadable_one_is_refused(
    data: TrainingData, own: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no image"):
        calibration_set(data, CalibrationRecipe(source=str(tmp_path / "empty")), SIZE)
    with pytest.raises(UserError, match="does not exist"):
        calibration_set(data, CalibrationRecipe(source=str(tmp_path / "absent")), SIZE)
    (own / "own3.png").write_bytes((own / "own3.png").read_bytes()[:300])
    with pytest.raises(UserError, match=r"own3\.png cannot be read"):
        calibration_set(data, CalibrationRecipe(source=str(own)), SIZE)
