"""Resize the network's probabilities to a frame and threshold them."""

import cv2
import numpy as np
from numpy.typing import NDArray


def probability_at_size(
    probability: NDArray[np.float32],
    height: int,
    width: int,
    scratch: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Resize (S, S) probabilities bilinearly to (height, width), as for the mask.

    Args:
        probability: (S, S) float32.
        height: of the result.
        width: of the result.
        scratch: (height, width) float32 that the result may be written to.
    """
    if probability.shape == (height, width):
        return probability
    return cv2.resize(  # type: ignore[return-value]
        probability, (width, height), dst=scratch, interpolation=cv2.INTER_LINEAR
    )


def mask_at_size(
    probability: NDArray[np.float32],
    threshold: float,
    height: int,
    width: int,
    scratch: NDArray[np.float32] | None = None,
    out: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_]:
    """Resize (S, S) probabilities bilinearly to the frame and compare with the threshold.

    Args:
        probability: (S, S) float32.
        threshold: polyp is above it.
        height: of the frame.
        width: of the frame.
        scratch: (height, width) float32 for what lies between; saves its allocation.
        out: (height, width) bool, all False, to write to.

    Returns:
        (height, width) bool. Resizing the probability instead of the mask keeps the contour smooth
        and within half a network pixel.
    """
    mask = np.zeros((height, width), np.bool_) if out is None else out
    # interpolation gives nothing above the largest value; pages of zeros are not even touched
    if probability.max() > threshold:
        np.greater(probability_at_size(probability, height, width, scratch), threshold, out=mask)
    return mask
