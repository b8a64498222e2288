import cv2
import numpy as np
import pytest

from kdas_edge.overlay import (
    FILL_OPACITY,
    GROUND_TRUTH,
    PREDICTION,
    SECOND_PREDICTION,
    draw_mask,
    side_by_side,
)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (80, 100, 3)).astype(np.uint8)


def disc(radius: int = 20) -> np.ndarray:
    y, x = np.mgrid[:80, :100]
    return (y - 40) ** 2 + (x - 50) ** 2 < radius**2


def test_a_contour_leaves_inside_and_outside_as_they_were(image):
    before, mask = image.copy(), disc()
    drawn = draw_mask(image, mask)
    near = cv2.morphologyEx(mask.view(np.uint8), cv2.MORPH_GRADIENT, np.ones((5, 5))) > 0
    changed = (drawn != image).any(axis=2)
    assert changed[near].any() and not changed[~near].any()
    np.testing.assert_array_equal(image, before)


def test_a_fill_is_the_blend_of_both_inside_and_nothing_outside(image):
    mask = disc()
    drawn = draw_mask(image, mask, (10, 20, 30), "fill")
    inside = cv2.erode(mask.view(np.uint8), np.ones((5, 5))) > 0
    outside = cv2.dilate(mask.view(np.uint8), np.ones((5, 5))) == 0
    wanted = 0.65 * image.astype(np.float64) + 0.35 * np.array([10, 20, 30])
    assert FILL_OPACITY == 0.35
    assert np.abs(drawn[inside] - wanted[inside]).max() <= 0.5 + 1e-9
    np.testing.assert_array_equal(drawn[outside], image[outside])


@pytest.mark.parametrize("style", ["contour", "fill"])
def test_an_empty_mask_draws_nothing(image, style):
    np.testing.assert_array_equal(draw_mask(image, disc(0), style=style), image)


def test_panels_stand_beside_each_other_with_a_label_each(image):
    both = side_by_side([image, image], ["student int8", "teacher fp32"])
    assert both.shape == (80, 200, 3)
    for panel in (both[:, :100], both[:, 100:]):
        changed = (panel != image).any(axis=2)
        assert changed[:30].any() and not changed[40:].any()


def linear(color) -> np.ndarray:
    value = np.array(color) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB
PROTANOPIA = np.array(
    [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ]
)
DEUTERANOPIA = np.array(
    [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.01182, 0.04294, 0.968881],
    ]
)


def lab(color, seen: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of a colour as an eye of that kind sees it."""
    value = (seen @ linear(color)).clip(0, 1).astype(np.float32)
    encoded = np.where(value <= 0.0031308, 12.92 * value, 1.055 * value ** (1 / 2.4) - 0.055)
    return cv2.cvtColor(encoded.astype(np.float32).reshape(1, 1, 3), cv2.COLOR_RGB2LAB)[0, 0]


@pytest.mark.parametrize("eye", [np.eye(3), PROTANOPIA, DEUTERANOPIA])
def test_colours_differ_from_mucosa_and_from_each_other_for_every_eye(eye):
    colors = [GROUND_TRUTH, PREDICTION, SECOND_PREDICTION]
    mucosa = [(190, 90, 70), (220, 130, 110), (150, 60, 45)]
    pairs = [(a, b) for i, a in enumerate(colors) for b in [*colors[i + 1 :], *mucosa]]
    # a difference of 2.3 is just noticeable
    distances = [float(np.linalg.norm(lab(a, eye) - lab(b, eye))) for a, b in pairs]
    assert min(distances) > 30, distances
