"""Held-out images are known again, exactly and nearly."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdas_edge.data.duplicates import fingerprint, pixel_digest
from kdas_edge.data.heldout import HeldOut, has_tests, inside_tests, read_test_images
from kdas_edge.data.layout import test_sets as sets_of_tests
from kdas_edge.data.synthetic import scene
from kdas_edge.errors import UserError
from kdas_edge.image_files import read_image


def test_an_exact_and_a_near_duplicate_are_found_and_a_stranger_is_not(scenes: Path) -> None:
    tests = read_test_images(scenes)
    assert len(tests) == 6
    pairs = next(iter(sets_of_tests(scenes).values())).pairs
    exact = read_image(pairs[2].image)
    lighter = np.clip(exact.astype(np.float32) * 1.1 + 5, 0, 255).astype(np.uint8)
    near = np.asarray(Image.fromarray(lighter).resize((128, 110)))
    frames = [exact, near, scene(9999, 96)[0]]
    found = tests.matches(
        [fingerprint(frame) for frame in frames], [pixel_digest(frame) for frame in frames]
    )
    twin = pairs[2].image.relative_to(scenes).as_posix()
    assert found[0] is not None and found[0].identical and found[0].twin == twin
    assert found[1] is not None and not found[1].identical and found[1].twin == twin
    assert found[2] is None
    assert twin in found[0].text and "near duplicate" in found[1].text


def test_a_black_test_image_is_known_by_its_pixels(tmp_path: Path) -> None:
    folder = tmp_path / "TestDataset" / "Dark" / "images"
    folder.mkdir(parents=True)
    black = np.zeros((32, 32, 3), np.uint8)
    Image.fromarray(black).save(folder / "off.png")
    tests = read_test_images(tmp_path)
    assert tests.matches([fingerprint(black)], [pixel_digest(black)])[0] is not None
    # a fingerprint without structure is like nothing
    assert tests.matches([fingerprint(black)])[0] is None


def test_nothing_matches_where_nothing_is_held_out(scenes: Path) -> None:
    frame = scene(0, 64)[0]
    assert HeldOut().matches([fingerprint(frame)], [pixel_digest(frame)]) == [None]
    both = read_test_images(scenes) + HeldOut(("mine",), ("",), (fingerprint(frame),))
    (match,) = both.matches([fingerprint(frame)], [pixel_digest(frame)])
    assert match is not None and match.twin == "mine"


def test_a_root_without_test_sets_is_told(tmp_path: Path, scenes: Path) -> None:
    assert has_tests(scenes) and not has_tests(tmp_path)
    with pytest.raises(UserError, match="--data"):
        read_test_images(tmp_path)
    assert inside_tests(scenes / "TestDataset") and not inside_tests(scenes / "TrainDataset")
