"""S-measure and weighted F-measure of one map, equal to their definitions and quick.

Sums over the whole frame are taken of the raw map in double precision, and the stretch, which is
affine, is applied to the sums. All other work is done in the polyp's surroundings. PySODMetrics,
which follows the MATLAB code, needs many times as long; the tests hold the two together, the
weighted F-measure to 1e-7 and the S-measure to 1e-9.

References:
    [1] Fan et al., "Structure-measure", ICCV 2017.
    [2] Margolin et al., "How to Evaluate Foreground Maps?", CVPR 2014 (weighted F).
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.metrics.geometry import MaskGeometry, gaussian, margin_of

_EPS = np.spacing(1)
# what the far surroundings may add to the weighted F-measure before they are computed
_NEGLIGIBLE = 5e-8
# pixels around the polyp that are looked at first
_NEAR = 32


@dataclass(frozen=True)
class Structure:
    """The measures of one map that need the place of its pixels.

    Attributes:
        s_measure, weighted_f: 0…1, larger is better.
        mean_error: mean absolute error, 0…1.
    """

    s_measure: float
    weighted_f: float
    mean_error: float


def measure(
    values: NDArray[np.floating[Any]], low: float, span: float, geometry: MaskGeometry
) -> Structure:
    """Measure the map `(values − low) / span`.

    Args:
        values: (H, W) float32 or float64.
        low: of the stretch.
        span: of the stretch, above 0.
        geometry: of the (H, W) mask.
    """
    box = geometry.box
    cropped = (values[box].astype(np.float64) - low) / span
    inside = cropped * geometry.mask[box]
    everywhere = _quadrants(values, geometry.centre, (0, 0))
    on_polyp = _quadrants(inside, geometry.centre, (box[0].start, box[1].start))
    polyp = _quadrant_areas(geometry)
    pixels = _areas(values.shape, geometry.centre)
    sums = (everywhere[0] - low * pixels) / span
    squares = (everywhere[1] - 2 * low * everywhere[0] + low**2 * pixels) / span**2
    total, hit = float(sums.sum()), float(on_polyp[0].sum())
    false_alarm = max(0.0, total - hit)
    region = 0.0
    quadrants = (pixels, sums, squares, polyp, on_polyp[0])
    for index in np.ndindex(2, 2):
        count, *moments = (float(table[index]) for table in quadrants)
        if count:
            similarity = _ssim(count, *moments)
            if similarity is None:
                part = _quadrant(values, geometry.centre, index)
                similarity = float(part.min() == part.max())
            region += similarity * count / values.size
    area, rest = geometry.area, values.size - geometry.area
    seen = _object(area, hit, float(on_polyp[1].sum()))
    # of 1 − map: the mean is mirrored, the deviation stays
    ground = _object(
        rest,
        rest - false_alarm,
        rest - 2 * false_alarm + max(0.0, float(squares.sum() - on_polyp[1].sum())),
    )
    objects = (seen * area + ground * rest) / values.size
    return Structure(
        s_measure=max(0.0, objects / 2 + region / 2) if rest else hit / area,
        weighted_f=_weighted_f(values, low, span, cropped, false_alarm, geometry),
        mean_error=(area - hit + false_alarm) / values.size,
    )


def _weighted_f(
    values: NDArray[np.floating[Any]],
    low: float,
    span: float,
    cropped: NDArray[np.float64],
    false_alarm: float,
    geometry: MaskGeometry,
) -> float:
    """Equations 10 to 12 of [2] with beta 1; `false_alarm` is the sum of the map off the polyp."""
    mask = geometry.mask[geometry.box]
    error = np.abs(cropped - mask)
    # a background pixel takes the error of the polyp pixel nearest to it
    spread = error.copy()
    background, nearest = geometry.nearest
    spread.ravel()[background] = error.ravel()[nearest]
    kernel = gaussian()
    smooth = cv2.sepFilter2D(spread, cv2.CV_64F, kernel, kernel, borderType=cv2.BORDER_CONSTANT)
    missed = float((np.minimum(error, smooth) * mask).sum())
    # of the sum of the decay-weighted map; the decay is 1 on the polyp, which is taken off again
    hit = float((cropped * mask).sum())
    decay = geometry.decay(_margin(values, low, span, false_alarm + hit, geometry))
    # not a dot product: NumPy's runs on threads, which wait for a core that inference has taken
    near = float((values[decay.box] * decay.weights).sum())
    forgiven = (near - low * decay.total) / span - hit
    true = geometry.area - missed
    false = 2 * false_alarm - forgiven
    recall = 1 - missed / geometry.area
    precision = true / (true + false + _EPS)
    return float(2 * recall * precision / (recall + precision + _EPS))


def _margin(
    values: NDArray[np.floating[Any]],
    low: float,
    span: float,
    total: float,
    geometry: MaskGeometry,
) -> float:
    """How far around the polyp distances matter for a map whose sum is `total`.

    What lies farther away is forgiven by less than the decay there, so that leaving it out changes
    the weighted F-measure by less than `_NEGLIGIBLE`.
    """
    box = geometry.around(_NEAR)
    near = values[box]
    inside = float(cv2.reduce(near, 0, cv2.REDUCE_SUM, dtype=cv2.CV_64F).sum())
    far = total - (inside - low * near.size) / span
    share = _NEGLIGIBLE * geometry.area / far if far > 0 else 1.0
    return max(_NEAR, margin_of(share))


def _object(count: float, total: float, squares: float) -> float:
    """Equation 5 of [1] from the number, sum and sum of squares of the pixels."""
    if not count:
        return 0.0
    mean = total / count
    variance = max(0.0, squares - count * mean**2) / (count - 1) if count > 1 else 0.0
    return float(2 * mean / (mean**2 + 1 + np.sqrt(variance) + _EPS))


def _ssim(count: float, total: float, squares: float, polyp: float, hit: float) -> float | None:
    """Equation 3 of [1]; None where the mask is constant and the map decides alone."""
    if polyp in (0, count):
        return None
    x, y = total / count, polyp / count
    divisor = count - 1 + _EPS
    variance_x = max(0.0, squares - count * x**2) / divisor
    variance_y = polyp * (1 - y) / divisor
    covariance = (hit - total * y) / divisor
    return float(4 * x * y * covariance / ((x**2 + y**2) * (variance_x + variance_y) + _EPS))


def _quadrants(
    values: NDArray[np.floating[Any]], centre: tuple[int, int], origin: tuple[int, int]
) -> NDArray[np.float64]:
    """(2, 2, 2): sums and sums of squares of `values`, by vertical and horizontal half."""
    row, column = (
        min(max(at - start, 0), side)
        for at, start, side in zip(centre, origin, values.shape, strict=True)
    )
    found = np.zeros((2, 2, 2))
    for half, rows in enumerate((values[:row], values[row:])):
        if not len(rows):
            continue
        for kind, operation in enumerate((cv2.REDUCE_SUM, cv2.REDUCE_SUM2)):
            by_column = cv2.reduce(rows, 0, operation, dtype=cv2.CV_64F)[0]
            found[kind, half] = by_column[:column].sum(), by_column[column:].sum()
    return found


def _quadrant_areas(geometry: MaskGeometry) -> NDArray[np.int64]:
    """(2, 2): polyp pixels of each quadrant."""
    counts = [
        np.count_nonzero(_quadrant(geometry.mask, geometry.centre, index))
        for index in np.ndindex(2, 2)
    ]
    return np.array(counts, dtype=np.int64).reshape(2, 2)


def _areas(shape: tuple[int, ...], centre: tuple[int, int]) -> NDArray[np.int64]:
    rows, columns = ((at, side - at) for at, side in zip(centre, shape, strict=True))
    return np.outer(rows, columns)


def _quadrant(
    values: NDArray[Any], centre: tuple[int, int], index: tuple[int, ...]
) -> NDArray[Any]:
    rows, columns = (
        slice(at, None) if half else slice(0, at) for half, at in zip(index, centre, strict=True)
    )
    return values[rows, columns]
