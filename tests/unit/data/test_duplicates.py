"""Fingerprints must see through what video and re-export change, and through nothing else."""

import io

import numpy as np
import pytest
from PIL import Image

from kdas_edge.data.duplicates import (
    NEAR_DUPLICATE,
    SAME_CONTENT,
    fingerprint,
    groups,
    similarity,
)
from kdas_edge.data.synthetic import scene


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def _resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("seed", range(4))
def test_scale_jpeg_and_light_leave_a_near_duplicate(seed: int) -> None:
    image, _ = scene(seed, 256)
    shifted = image[4:, :-4]
    lighter = np.clip(image.astype(np.float32) * 1.12 + 6, 0, 255).astype(np.uint8)
    for other in (
        _resized(image, 352, 288),
        _resized(image, 96, 96),
        _jpeg(image, 40),
        lighter,
        shifted,
    ):
        value = similarity([fingerprint(image)], [fingerprint(other)])[0, 0]
        assert value > NEAR_DUPLICATE, value


def test_different_scenes_are_not_alike() -> None:
    prints = [fingerprint(scene(seed, 64)[0]) for seed in range(30)]
    values = similarity(prints, prints)[np.triu_indices(30, 1)]
    print(f"30 scenes: nearest pair {values.max():.3f}, {(values > SAME_CONTENT).sum()} alike")
    assert (values > SAME_CONTENT).mean() < 0.005


def test_images_without_structure_are_like_nothing() -> None:
    flat = np.full((64, 64, 3), 120, np.uint8)
    noisy = flat + np.random.default_rng(0).integers(0, 2, flat.shape, dtype=np.uint8)
    black = np.zeros((64, 64, 3), np.uint8)
    prints = [fingerprint(image) for image in (flat, noisy, black, flat)]
    assert np.abs(similarity(prints, prints)).max() == 0


def test_groups_are_connected_components_in_order_of_appearance() -> None:
    def at(degrees: float) -> np.ndarray:
        return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], np.float32)

    # 0–20–40 hang together by neighbours, though 0 and 40 are further apart than the threshold
    prints = [at(0), at(120), at(40), at(20), at(125)]
    assert groups(prints, threshold=float(np.cos(np.radians(25)))) == [0, 1, 0, 0, 1]
    assert groups(prints, threshold=0.9999) == [0, 1, 2, 3, 4]
    assert groups([]) == []
