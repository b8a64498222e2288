"""What the structure measures need to know of a mask, computed once for all maps scored on it.

The costly part of the weighted F-measure, distances to the polyp, depends on the mask alone. A
benchmark scores teacher, float and int8 model on the same mask, and the robustness table scores
dozens of maps on it.
"""

import functools
import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

# side of the Gaussian window of the weighted F-measure, and its radius
_WINDOW, _SIGMA = 7, 5
REACH = _WINDOW // 2
# What a map of a trained network needs around the polyp, in pixels; see `MaskGeometry.decay`.
_TYPICAL_MARGIN = 96
# Maps ask for nearly, not exactly, the same margin, and distances are what costs.
_MARGIN_STEP = 16
_DECAY = np.log(0.5) / 5

Box = tuple[slice, slice]


@dataclass(frozen=True)
class Decay:
    """How much of a false alarm is forgiven, in the surroundings of a polyp.

    Attributes:
        box: rows and columns of the surroundings.
        weights: exp(log(0.5) / 5 · distance to the polyp in pixels) in them, 1 on the polyp.
        total: sum of `weights`.
    """

    box: Box
    weights: NDArray[np.float64]
    total: float


def gaussian() -> NDArray[np.float64]:
    """(7,) one axis of the 7×7 Gaussian window of sigma 5, which is separable; its sum is 1."""
    x = np.arange(_WINDOW) - REACH
    weights = np.exp(-(x**2) / (2 * _SIGMA**2))
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def margin_of(decay: float) -> float:
    """Distance in pixels at which exp(log(0.5) / 5 · distance) has fallen to `decay`, above 0.

    The inverse of the decay in equation 12 of the weighted F-measure; 0 where `decay` is 1 or more.
    """
    return max(0.0, float(np.log(decay) / _DECAY))


class MaskGeometry:
    """Area, place and surroundings of a polyp in a mask.

    Args:
        mask: (H, W) bool, True on polyp, with at least one pixel of it.

    Attributes:
        mask: the mask.
        pixels: (H, W) uint8 view of it, 0 or 1.
        area: polyp pixels.
        box: the smallest rows and columns that hold the polyp, and three pixels more on each side
            where the frame has them: all that the window of the weighted F-measure can reach.
    """

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self.mask = np.ascontiguousarray(mask)
        self.pixels: NDArray[np.uint8] = self.mask.view(np.uint8)
        self.area = int(np.count_nonzero(mask))
        if not self.area:
            raise ValueError("a mask without a polyp has no geometry")
        self._bounds = cv2.boundingRect(self.pixels)
        self.box = self.around(REACH)
        self._reach = -math.inf
        self._decay: Decay | None = None

    def prepare(self) -> None:
        """Compute now, perhaps in another thread, what nearly every map will need."""
        _ = self.centre, self.nearest
        self.decay(_TYPICAL_MARGIN)

    @functools.cached_property
    def centre(self) -> tuple[int, int]:
        """Row and column that follow the rounded centroid: where the S-measure cuts the frame."""
        rows, columns = self.box
        inside = self.mask[self.box]
        by_row, by_column = inside.sum(1), inside.sum(0)
        row = np.arange(rows.start, rows.stop) @ by_row / self.area
        column = np.arange(columns.start, columns.stop) @ by_column / self.area
        return int(np.round(row)) + 1, int(np.round(column)) + 1

    @functools.cached_property
    def nearest(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """For the background within the window's reach of the polyp, the nearest polyp pixel.

        Where several are equally near, the one in the leftmost column counts, then the upper one,
        as in SciPy's distance transform that PySODMetrics calls.

        Returns:
            Flat indices into the mask cropped to `box`: of the background pixels, and of the polyp
            pixel nearest to each.
        """
        inside = np.ascontiguousarray(self.pixels[self.box])
        side = np.ones((_WINDOW, _WINDOW), np.uint8)
        band = (cv2.dilate(inside, side) > inside).ravel()
        height, width = inside.shape
        stride = width + 2 * _FARTHEST
        padded = np.zeros((height + 2 * _FARTHEST, stride), bool)
        padded[_FARTHEST:-_FARTHEST, _FARTHEST:-_FARTHEST] = inside
        is_polyp = padded.ravel()
        pixels = np.flatnonzero(band)
        # the same pixels in the coordinates of the padded mask
        wide = (pixels // width + _FARTHEST) * stride + pixels % width + _FARTHEST
        dx, dy = _OFFSETS.T
        # the first polyp pixel in the order of distance
        first = is_polyp[wide[:, np.newaxis] + (dy * stride + dx)].argmax(axis=1)
        return pixels, pixels + (dy * width + dx)[first]

    def decay(self, margin: float) -> Decay:
        """How much the weighted F-measure forgives a false alarm near the polyp.

        Args:
            margin: distance in pixels up to which it must be known; more is known where another map
                needed more.
        """
        if self._decay is not None and self._reach >= margin:
            return self._decay
        reach = _MARGIN_STEP * math.ceil(margin / _MARGIN_STEP)
        box = self.around(reach)
        outside = np.subtract(1, self.pixels[box], dtype=np.uint8)
        distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        # float32 holds the square, an integer, but not its root
        exact = cv2.sqrt(np.rint(distance * distance).astype(np.float64))
        exact *= _DECAY
        weights = np.asarray(cv2.exp(exact), dtype=np.float64)
        self._reach = math.inf if weights.shape == self.mask.shape else reach
        self._decay = Decay(box, weights, float(weights.sum()))
        return self._decay

    def around(self, margin: int) -> Box:
        """The smallest rows and columns that hold the polyp, and `margin` pixels on each side."""
        x, y, width, height = self._bounds
        rows, columns = self.mask.shape
        return (
            slice(max(0, y - margin), min(rows, y + height + margin)),
            slice(max(0, x - margin), min(columns, x + width + margin)),
        )


# A corner of the window is √18 pixels from its centre, so that a nearer polyp pixel may lie outside
# of the window, four pixels straight away.
_FARTHEST = 4
_OFFSETS = np.array(
    [
        (dx, dy)
        for _, dx, dy in sorted(
            (dx * dx + dy * dy, dx, dy)
            for dx in range(-_FARTHEST, _FARTHEST + 1)
            for dy in range(-_FARTHEST, _FARTHEST + 1)
            if 0 < dx * dx + dy * dy <= 2 * REACH**2
        )
    ]
)
