"""Seven image statistics of a frame and the size of its polyp. No torch.

The numbers say where activations will lie, not what is seen: a set of frames that covers them shows
the quantiser the whole range of a day's work, dark and blurred frames and the wet ones included.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.data.layout import resize_image

FEATURES = (
    "brightness",
    "contrast",
    "sharpness",
    "highlights",
    "red_green",
    "yellow_blue",
    "polyp",
)
MEANING = {
    "brightness": "mean grey, 0 to 1",
    "contrast": "standard deviation of grey, 0 to 0.5",
    "sharpness": "log10 of 1 + variance of the Laplacian; low is blurred",
    "highlights": "share of the picture that is specular, 0 to 1",
    "red_green": "mean a* of CIELAB; high is red",
    "yellow_blue": "mean b* of CIELAB; high is yellow",
    "polyp": "share of the frame that polyps cover, 0 to 1; null where unknown",
}

# The Laplacian's variance depends on the size of the picture, so that all are measured at one.
SIDE = 256
# Everything darker, in all three colours, is the frame around the endoscope's picture.
_BORDER_LEVEL = 30
# A highlight has lost its colour: its darkest channel is still nearly white.
_HIGHLIGHT_LEVEL = 200
# Six digits: the choice must not hang on the last bit of another machine's rounding.
_DIGITS = 6

# Polyps by the share of the frame that they cover; frames with one above 0 are never polyp-free.
SMALL_BELOW = 0.03
LARGE_ABOVE = 0.10
POLYP_FREE = "polyp-free"
UNKNOWN = "unknown"
STRATA = (POLYP_FREE, "small", "medium", "large", UNKNOWN)


def appearance(image: NDArray[np.uint8]) -> tuple[float, ...]:
    """Measure a frame: the first six of `FEATURES`, in their order, see `MEANING`.

    The picture is reduced to 256×256; its dark surround does not count. A frame without any
    picture (black) is 0 in everything.

    Args:
        image: (H, W, 3) uint8 RGB.

    Returns:
        Six numbers, rounded to six digits.
    """
    small = resize_image(image, SIDE, SIDE)
    inside = small.max(axis=2) > _BORDER_LEVEL
    if not inside.any():
        return (0.0,) * 6
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    laplacian = cv2.Laplacian(grey, cv2.CV_32F)
    # the step from picture to surround is the sharpest edge of most frames, and says nothing
    core = cv2.erode(inside.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    edges = laplacian[core] if core.any() else laplacian[inside]
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[inside]
    values = (
        grey[inside].mean() / 255,
        grey[inside].std() / 255,
        np.log10(1 + float(edges.var())),
        float((small.min(axis=2)[inside] > _HIGHLIGHT_LEVEL).mean()),
        lab[:, 1].mean(),
        lab[:, 2].mean(),
    )
    return tuple(round(float(value), _DIGITS) for value in values)


def polyp_share(mask: NDArray[np.bool_]) -> float:
    """Return the share of the frame that a mask (H, W) covers, 0…1, rounded to six digits."""
    return round(float(mask.mean()), _DIGITS)


def stratum(polyp: float | None) -> str:
    """Name the stratum of a frame: polyp-free, small, medium, large, or unknown."""
    if polyp is None:
        return UNKNOWN
    if polyp == 0:
        return POLYP_FREE
    return "small" if polyp < SMALL_BELOW else "large" if polyp > LARGE_ABOVE else "medium"
