"""Where the picture is in a frame with a black border, as endoscopy processors send it."""

import functools
import threading
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.errors import UserError
from kdas_edge.runtime.frames import Roi, check_roi

# brighter than the black of a border, limited range (16) and noise included
_BLACK = 32
# pixels of the longer side that are looked at
_SAMPLES = 480
# a picture fills this share of its box (a circle has 0.79, an octagon more) and of the frame
_FILLS_BOX = 0.6
_FILLS_FRAME = 0.15
# a border thinner than this share of a side is not worth a crop
_THIN = 0.02
# what is kept around the bright part, as a share of the side
_MARGIN = 0.01
# frames that are looked at before the region stays as it is: one may be dark at an edge
SETTLED_AFTER = 25
RoiChoice = Sequence[int] | str | None


def find_picture(frame: NDArray[np.uint8]) -> Roi | None:
    """Find the box around the picture within a black border, an octagon or a circle.

    Text beside the picture does not count: only the largest bright part does.

    Args:
        frame: (H, W, C) or (H, W) uint8; every channel counts.

    Returns:
        The box; the whole frame where there is no border; None where the frame does not tell (too
        dark, or the bright part is no picture).
    """
    height, width = frame.shape[:2]
    step = max(1, max(height, width) // _SAMPLES)
    samples = max(width // step, 1), max(height // step, 1)
    small = cv2.resize(frame, samples, interpolation=cv2.INTER_NEAREST)
    bright = functools.reduce(cv2.max, cv2.split(small)[:3])
    # the strokes of letters are thinner than this
    letters = np.ones((5, 5), np.uint8)
    _, part = cv2.threshold(bright, _BLACK, 1, cv2.THRESH_BINARY)
    part = cv2.morphologyEx(part, cv2.MORPH_OPEN, letters)
    # instruments, shadows and the lumen are dark inside the picture
    _, _, statistics, _ = cv2.connectedComponentsWithStats(part, connectivity=4)
    if len(statistics) < 2:
        return None
    x, y, columns, rows, area = (int(value) for value in max(statistics[1:], key=lambda s: s[4]))
    if area < _FILLS_BOX * columns * rows or area < _FILLS_FRAME * part.size:
        return None
    # the edge of a picture is often too dark to be told from the border
    dx, dy = step + round(_MARGIN * width), step + round(_MARGIN * height)
    left, top = max(x * step - dx, 0), max(y * step - dy, 0)
    right, bottom = min((x + columns) * step + dx, width), min((y + rows) * step + dy, height)
    # both sides or none: an edge of its own is not a border
    if right - left > (1 - _THIN) * width:
        left, right = 0, width
    if bottom - top > (1 - _THIN) * height:
        top, bottom = 0, height
    return Roi(left, top, right - left, bottom - top)


class FieldOfView:
    """Which part of the frames is looked at; for any number of threads.

    Args:
        roi: None for the whole frame, `auto` to find the picture, or x, y, width, height.

    Raises:
        UserError: another word.
    """

    def __init__(self, roi: RoiChoice = None) -> None:
        if isinstance(roi, str) and roi != "auto":
            raise UserError(f'roi {roi!r} is unknown; give "auto", four numbers, or None')
        self._roi = roi
        self._lock = threading.Lock()
        self._found: dict[tuple[int, int], tuple[Roi | None, int]] = {}

    def of(self, frame: NDArray[np.uint8]) -> Roi | None:
        """The region of a frame, or None for all of it.

        With `auto` the region only grows over the first `SETTLED_AFTER` frames of a size, so that
        what is dark in one of them is not cut off for good, and is fixed from then on.

        Raises:
            UserError: the box does not lie in the frame.
        """
        if self._roi is None:
            return None
        height, width = frame.shape[:2]
        if not isinstance(self._roi, str):
            return _unless_whole(check_roi(self._roi, height, width), height, width)
        known, seen = self._found.get((height, width), (None, 0))
        if seen >= SETTLED_AFTER:
            return _unless_whole(known, height, width)
        box = find_picture(frame)
        with self._lock:
            known, seen = self._found.get((height, width), (None, 0))
            if box is not None:
                known = box if known is None else _union(known, box)
                self._found[height, width] = known, seen + 1
        return _unless_whole(known, height, width)

    def forget(self) -> None:
        """Look for the picture again, e.g. because another endoscope was plugged in."""
        with self._lock:
            self._found.clear()


def _union(one: Roi, other: Roi) -> Roi:
    left, top = min(one.x, other.x), min(one.y, other.y)
    right = max(one.x + one.width, other.x + other.width)
    bottom = max(one.y + one.height, other.y + other.height)
    return Roi(left, top, right - left, bottom - top)


def _unless_whole(roi: Roi | None, height: int, width: int) -> Roi | None:
    return None if roi is None or roi == Roi(0, 0, width, height) else roi
