"""Scenes are seeded, their masks are exact, and they hold what they promise."""

import json
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from kdas_edge.data.layout import find_sets, read_pair
from kdas_edge.data.synthetic import scene, write_dataset
from kdas_edge.errors import UserError


def test_a_seed_gives_the_same_pixels_and_another_seed_others() -> None:
    image, mask = scene(11, 128)
    again, mask_again = scene(11, 128)
    assert image.shape == (128, 128, 3) and image.dtype == np.uint8
    assert mask.shape == (128, 128) and mask.dtype == bool
    assert (image == again).all() and (mask == mask_again).all()
    assert (scene(12, 128)[0] != image).any()


def test_polyps_appear_exactly_when_asked_for() -> None:
    covered = []
    for seed in range(16):
        assert not scene(seed, 64, polyp=False)[1].any()
        covered.append(scene(seed, 64, polyp=True)[1].mean())
    assert min(covered) > 0.002
    assert max(covered) < 0.6
    print(f"polyp area: median {np.median(covered):.1%}, {min(covered):.1%} … {max(covered):.1%}")


def test_left_to_the_seed_one_frame_in_ten_is_without_a_polyp() -> None:
    empty = sum(not scene(seed, 32)[1].any() for seed in range(80))
    assert 3 <= empty <= 17


def test_the_mask_lies_where_the_polyp_changes_the_picture() -> None:
    border, anywhere = [], []
    for seed in range(8):
        image, mask = scene(seed, 160, polyp=True)
        grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), 1).astype(float)
        edge = np.hypot(cv2.Sobel(grey, cv2.CV_64F, 1, 0), cv2.Sobel(grey, cv2.CV_64F, 0, 1))
        band = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5))) - cv2.erode(
            mask.astype(np.uint8), np.ones((5, 5))
        )
        border.append(edge[band > 0].mean())
        anywhere.append(edge.mean())
    # the border of the mask is an edge of the picture
    assert np.median(np.array(border) / np.array(anywhere)) > 1.3


def test_a_mask_does_not_depend_on_the_size_it_is_drawn_at() -> None:
    for seed in range(4):
        large, small = scene(seed, 256, polyp=True)[1], scene(seed, 128, polyp=True)[1]
        shrunk = cv2.resize(large.astype(np.float32), (128, 128), interpolation=cv2.INTER_AREA)
        overlap = ((shrunk > 0.5) & small).sum() / max(1, ((shrunk > 0.5) | small).sum())
        assert overlap > 0.9


def test_a_scene_looks_like_an_endoscope_sees() -> None:
    shares, reds = [], []
    for seed in range(10):
        image, _ = scene(seed, 128)
        lit = image.max(axis=2) > 40
        red, green, blue = (image[..., channel][lit].mean() for channel in range(3))
        reds.append(red > green > 0.8 * blue)
        shares.append((image.min(axis=2) > 225).mean())
    assert all(reds)
    # highlights, but no snow
    assert 0.0002 < np.mean(shares) < 0.03


def test_a_scene_costs_little_time() -> None:
    scene(0, 352)
    start = time.process_time()
    for seed in range(5):
        scene(seed, 352)
    spent = (time.process_time() - start) / 5
    print(f"{spent * 1000:.0f} ms of processor time for a scene at 352")
    assert spent < 0.5  # about 0.03 s; the bound catches an accident, not a slow machine


def test_a_written_set_has_the_layout_and_every_verb_can_read_it(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_dataset(root, train=20, test=5, size=64, seed=3, empty_fraction=0.2)
    sets = find_sets(root)
    assert {name: len(found.pairs) for name, found in sets.items()} == {
        "train": 20,
        "Synthetic": 5,
    }
    masks = [read_pair(pair)[1] for pair in sets["train"].pairs]
    assert sum(not mask.any() for mask in masks) == 4
    assert Image.open(sets["train"].pairs[0].mask or "").mode == "1"
    assert sets["train"].pairs[0].image.suffix == ".jpg"
    assert json.loads((root / "dataset.json").read_text())["seed"] == 3


def test_training_and_test_scenes_differ_and_a_longer_set_begins_like_a_shorter(
    tmp_path: Path,
) -> None:
    write_dataset(tmp_path / "a", train=3, test=3, size=48, seed=0)
    write_dataset(tmp_path / "b", train=5, test=1, size=48, seed=0, workers=1)
    train_a = [p.image.read_bytes() for p in find_sets(tmp_path / "a")["train"].pairs]
    test_a = [p.image.read_bytes() for p in find_sets(tmp_path / "a")["Synthetic"].pairs]
    train_b = [p.image.read_bytes() for p in find_sets(tmp_path / "b")["train"].pairs]
    assert train_b[:3] == train_a
    assert not set(train_a) & set(test_a)


def test_wrong_numbers_and_full_folders_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    for arguments, words in (
        ({"train": 0, "test": 1}, "train=0"),
        ({"train": 1, "test": 1, "size": 8}, "size 8"),
        ({"train": 1, "test": 1, "seed": -1}, "seed -1"),
        ({"train": 1, "test": 1, "empty_fraction": 2.0}, "empty fraction 2"),
    ):
        with pytest.raises(UserError, match=words):
            write_dataset(tmp_path / "out", **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    write_dataset(tmp_path / "out", train=1, test=0, size=48)
    with pytest.raises(UserError, match="--overwrite"):
        write_dataset(tmp_path / "out", train=1, test=0, size=48)
    write_dataset(tmp_path / "out", train=2, test=0, size=48, overwrite=True)
    assert len(list((tmp_path / "out" / "TrainDataset" / "images").iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
