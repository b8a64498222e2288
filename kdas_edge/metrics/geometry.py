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
# Distances are computed so far around the polyp as a map needs it, which is less for a map that is
# sure of its background.
MARGINS = (48, 80, 128)
_DECAY = np.log(0.5) / 5

Box = tuple[slice, slice]


def gaussian() -> NDArray[np.float64]:
    """(7,) one axis of the 7×7 Gaussian window of sigma 5, which is separable; its sum is 1."""
    x = np.arange(_WINDOW) - REACH
    weights = np.exp(-(x**2) / (2 * _SIGMA**2))
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def decay_at(distance: float) -> float:
    """exp(log(0.5) / 5 · distance in pixels), equation 12 of the weighted F-measure."""
    return float(np.exp(_DECAY * distance))


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
        self._decay: dict[int | None, tuple[NDArray[np.float64], float]] = {}

    def prepare(self) -> None:
        """Compute now, perhaps in another thread, what nearly every map will need."""
        _ = self.centre, self.nearest
        self.decay(MARGINS[0])

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

    def surroundings(self, margin: int | None) -> Box:
        """The smallest rows and columns that hold the polyp, and `margin` pixels on each side.

        Args:
            margin: in pixels; None for the whole frame.
        """
        if margin is None:
            return slice(0, self.mask.shape[0]), slice(0, self.mask.shape[1])
        return self._around(margin)

    def decay(self, margin: int | None) -> tuple[NDArray[np.float64], float]:
        """How much the weighted F-measure forgives a false alarm near the polyp.

        Args:
            margin: of `surroundings`.

        Returns:
            `decay_at` the distance to the polyp, in the surroundings, 1 on the polyp itself; and
            the sum of it.
        """
        if margin not in self._decay:
            outside = np.subtract(1, self.pixels[self.surroundings(margin)], dtype=np.uint8)
            distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            # float32 holds the square, an integer, but not its root
            exact = cv2.sqrt(np.rint(distance * distance).astype(np.float64))
            exact *= _DECAY
            weights = np.asarray(cv2.exp(exact), dtype=np.float64)
            self._decay[margin] = weights, float(weights.sum())
        return self._decay[margin]

    def _around(self, margin: int) -> Box:
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
