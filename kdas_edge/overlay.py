"""Contours over a frame, so that the mucosa below stays visible; used by both wings."""

import cv2
import numpy as np
from numpy.typing import NDArray

# Okabe and Ito's palette: told apart by colour-blind readers, and none is the colour of mucosa
GROUND_TRUTH = (240, 228, 66)
PREDICTION = (86, 180, 233)
SECOND_PREDICTION = (0, 158, 115)


def draw_contours(
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    color: tuple[int, int, int] = PREDICTION,
    thickness: int | None = None,
) -> NDArray[np.uint8]:
    """Draw the outline of a mask on a copy of the image.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool.
        color: RGB, 0…255.
        thickness: in pixels; by default 1/200 of the longer side, at least 1.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    canvas = np.ascontiguousarray(image).copy()
    if thickness is None:
        thickness = max(1, round(max(image.shape[:2]) / 200))
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, color, thickness, cv2.LINE_AA)
    return canvas
