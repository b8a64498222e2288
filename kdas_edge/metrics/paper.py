"""The `paper` protocol: PraNet's MATLAB evaluation, so that numbers compare with published tables.

Each map is stretched to 0…1 per image (min–max) and cut at 256 thresholds, `map >= t / 255` for
t = 0 … 255. Dice and IoU are averaged over the thresholds of an image and then over the images
(mDice, mIoU). The published "E-measure" of PraNet and its successors is the *maximum over the
thresholds of the mean curve of all images*, which is no mean of per-image numbers: `score` gives
the mean over the thresholds (`Emeasure`), `measure` also gives the curve, and `max_e_measure`
makes the published number of the curves of a set.

The protocol says nothing about frames without a polyp (its Dice is 0 on them by definition), and
callers leave such frames out; `kdas_edge.metrics.deploy` counts them.

References:
    [1] Fan et al., "PraNet: Parallel Reverse Attention Network for Polyp Segmentation",
        MICCAI 2020, arXiv 2006.11392 (protocol and table).
    [2] Fan et al., "Structure-measure", ICCV 2017.
    [3] Fan et al., "Enhanced-alignment Measure", IJCAI 2018.
    [4] Margolin et al., "How to Evaluate Foreground Maps?", CVPR 2014 (weighted F).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.metrics import structure
from kdas_edge.metrics.geometry import MaskGeometry

METRICS = ("mDice", "mIoU", "MAE", "Smeasure", "Emeasure", "wFmeasure", "Dice@0.5", "IoU@0.5")
# a runtime's fused sigmoid and the resize may step over 0 or 1 by a few units of float32
ROUNDING = 1e-5
THRESHOLDS: NDArray[np.float64] = np.arange(256) / 255
_HALF = 128  # the first threshold t with t / 255 >= 0.5
_EPS = np.spacing(1)
# OpenCV counts in float32, which holds every integer up to this
_EXACT_IN_FLOAT = 2**24


@dataclass(frozen=True)
class PaperScore:
    """The measures of one image.

    Attributes:
        values: one number per name in `METRICS`, each 0…1; MAE is better when small.
        e_curve: (256,) E-measure at each threshold.
    """

    values: dict[str, float]
    e_curve: NDArray[np.float64]


def score(probability: NDArray[Any], mask: NDArray[np.bool_]) -> dict[str, float]:
    """Score one probability map; see `measure`.

    Returns:
        The eight measures named in `METRICS`.
    """
    return measure(probability, mask).values


def measure(
    probability: NDArray[Any], mask: NDArray[np.bool_], geometry: MaskGeometry | None = None
) -> PaperScore:
    """Score one probability map against its mask.

    Args:
        probability: (H, W), float in 0…1, or uint8 in 0…255.
        mask: (H, W) bool, True on polyp.
        geometry: of the mask, where several maps are scored on it.

    Returns:
        The measures and the E-measure curve.

    Raises:
        ValueError: shapes that differ, or a float map outside 0…1 or not finite.
    """
    values, low, span = _affine(probability, mask)
    level = _levels(values, low, span)
    predicted = _at_least(level)
    if geometry is None and mask.any():
        geometry = MaskGeometry(mask)
    if geometry is None:
        # PySODMetrics' conventions for a mask without a polyp
        mean = (float(values.mean(dtype=np.float64)) - low) / span
        area, hits = 0, np.zeros_like(predicted)
        places = structure.Structure(s_measure=1 - mean, weighted_f=0.0, mean_error=mean)
    else:
        area = geometry.area
        hits = _at_least(level[geometry.box], geometry.pixels[geometry.box])
        places = structure.measure(values, low, span, geometry)
    dice = 2 * hits / np.maximum(predicted + area, 1)
    iou = hits / np.maximum(predicted + area - hits, 1)
    curve = _e_curve(hits, predicted, area, mask.size)
    return PaperScore(
        {
            "mDice": float(dice.mean()),
            "mIoU": float(iou.mean()),
            "MAE": places.mean_error,
            "Smeasure": places.s_measure,
            "Emeasure": float(curve.mean()),
            "wFmeasure": places.weighted_f,
            "Dice@0.5": float(dice[_HALF]),
            "IoU@0.5": float(iou[_HALF]),
        },
        curve,
    )


def max_e_measure(curves: Sequence[NDArray[np.float64]]) -> float:
    """The E-measure of published tables: largest value of the mean curve of a set ([1])."""
    return float(np.mean(curves, axis=0).max())


def stretch(probability: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Stretch a map to 0…1, as MATLAB's `mapminmax(im2double(map))`: a constant map stays.

    Raises:
        ValueError: shapes that differ, or a float map outside 0…1 or not finite.
    """
    values, low, span = _affine(probability, mask)
    return (values.astype(np.float64) - low) / span


