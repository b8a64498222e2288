"""The numbers that describe a frame, against plain NumPy."""

import numpy as np
import pytest

from kdas_edge.data.features import FEATURES, SIDE, appearance, polyp_share, stratum
from kdas_edge.data.synthetic import scene

BRIGHTNESS, CONTRAST, SHARPNESS, HIGHLIGHTS, RED_GREEN, YELLOW_BLUE = range(6)


def _grey(image: np.ndarray) -> np.ndarray:
    """ITU-R 601 luma, rounded to 8 bits as OpenCV does."""
    return np.floor(image @ np.array([0.299, 0.587, 0.114]) + 0.5)


def _laplacian(grey: np.ndarray) -> np.ndarray:
    padded = np.pad(grey, 1, mode="reflect")
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    return around - 4 * grey


def _lab(image: np.ndarray) -> np.ndarray:
    """CIELAB of sRGB under D65, from the definition."""
    rgb = image / 255
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    matrix = np.array(
        [
            [0.412453, 0.357580, 0.180423],
            [0.212671, 0.715160, 0.072169],
            [0.019334, 0.119193, 0.950227],
        ]
    )
    xyz = linear @ matrix.T / np.array([0.950456, 1.0, 1.088754])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack(
        [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_the_numbers_are_those_of_numpy_on_a_frame_without_surround(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(60, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    image[40:80, 50:90] = 230
    found = appearance(image)
    grey = _grey(image)
    assert found[BRIGHTNESS] == pytest.approx(grey.mean() / 255, abs=1e-4)
    assert found[CONTRAST] == pytest.approx(grey.std() / 255, abs=1e-4)
    # the outermost two pixels are not measured where the picture ends inside the frame only
    assert found[SHARPNESS] == pytest.approx(np.log10(1 + _laplacian(grey).var()), abs=0.01)
    assert found[HIGHLIGHTS] == pytest.approx((image.min(axis=2) > 200).mean(), abs=1e-6)
    lab = _lab(image)
    assert found[RED_GREEN] == pytest.approx(lab[..., 1].mean(), abs=0.1)
    assert found[YELLOW_BLUE] == pytest.approx(lab[..., 2].mean(), abs=0.1)


def test_the_dark_surround_does_not_count() -> None:
    image = np.full((SIDE, SIDE, 3), (180, 90, 70), np.uint8)
    whole = appearance(image)
    image[:, :64] = 5
    image[:20] = 0
    assert appearance(image) == pytest.approx(whole, abs=1e-4)


def test_a_blurred_frame_is_less_sharp_and_a_darker_one_less_bright() -> None:
    import cv2

    image, _ = scene(3, 256)
    blurred = np.asarray(cv2.GaussianBlur(image, (0, 0), 3), dtype=np.uint8)
    darker = (image * 0.7).astype(np.uint8)
    assert appearance(blurred)[SHARPNESS] < appearance(image)[SHARPNESS] - 0.5
    assert appearance(darker)[BRIGHTNESS] < appearance(image)[BRIGHTNESS] - 0.05


def test_a_black_frame_is_zero_in_everything() -> None:
    assert appearance(np.zeros((48, 64, 3), np.uint8)) == (0.0,) * (len(FEATURES) - 1)


def test_strata_follow_the_size_of_the_polyp() -> None:
    mask = np.zeros((100, 100), bool)
    assert stratum(polyp_share(mask)) == "polyp-free"
    mask[:10, :29] = True
    assert polyp_share(mask) == 0.029 and stratum(0.029) == "small"
    assert [stratum(share) for share in (0.03, 0.1, 0.11, None)] == [
        "medium",
        "medium",
        "large",
        "unknown",
    ]
