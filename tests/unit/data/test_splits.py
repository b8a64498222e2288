"""A validation split holds out content, not files, and says exactly what it held out."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdas_edge.data.layout import find_pairs
from kdas_edge.data.splits import check_split, read_split, validation_split, write_split
from kdas_edge.data.synthetic import scene
from kdas_edge.errors import UserError


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty frames: 12 videos of two or three frames that drift by a pixel, and single frames."""
    root = tmp_path_factory.mktemp("videos")
    for kind in ("images", "masks"):
        (root / kind).mkdir()
    number = 0
    for video in range(18):
        image, mask = scene(1000 + video, 128)
        for frame in range((2, 3, 1)[video % 3] + (video % 3 == 1) + (video % 9 == 0)):
            # names are shuffled, so that a split by name would part the videos
            name = hashlib.sha256(f"{video}-{frame}".encode()).hexdigest()[:6] + f"_v{video}"
            moved = np.roll(image, frame, axis=1)
            Image.fromarray(moved).save(root / "images" / f"{name}.jpg", quality=88)
            Image.fromarray(np.roll(mask, frame, axis=1)).save(root / "masks" / f"{name}.png")
            number += 1
    assert number == 44
    return root


def _video(name: str) -> str:
    return name.split("_")[1]


@pytest.mark.parametrize("seed", range(5))
def test_frames_of_one_video_stay_on_one_side(videos: Path, seed: int) -> None:
    split = validation_split(find_pairs(videos), 0.25, seed)
    assert not {_video(n) for n in split.train} & {_video(n) for n in split.validation}
    assert len(split.train) + len(split.validation) == 44
    assert 8 <= len(split.validation) <= 11


def test_a_split_is_deterministic_and_the_seed_matters(videos: Path) -> None:
    image_set = find_pairs(videos)
    one = validation_split(image_set, 0.25, 3, workers=1)
    assert validation_split(image_set, 0.25, 3, workers=4) == one
    assert validation_split(image_set, 0.25, 4).validation != one.validation
    assert validation_split(image_set, 0.25, 4).sha256 != one.sha256


def test_a_fraction_of_zero_holds_nothing_out(videos: Path) -> None:
    split = validation_split(find_pairs(videos), 0, 0)
    assert split.validation == ()
    assert len(split.train) == len(split.hashes) == 44


def test_a_split_survives_the_disk_and_shows_tampering(videos: Path, tmp_path: Path) -> None:
    image_set = find_pairs(videos)
    split = validation_split(image_set, 0.2, 1)
    path = tmp_path / "split.json"
    write_split(path, split, image_set)
    assert read_split(path) == split
    content = json.loads(path.read_text())
    content["train"].append(content["validation"].pop())
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="changed by hand"):
        read_split(path)
    path.write_text("[]")
    with pytest.raises(UserError, match="not a split"):
        read_split(path)
    with pytest.raises(UserError, match="cannot read"):
        read_split(tmp_path / "absent.json")


def test_recorded_hashes_are_those_of_the_files(videos: Path) -> None:
    pair = find_pairs(videos).pairs[0]
    split = validation_split(find_pairs(videos), 0, 0)
    assert pair.mask is not None
    expected = hashlib.sha256(pair.image.read_bytes() + pair.mask.read_bytes()).hexdigest()
    assert split.hashes[pair.name] == expected


def test_a_changed_or_missing_image_is_noticed(videos: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(videos, copy)
    split = validation_split(find_pairs(copy), 0.2, 1)
    check_split(split, find_pairs(copy))
    pair = find_pairs(copy).pairs[7]
    assert pair.mask is not None
    Image.fromarray(np.zeros((128, 128), bool)).save(pair.mask)
    with pytest.raises(UserError, match=rf"{pair.name}.* has changed"):
        check_split(split, find_pairs(copy))
    pair.image.unlink()
    with pytest.raises(UserError, match=f"lacks '{pair.name}'"):
        check_split(split, find_pairs(copy))


def test_impossible_wishes_are_refused(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fraction 1"):
        validation_split(find_pairs(videos), 1.0, 0)
    image, mask = scene(5, 96)
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for index in range(6):
        Image.fromarray(image).save(tmp_path / "images" / f"{index}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{index}.png")
    with pytest.raises(UserError, match="all near-duplicates"):
        validation_split(find_pairs(tmp_path), 0.2, 0)


def test_a_group_too_large_for_the_fraction_is_taken_only_when_nothing_else_is_left(
    tmp_path: Path,
) -> None:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for name, seed in {"a0": 1, "a1": 1, "a2": 1, "a3": 1, "b0": 2, "b1": 2}.items():
        image, mask = scene(seed, 96)
        Image.fromarray(image).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    assert validation_split(find_pairs(tmp_path), 0.1, 0).validation == ("b0", "b1")
