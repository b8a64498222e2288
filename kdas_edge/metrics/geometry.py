"""What the structure measures need to know of a mask, computed once for all maps scored on it.

The costly part of the weighted F-measure, distances to the polyp, depends on the mask alone. A
benchmark scores teacher, float and int8 model on the same mask, and the robustness table scores
dozens of maps on it.
"""

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

# side of the Gaussian window of the weighted F-measure, and its radius
_WINDOW, _SIGMA = 7, 5
REACH = _WINDOW // 2
# distances are computed this far around the polyp first; beyond, exp(−0.139 d) is below 2e-8
_NEAR_MARGIN = 128
_DECAY = np.log(0.5) / 5

Box = tuple[slice, slice]


def gaussian() -> NDArray[np.float64]:
    """(7,) one axis of the 7×7 Gaussian window of sigma 5, which is separable; its sum is 1."""
    x = np.arange(_WINDOW) - REACH
    weights = np.exp(-(x**2) / (2 * _SIGMA**2))
    return np.asarray(weights / weights.sum(), dtype=np.float64)


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
        self.box = self._around(REACH)
        self._weights: tuple[bool, Box, NDArray[np.float64]] | None = None

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
        # one pixel of the frame, in the coordinates of the padded and of the cropped mask
        wide = (pixels // width + _FARTHEST) * stride + pixels % width + _FARTHEST
        found_at, found = [], []
        for _, dx, dy in _OFFSETS:
            hit = is_polyp[wide + dy * stride + dx]
            found_at.append(pixels[hit])
            found.append(pixels[hit] + dy * width + dx)
            pixels, wide = pixels[~hit], wide[~hit]
            if not len(pixels):
                break
        return np.concatenate(found_at), np.concatenate(found)

    def decay(self, whole: bool) -> tuple[Box, NDArray[np.float64]]:
        """How much the weighted F-measure forgives a false alarm near the polyp.

        Args:
            whole: of the whole frame; otherwise of the surroundings of the polyp, outside of which
                every weight is below `DECAY_BEYOND`.

        Returns:
            The rows and columns, and in them exp(log(0.5) / 5 · distance to the polyp),
            0 on the polyp itself.
        """
        if self._weights is None or (whole and not self._weights[0]):
            box = (slice(0, self.mask.shape[0]), slice(0, self.mask.shape[1]))
            box = box if whole else self._around(_NEAR_MARGIN)
            outside = np.subtract(1, self.pixels[box], dtype=np.uint8)
            distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            # float32 holds the square, an integer, but not its root
            exact = np.sqrt(np.rint(distance * distance), dtype=np.float64)
            self._weights = (whole, box, cv2.exp(exact * _DECAY) * outside)
        return self._weights[1:]

    def _around(self, margin: int) -> Box:
        x, y, width, height = self._bounds
        rows, columns = self.mask.shape
        return (
            slice(max(0, y - margin), min(rows, y + height + margin)),
            slice(max(0, x - margin), min(columns, x + width + margin)),
        )


DECAY_BEYOND = float(np.exp(_DECAY * _NEAR_MARGIN))
# A corner of the window is √18 pixels from its centre, so that a nearer polyp pixel may lie outside
# of the window, four pixels straight away.
_FARTHEST = 4
_OFFSETS = sorted(
    (dx * dx + dy * dy, dx, dy)
    for dx in range(-_FARTHEST, _FARTHEST + 1)
    for dy in range(-_FARTHEST, _FARTHEST + 1)
    if 0 < dx * dx + dy * dy <= 2 * REACH**2
)
