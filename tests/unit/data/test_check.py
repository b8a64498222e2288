"""A check lists every fault of a data set at once, and judges none that is not there."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdas_edge.data.check import Report, check
from kdas_edge.data.synthetic import scene
from kdas_edge.errors import UserError


def _write(folder: Path, name: str, seed: int, quality: int = 0) -> None:
    """One pair: JPEG at a quality, or PNG for 0."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    image, mask = scene(seed, 96, polyp=True)
    if quality:
        Image.fromarray(image).save(folder / "images" / f"{name}.jpg", quality=quality)
    else:
        Image.fromarray(image).save(folder / "images" / f"{name}.png")
    Image.fromarray(mask).save(folder / "masks" / f"{name}.png")


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with every fault that the check knows."""
    root = tmp_path_factory.mktemp("faulty")
    train, test = root / "TrainDataset", root / "TestDataset" / "Ward"
    for index in range(6):
        _write(train, f"good{index}", 50 + index)
    _write(train, "empty_image", 60)
    (train / "images" / "empty_image.png").write_bytes(b"")
    _write(train, "truncated", 61)
    path = train / "masks" / "truncated.png"
    path.write_bytes(path.read_bytes()[:60])
    _write(train, "other_size", 62)
    Image.fromarray(np.ones((96, 80), bool)).save(train / "masks" / "other_size.png")
    _write(train, "lonely_image", 63)
    (train / "masks" / "lonely_image.png").unlink()
    _write(train, "lonely_mask", 64)
    (train / "images" / "lonely_mask.png").unlink()
    _write(train, "nothing", 65)
    Image.fromarray(np.zeros((96, 96), bool)).save(train / "masks" / "nothing.png")
    _write(train, "labels", 66)
    labels = scene(66, 96, polyp=True)[1].astype(np.uint8)
    Image.fromarray(labels).save(train / "masks" / "labels.png")
    _write(train, "unclear", 68)
    Image.fromarray(labels + 1).save(train / "masks" / "unclear.png")
    _write(train, "full", 69)
    Image.fromarray(np.full((96, 96), 255, np.uint8)).save(train / "masks" / "full.png")
    _write(train, "twins", 67)
    Image.fromarray(scene(67, 96)[0]).save(train / "images" / "twins.bmp")
    _write(train, "same", 50)
    Image.fromarray(~scene(50, 96, polyp=True)[1]).save(train / "masks" / "same.png")
    _write(train, "again", 51, quality=70)
    _write(test, "seen", 52, quality=80)
    _write(test, "copied", 53)
    _write(test, "new", 90)
    (root / "TestDataset" / "Half" / "images").mkdir(parents=True)
    return root


@pytest.fixture(scope="module")
def report(faulty: Path) -> Report:
    return check(faulty)


def test_every_fault_is_listed_at_once(report: Report) -> None:
    def stems(kind) -> set[str]:
        return {Path(file).stem for finding in report.of(kind) for file in finding.files}

    assert stems("unreadable image") == {"empty_image"}
    assert stems("unreadable mask") == {"truncated"}
    assert stems("size mismatch") == {"other_size"}
    assert stems("image without mask") == {"lonely_image"}
    assert stems("mask without image") == {"lonely_mask"}
    assert stems("no polyp in mask") == {"nothing"}
    assert stems("ambiguous mask") == {"unclear"}
    assert stems("full mask") == {"full"}
    assert stems("two files of one name") == {"twins"}
    assert stems("exact duplicate") == {"good0", "same"}
    assert stems("duplicate with another mask") == {"good0", "same"}
    assert {"good1", "again"} <= stems("near duplicates")
    # the folder without images, and its masks/ that does not exist
    assert report.count("missing folder", "Half") == 2


def test_leaks_name_the_training_image_and_spare_new_ones(report: Report) -> None:
    leaks = {Path(f.files[0]).stem: f for f in report.of("near duplicate of training", "Ward")}
    assert set(leaks) == {"seen", "copied"}
    assert leaks["seen"].files[1] == "TrainDataset/images/good2.png"
    assert leaks["copied"].files[1] == "TrainDataset/images/good3.png"
    assert leaks["copied"].detail == "identical"


def test_errors_and_warnings_are_told_apart(report: Report) -> None:
    assert {finding.kind for finding in report.warnings} == {
        "no polyp in mask",
        "exact duplicate",
        "duplicate with another mask",
        "near duplicates",
        "near duplicate of training",
    }
    assert len(report.errors) == 10


def test_a_report_becomes_json_and_counts_the_sets(report: Report) -> None:
    content = json.loads(json.dumps(report.as_json()))
    assert content["errors"] == 10
    assert content["sets"]["Ward"]["pairs"] == 3
    assert content["sets"]["Ward"]["largest"] == "96×96"
    assert {entry["level"] for entry in content["findings"]} == {"error", "warning"}


def test_a_sound_set_has_nothing_to_report(scenes: Path) -> None:
    found = check(scenes)
    assert found.errors == []
    assert found.sets["train"].pairs == 24
    assert found.sets["train"].polyp_free == found.count("no polyp in mask", "train")
    assert found.count("exact duplicate") == found.count("ambiguous mask") == 0
    assert found.count("near duplicate of training") == 0


def test_a_black_jpeg_mask_is_an_empty_one(tmp_path: Path) -> None:
    _write(tmp_path, "a", 70)
    (tmp_path / "masks" / "a.png").unlink()
    black = np.random.default_rng(0).integers(0, 9, (96, 96), dtype=np.uint8)
    Image.fromarray(black).save(tmp_path / "masks" / "a.jpg")
    found = check(tmp_path)
    assert [finding.kind for finding in found.findings] == ["no polyp in mask", "set without polyp"]


def test_a_folder_that_is_no_data_set_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a folder"):
        check(tmp_path / "absent")
    with pytest.raises(UserError, match="neither"):
        check(tmp_path)
    (tmp_path / "images").mkdir()
    found = check(tmp_path)
    assert [finding.kind for finding in found.errors] == ["missing folder"] * 2


def test_groups_that_straddle_sides_are_told(tmp_path: Path) -> None:
    for index, name in enumerate(("p1_0", "p1_1", "p2_0")):
        _write(tmp_path / "TrainDataset", name, 80 + index)
    for index, name in enumerate(("p2_1", "p3_0")):
        _write(tmp_path / "TestDataset" / "Ward", name, 90 + index)
    found = check(tmp_path, group_by="p[0-9]").of("group on both sides")
    assert [(finding.set_name, finding.detail) for finding in found] == [
        ("Ward", "p2: 1 images here, 1 in train")
    ]
    assert check(tmp_path).of("group on both sides") == []
