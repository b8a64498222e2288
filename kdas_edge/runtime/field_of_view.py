"""Find the endoscope's picture on the screen of an endoscopy processor.

The screen has a dark border of octagonal, circular or rectangular shape, text, often a second small
picture and a position panel; a panel may touch or cover a part of the picture.
"""

import functools
import threading
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.errors import UserError
from kdas_edge.runtime.frames import Roi, check_roi

# samples along the longer side; the box is as exact as their distance (9 pixels at 1920)
_SAMPLES = 224
# grey levels above the border that belong to the picture; the border's own level is measured
_ABOVE_BORDER = 12
_DARKEST, _BRIGHTEST = 22, 40
# a picture fills this share of its box (a circle has 0.79) and of the frame
_FILLS_BOX = 0.5
_FILLS_FRAME = 0.15
# a border thinner than this share of a side is not worth a crop
_THIN = 0.02
# what is kept around the bright part, as a share of the side: edges are darker than the middle
_MARGIN = 0.003
# share of an outline that lies on a circle, and within how many samples; octagons have less
_ON_CIRCLE, _NEAR = 0.55, 0.7
# of the radius: how far the circle may go beyond what is bright
_BEYOND = 0.15
# of the points of an outline, for the circle
_EVERY = 2
# samples by which a straight edge may deviate, and the share of a side over which it is judged
_STRAIGHT = 1
_NARROW = 0.04
# frames that are looked at before the region stays as it is: one may be dark at an edge
SETTLED_AFTER = 25
# of the frames that may be wrong about an edge, for example by a panel that appears for a moment
_OUTLIERS = 0.2
RoiChoice = Sequence[int] | str | None
# the strokes of letters are thinner than this
_LETTERS = np.ones((3, 3), np.uint8)


def find_field_of_view(frame: NDArray[np.uint8]) -> Roi | None:
    """Find the box around the endoscope's picture.

    The largest connected part above the border's level is the picture. A part of it that lies on
    one side of the picture's centre line and ends in a straight edge is a panel that touches it,
    and is cut off: octagons, circles and rectangles reach the centre line on every side.

    Args:
        frame: (H, W, C) or (H, W) uint8; the order of the channels does not matter.

    Returns:
        The box; the whole frame where there is no border; None where the frame does not show it
        (too dark, or the bright part is no picture).
    """
    height, width = frame.shape[:2]
    step = max(1.0, max(height, width) / _SAMPLES)
    samples = max(round(width / step), 1), max(round(height / step), 1)
    small = cv2.resize(frame, samples, interpolation=cv2.INTER_NEAREST)
    bright = np.asarray(functools.reduce(cv2.max, cv2.split(small)[:3]), np.uint8)
    _, part = cv2.threshold(bright, _threshold(bright), 1, cv2.THRESH_BINARY)
    part = cv2.morphologyEx(part, cv2.MORPH_OPEN, _LETTERS)
    contours, _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return None
    # areas between the centres of samples: half a sample is missing on each side
    picture = max(contours, key=cv2.contourArea)
    left, top, columns, rows = cv2.boundingRect(picture)
    area = cv2.contourArea(picture)
    if area < _FILLS_BOX * columns * rows or area < _FILLS_FRAME * part.size:
        return None
    # instruments, shadows and the lumen are dark inside the picture: the outline is filled
    filled = np.zeros((rows, columns), np.uint8)
    cv2.drawContours(filled, [picture], -1, 1, cv2.FILLED, offset=(-left, -top))
    first, last = _without_panels(np.ascontiguousarray(filled.T))
    inside = np.ascontiguousarray(filled[:, first : last + 1])
    # rows that only the panel marked are empty now
    used = np.flatnonzero(inside.any(axis=1))
    top, inside = top + int(used[0]), inside[used[0] : used[-1] + 1]
    upper, lower = _without_panels(inside)
    used = np.flatnonzero(inside[upper : lower + 1].any(axis=0))
    # samples, the end not included
    box = (
        left + first + int(used[0]),
        top + upper,
        left + first + int(used[-1]) + 1,
        top + lower + 1,
    )
    circle = _circle(picture[::_EVERY, 0].astype(np.float64), box, samples)
    sides = []
    for axis, length in enumerate((width, height)):
        step = length / samples[axis]
        # sample i is pixel i * step: the edge lies between a sample of the border and one inside
        begin = (box[axis] - 1) * step + 1 - _MARGIN * length
        end = box[axis + 2] * step + _MARGIN * length
        if circle is not None:
            reach = _BEYOND * circle[2]
            begin = (max(circle[axis] - circle[2], box[axis] - reach) - 0.5) * step
            end = (min(circle[axis] + circle[2], box[axis + 2] + reach) + 0.5) * step
        sides.append((max(int(begin), 0), min(int(end + 0.5), length)))
    (left, right), (top, bottom) = sides
    # an edge of its own is not a border
    if right - left > (1 - _THIN) * width and bottom - top > (1 - _THIN) * height:
        return Roi(0, 0, width, height)
    return Roi(left, top, right - left, bottom - top)


