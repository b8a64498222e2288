"""The `deploy` protocol: what the device does. A fixed threshold, no stretching, all frames count.

Dice and IoU are of frames with a polyp. A frame without one has neither: it is a false-positive
frame if any pixel is predicted. A mean over both would hide each behind the other.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

METRICS = ("Dice", "IoU", "sensitivity", "precision", "specificity")
# Share of polyp-free frames on which something is marked, of polyp frames on which no pixel of the
# polyp is, and of polyp frames on which prediction and polyp have an IoU of at least 0.5.
FRAME_METRICS = ("false_positive_frame", "missed_frame", "detected_frame")


def score(
    probability: NDArray[Any], mask: NDArray[np.bool_], threshold: float = 0.5
) -> dict[str, float | None]:
    """Score one probability map against its mask.

    Args:
        probability: (H, W), float in 0…1, or uint8 in 0…255.
        mask: (H, W) bool, True on polyp.
        threshold: a pixel is polyp where its probability is above this, 0…1.

    Returns:
        `Dice`, `IoU`, `sensitivity` (recall), `precision`, `specificity` of the pixels in 0…1;
        `false_positive_frame` (1 or 0, polyp-free frames only) and `missed_frame` (1 or 0, frames
        with a polyp only) and `detected_frame` (1 where the IoU is at least 0.5, frames with a
        polyp only). What has no meaning is None: Dice, IoU and sensitivity without a polyp,
        precision without a prediction, specificity without background.

    Raises:
        ValueError: shapes that differ.
    """
    if probability.shape != mask.shape:
        raise ValueError(f"map {probability.shape} and mask {mask.shape} differ in shape")
    limit = threshold * 255 if probability.dtype == np.uint8 else threshold
    return score_masks(probability > limit, mask)


def score_masks(predicted: NDArray[np.bool_], mask: NDArray[np.bool_]) -> dict[str, float | None]:
    """Score a predicted (H, W) bool mask; see `score`."""
    found, area = int(np.count_nonzero(predicted)), int(np.count_nonzero(mask))
    hits = int(np.count_nonzero(predicted & mask))
    union = found + area - hits
    background = mask.size - area
    return {
        "Dice": 2 * hits / (found + area) if area else None,
        "IoU": hits / union if area else None,
        "sensitivity": hits / area if area else None,
        "precision": hits / found if found else None,
        "specificity": (background - (found - hits)) / background if background else None,
        "false_positive_frame": None if area else float(found > 0),
        "missed_frame": float(hits == 0) if area else None,
        "detected_frame": float(2 * hits >= union) if area else None,
    }
