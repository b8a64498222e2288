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

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdas_edge.errors import UserError

METRICS = ("mDice", "mIoU", "MAE", "Smeasure", "Emeasure", "wFmeasure", "Dice@0.5", "IoU@0.5")
# a runtime's fused sigmoid and the resize may step over 0 or 1 by a few units of float32
ROUNDING = 1e-5
THRESHOLDS: NDArray[np.float64] = np.arange(256) / 255
_HALF = 128  # the first threshold t with t / 255 >= 0.5
_EPS = np.spacing(1)


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


def measure(probability: NDArray[Any], mask: NDArray[np.bool_]) -> PaperScore:
    """Score one probability map against its mask.

    Args:
        probability: (H, W), float in 0…1, or uint8 in 0…255.
        mask: (H, W) bool, True on polyp.

    Returns:
        The measures and the E-measure curve.

    Raises:
        UserError: the `report` extra, which brings PySODMetrics, is not installed.
        ValueError: shapes that differ, or a float map outside 0…1 or not finite.
    """
    stretched = stretch(probability, mask)
    hits, predicted = _counts(stretched, mask)
    area = int(mask.sum())
    dice = 2 * hits / np.maximum(predicted + area, 1)
    union = predicted + area - hits
    iou = hits / np.maximum(union, 1)
    curve = _e_curve(hits, predicted, area, mask.size)
    s_measure, weighted_f = _structure_measures(stretched, mask)
    return PaperScore(
        {
            "mDice": float(dice.mean()),
            "mIoU": float(iou.mean()),
            "MAE": float(np.abs(stretched - mask).mean()),
            "Smeasure": s_measure,
            "Emeasure": float(curve.mean()),
            "wFmeasure": weighted_f,
            "Dice@0.5": float(dice[_HALF]),
            "IoU@0.5": float(iou[_HALF]),
        },
        curve,
    )


def check_installed() -> None:
    """Refuse the protocol where PySODMetrics is absent, before any long work.

    Raises:
        UserError: names the remedy.
    """
    # find_spec before every image would cost more than the import did
    if "py_sod_metrics" in sys.modules or importlib.util.find_spec("py_sod_metrics") is not None:
        return
    raise UserError(
        "the paper protocol needs PySODMetrics; install it with pip install 'kdas-edge[report]', "
        "or use --protocol deploy"
    )


def max_e_measure(curves: Sequence[NDArray[np.float64]]) -> float:
    """The E-measure of published tables: largest value of the mean curve of a set ([1])."""
    return float(np.mean(curves, axis=0).max())


def stretch(probability: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Stretch a map to 0…1, as MATLAB's `mapminmax(im2double(map))`: a constant map stays.

    Raises:
        ValueError: shapes that differ, or a float map outside 0…1 or not finite.
    """
    if probability.shape != mask.shape:
        raise ValueError(f"map {probability.shape} and mask {mask.shape} differ in shape")
    values = probability / 255 if probability.dtype == np.uint8 else probability.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):  # also true for NaN
        raise ValueError(f"probabilities lie in 0…1, these in {low}…{high}")
    return (values - low) / (high - low) if high > low else values


def _counts(
    stretched: NDArray[np.float64], mask: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """True positives and predicted pixels at each of the 256 thresholds, in one pass."""
    level = (stretched * 255).astype(np.int64)
    # The product rounds; a pixel that lies on a threshold must fall on the side where the
    # comparison `map >= t / 255` puts it. PySODMetrics truncates here and loses such pixels.
    level += stretched >= THRESHOLDS[np.minimum(level + 1, 255)]
    level = np.minimum(level, 255)
    level -= stretched < THRESHOLDS[level]
    inside = np.bincount(level[mask], minlength=256)
    everywhere = np.bincount(level.ravel(), minlength=256)
    return np.cumsum(inside[::-1])[::-1], np.cumsum(everywhere[::-1])[::-1]


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


def _structure_measures(
    stretched: NDArray[np.float64], mask: NDArray[np.bool_]
) -> tuple[float, float]:
    """S-measure ([2]) and weighted F-measure ([4]), as PySODMetrics computes them."""
    check_installed()
    from py_sod_metrics import Smeasure, WeightedFmeasure

    structure, weighted = Smeasure(), WeightedFmeasure()
    structure.step(stretched, mask, normalize=False)
    weighted.step(stretched, mask, normalize=False)
    return float(structure.get_results()["sm"]), float(weighted.get_results()["wfm"])