def _circle(
    outline: NDArray[np.float64], box: tuple[int, int, int, int], samples: tuple[int, int]
) -> tuple[float, float, float] | None:
    """The circle that the outline of the picture is a part of, or None if it has another shape.

    A circle is found even where a part of its edge is as dark as the border.

    Args:
        outline: (N, 2) x and y, in samples.
        box: left, top, right and bottom of the picture without panels; the rest does not count.
        samples: of the frame; where the picture is cut by the frame is no part of the circle.

    Returns:
        x, y and radius in samples.
    """
    low = np.maximum(box[:2], 1)
    high = np.minimum(box[2:], np.array(samples) - 1) - 1
    points = outline[((outline >= low) & (outline <= high)).all(axis=1)]
    used, total = points, len(points)
    for _ in range(4):
        if len(used) < max(12, _ON_CIRCLE * total):
            return None
        # least squares of x² + y² = 2 a x + 2 b y + c
        matrix = np.column_stack([used, np.ones(len(used))])
        squares = np.einsum("ij,ij->i", used, used)
        try:
            a, b, c = np.linalg.solve(matrix.T @ matrix, matrix.T @ squares)
        except np.linalg.LinAlgError:  # all on one line
            return None
        radius = float(np.sqrt(max(c + (a * a + b * b) / 4, 0.0)))
        distance = np.hypot(points[:, 0] - a / 2, points[:, 1] - b / 2) - radius
        # what is dark lies within the circle: the points outside count more
        near = np.abs(distance) < _NEAR
        if near.all():
            break
        used = points[near] if near.sum() > _ON_CIRCLE * total else points[distance > -0.5]
    if near.sum() < _ON_CIRCLE * total:
        return None
    return a / 2, b / 2, radius


def _threshold(bright: NDArray[np.uint8]) -> float:
    """Grey level between border and picture: a little above the darkest corner."""
    height, width = bright.shape
    h, w = max(height // 16, 1), max(width // 16, 1)
    corners = [bright[rows, columns] for rows in np.s_[:h, -h:] for columns in np.s_[:w, -w:]]
    level = min(_middle(corner.ravel()) for corner in corners)
    return min(max(level + _ABOVE_BORDER, _DARKEST), _BRIGHTEST)


def _without_panels(lines: NDArray[np.uint8]) -> tuple[int, int]:
    """First and last line of the picture, without panels attached before and after it.

    Args:
        lines: (N, M) of 0 and 1, contiguous, the filled part; N rows, or columns transposed.
    """
    marked = lines.view(np.bool_)
    begin = marked.argmax(axis=1)
    end = lines.shape[1] - 1 - marked[:, ::-1].argmax(axis=1)
    length = end - begin
    long = length >= 0.9 * length.max()
    centre = _middle((begin + end)[long]) / 2
    reaching = np.flatnonzero((begin <= centre) & (end >= centre))
    first, last = int(reaching[0]), int(reaching[-1])
    after = slice(None, last, -1)
    return (
        _panel(begin[:first], end[:first], centre, len(lines)),
        len(lines) - 1 - _panel(begin[after], end[after], centre, len(lines)),
    )


def _panel(begin: NDArray[np.intp], end: NDArray[np.intp], centre: float, count: int) -> int:
    """How many of the outer lines, from outside, belong to a panel and not to the picture.

    Args:
        begin: first marked sample of each line that does not reach the centre line.
        end: last marked sample.
        centre: of the picture along the lines.
        count: lines in all.
    """
    if len(begin) < 3:
        return 0
    inner = begin if begin[len(begin) // 2] > centre else end
    some = min(max(4, round(_NARROW * count)), len(begin))
    outside = np.abs(inner - _middle(inner[1:some])) > _STRAIGHT
    if outside[1:some].mean() > 0.2:
        return 0  # a shadow at the picture's edge is not straight
    ends = np.flatnonzero(outside[some:] & outside[some - 1 : -1])
    return some + int(ends[0]) if len(ends) else len(begin)


def _middle(values: NDArray[np.generic]) -> float:
    """Median, without the mean of the middle two; a tenth of the time of `np.median`."""
    return float(np.partition(values, len(values) // 2)[len(values) // 2])


class FieldOfView:
    """The part of the frames of one source that is segmented; for any number of threads.

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
        self._found: dict[tuple[int, int], tuple[list[Roi], Roi | None]] = {}

    def of(self, frame: NDArray[np.uint8]) -> Roi | None:
        """The region of a frame, or None for all of it.

        With `auto` each edge of the region lies where all but a fifth of the first `SETTLED_AFTER`
        frames of a size have it, or farther out, so that what is dark in some frames is not cut
        off and what appears for a moment is not kept; from then on the region is fixed.

        Raises:
            UserError: the box does not lie in the frame.
        """
        if self._roi is None:
            return None
        height, width = frame.shape[:2]
        if not isinstance(self._roi, str):
            return _unless_whole(check_roi(self._roi, height, width), height, width)
        boxes, region = self._found.get((height, width), ([], None))
        if len(boxes) < SETTLED_AFTER:
            box = find_field_of_view(frame)
            with self._lock:
                boxes, region = self._found.get((height, width), ([], None))
                if box is not None and len(boxes) < SETTLED_AFTER:
                    boxes = [*boxes, box]
                    region = _unless_whole(_agreed(boxes), height, width)
                    self._found[height, width] = boxes, region
        return region

    def forget(self) -> None:
        """Look for the picture again, e.g. because another endoscope was plugged in."""
        with self._lock:
            self._found.clear()


def _agreed(boxes: Sequence[Roi]) -> Roi:
    """The box whose edges lie outside of those of all boxes but a few."""
    few = int(_OUTLIERS * len(boxes))
    left, top = (sorted(values)[few] for values in zip(*((b.x, b.y) for b in boxes), strict=True))
    ends = ((b.x + b.width, b.y + b.height) for b in boxes)
    right, bottom = (sorted(values)[-1 - few] for values in zip(*ends, strict=True))
    return Roi(left, top, right - left, bottom - top)


def _unless_whole(roi: Roi, height: int, width: int) -> Roi | None:
    return None if roi == Roi(0, 0, width, height) else roi
