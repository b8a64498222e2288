"""Overlap of two masks: Dice and IoU, the only copy outside the networks' tensors."""

import numpy as np
from numpy.typing import NDArray


def dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Dice of two (H, W) bool masks, 0…1; 1 where both are empty, so that they agree.

    Raises:
        ValueError: shapes that differ.
    """
    hits, both = _counts(first, second)
    return 2 * hits / both if both else 1.0


def iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Intersection over union of two (H, W) bool masks, 0…1; 1 where both are empty."""
    hits, both = _counts(first, second)
    return hits / (both - hits) if both else 1.0


def _counts(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[int, int]:
    if first.shape != second.shape:
        raise ValueError(f"masks {first.shape} and {second.shape} differ in shape")
    hits = int(np.count_nonzero(first & second))
    return hits, int(np.count_nonzero(first)) + int(np.count_nonzero(second))