def _affine(
    probability: NDArray[Any], mask: NDArray[np.bool_]
) -> tuple[NDArray[np.floating[Any]], float, float]:
    """The map as floats, and `low` and `span` so that `(map − low) / span` is the stretched one."""
    if probability.shape != mask.shape:
        raise ValueError(f"map {probability.shape} and mask {mask.shape} differ in shape")
    unit = 1.0
    values = probability
    if probability.dtype == np.uint8:
        values, unit = probability.astype(np.float32), 255.0
    elif probability.dtype not in (np.float32, np.float64):
        values = probability.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if not (low >= -ROUNDING and high <= unit * (1 + ROUNDING)):  # also true for NaN
        raise ValueError(f"probabilities lie in 0…1, these in {low}…{high}")
    values = np.ascontiguousarray(values)
    return (values, low, high - low) if high > low else (values, 0.0, unit)


def _levels(values: NDArray[np.floating[Any]], low: float, span: float) -> NDArray[np.uint8]:
    """The largest t of each pixel with `(value − low) / span >= t / 255`, (H, W) uint8.

    The product rounds. A pixel that lies on a threshold must fall on the side where the comparison
    puts it, so that the few that rounding could move are compared one by one. PySODMetrics
    truncates here and loses such pixels.
    """
    if values.dtype == np.float32:
        # the difference is exact enough, a sum of large terms in float32 is not
        above = values - np.float32(low)
        level, lower = (_whole(above, 255 / span, doubt) for doubt in (2e-4, -2e-4))
        below = values < np.float32(low + span)
    else:
        scaled = values - low
        below = scaled < span
        scaled *= 255 / span
        level, lower = ((scaled + doubt).astype(np.uint8) for doubt in (1e-9, -1e-9))
    # only the maximum reaches the last threshold, and many pixels may be saturated there
    level -= ((level == 255) & below).view(np.uint8)
    doubtful = np.flatnonzero((level != lower) & (level > 0) & (level < 255))
    if len(doubtful):
        exact = (values.ravel()[doubtful].astype(np.float64) - low) / span
        flat = level.ravel()
        flat[doubtful] -= exact < THRESHOLDS[flat[doubtful]]
    return level


def _whole(values: NDArray[np.floating[Any]], factor: float, shift: float) -> NDArray[np.uint8]:
    """The integer part of `values * factor + shift`, in one pass; right to 1e-4.

    OpenCV rounds to the nearest integer and takes the absolute value, which only concerns what is
    below one half.
    """
    found = cv2.convertScaleAbs(values, alpha=factor, beta=shift - 0.5)
    return np.asarray(found, dtype=np.uint8)


def _at_least(level: NDArray[np.uint8], mask: NDArray[np.uint8] | None = None) -> NDArray[np.int64]:
    """(256,) pixels, in the mask if there is one, whose level is at least t."""
    chosen = level if mask is None else level[mask > 0]
    # background is zero nearly everywhere, and counting one and the same number is slow
    marked = chosen[chosen > 0]
    if 0 < marked.size < _EXACT_IN_FLOAT:
        counts = cv2.calcHist([marked], [0], None, [256], [0, 256]).ravel().astype(np.int64)
    else:
        counts = np.bincount(marked, minlength=256)
    counts[0] = chosen.size - marked.size
    return np.asarray(np.cumsum(counts[::-1])[::-1], dtype=np.int64)


def _e_curve(
    hits: NDArray[np.int64], predicted: NDArray[np.int64], area: int, size: int
) -> NDArray[np.float64]:
    """E-measure ([3]) of the binary map at each threshold, from counts alone.

    Prediction and mask are binary, so that the alignment matrix has four values, one for each
    combination of foreground and background.
    """
    if area == 0:
        return (size - predicted) / (size - 1 + _EPS)
    if area == size:
        return predicted / (size - 1 + _EPS)
    mean_prediction, mean_mask = predicted / size, area / size
    total = np.zeros(len(hits))
    for in_prediction, in_mask, pixels in (
        (1, 1, hits),
        (1, 0, predicted - hits),
        (0, 1, area - hits),
        (0, 0, size - area - predicted + hits),
    ):
        a, b = in_prediction - mean_prediction, in_mask - mean_mask
        alignment = 2 * a * b / (a**2 + b**2 + _EPS)
        total += (alignment + 1) ** 2 / 4 * pixels
    return total / (size - 1 + _EPS)
