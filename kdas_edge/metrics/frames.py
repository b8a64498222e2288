"""Frame decisions: ROC, AUC, false frames at a kept share of polyp frames, runs of false frames.

A frame is one decision: does it hold a polyp? Both strata count apart: frames with a polyp
(sensitivity) and polyp-free frames (false frames). Frames of one sequence resemble each other, so
intervals resample whole sequences.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdas_edge.metrics.events import runs

Scores = NDArray[np.float64]
# shares of the polyp frames at which false frames are reported
KEPT = (0.99, 0.97, 0.95, 0.90)


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold on the frame's score and what it does.

    Attributes:
        threshold: a frame is positive where its score is at least this.
        sensitivity: share of polyp frames that stay positive, 0…1.
        false_frames: share of polyp-free frames that are positive, 0…1.
    """

    threshold: float
    sensitivity: float
    false_frames: float


def area_under_roc(positive: Scores, negative: Scores) -> float:
    """Probability that a polyp frame scores above a polyp-free one; ties count half.

    Args:
        positive: (P,) scores of frames with a polyp.
        negative: (N,) scores of polyp-free frames.

    Raises:
        ValueError: an empty side, or a score that is NaN.
    """
    _check(positive, negative)
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    not_above = np.searchsorted(ordered, positive, side="right")
    return float((below + not_above).mean() / (2 * len(negative)))


def at_threshold(positive: Scores, negative: Scores, threshold: float) -> OperatingPoint:
    """Both rates at a threshold; see `area_under_roc` for the arguments."""
    _check(positive, negative)
    return OperatingPoint(
        threshold, float((positive >= threshold).mean()), float((negative >= threshold).mean())
    )


def keeping(positive: Scores, negative: Scores, share: float) -> OperatingPoint:
    """The highest threshold that keeps at least `share` of the polyp frames.

    Args:
        positive: (P,) scores of frames with a polyp.
        negative: (N,) scores of polyp-free frames.
        share: of the polyp frames, above 0 and at most 1.

    Raises:
        ValueError: an empty side, a NaN, or a share outside (0, 1].
    """
    _check(positive, negative)
    if not 0 < share <= 1:
        raise ValueError(f"a share of {share} of the polyp frames cannot be kept")
    # the k-th largest score, k the least count that is a large enough share
    count = int(np.ceil(share * len(positive) - 1e-9))
    return at_threshold(positive, negative, float(np.sort(positive)[len(positive) - count]))


def roc(positive: Scores, negative: Scores) -> list[OperatingPoint]:
    """Every point of the ROC curve, from the highest threshold (nothing positive) down."""
    _check(positive, negative)
    thresholds = np.unique(np.concatenate([positive, negative]))[::-1]
    rising_positive, rising_negative = np.sort(positive), np.sort(negative)
    kept = 1 - np.searchsorted(rising_positive, thresholds, side="left") / len(positive)
    false = 1 - np.searchsorted(rising_negative, thresholds, side="left") / len(negative)
    start = OperatingPoint(float("inf"), 0.0, 0.0)
    return [start, *map(OperatingPoint, thresholds.tolist(), kept.tolist(), false.tolist())]


def longest_runs(marked: NDArray[np.bool_], sequences: Sequence[str]) -> dict[int, int]:
    """Runs of at least 3 and at least 5 consecutive marked frames within a sequence.

    Args:
        marked: (N,) bool, frames in the order of their names.
        sequences: (N,) the sequence of each frame; frames of one stand together.

    Returns:
        Number of runs by their least length.
    """
    names = np.asarray(sequences)
    found = {3: 0, 5: 0}
    for name in dict.fromkeys(sequences):
        for length in found:
            found[length] += len(runs(marked[names == name], length))
    return found


def _check(positive: Scores, negative: Scores) -> None:
    if not len(positive) or not len(negative):
        raise ValueError(f"{len(positive)} polyp frames and {len(negative)} polyp-free frames")
    if np.isnan(positive).any() or np.isnan(negative).any():
        raise ValueError("a frame's score is NaN")
