"""Draw masks over a frame, as contours so that the mucosa stays visible.

Colours are given in the order of the image's channels: the palette below is RGB, reverse it for a
BGR frame.
"""

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

# Distinct from each other and from mucosa, also for colour-blind readers. Yellow and sky blue are
# Okabe and Ito's; without red cones their green looks like pale mucosa, hence the third is white.
GROUND_TRUTH = (240, 228, 66)
PREDICTION = (86, 180, 233)
SECOND_PREDICTION = (255, 255, 255)

Style = Literal["contour", "fill"]
FILL_OPACITY = 0.35


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


def draw_mask(
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    color: tuple[int, int, int] = PREDICTION,
    style: Style = "contour",
) -> NDArray[np.uint8]:
    """Draw a mask on a copy of the image.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) bool.
        color: in the order of the image's channels, 0…255.
        style: `contour` leaves the polyp as it is; `fill` tints it, too.

    Returns:
        (H, W, 3) uint8.
    """
    if style == "fill" and mask.any():
        # only the box around the mask is touched: a polyp is a small part of a frame
        x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
        box = slice(y, y + height), slice(x, x + width)
        image = image.copy()
        inside = mask[box]
        tinted = image[box][inside] * (1 - FILL_OPACITY) + FILL_OPACITY * np.array(color)
        image[box][inside] = np.rint(tinted).astype(np.uint8)
    return draw_contours(image, mask, color)


def side_by_side(images: Sequence[NDArray[np.uint8]], labels: Sequence[str]) -> NDArray[np.uint8]:
    """Put pictures of one size beside each other, each with its label in the upper left corner.

    Returns:
        (H, W · number of images, 3) uint8.
    """
    panels = [np.ascontiguousarray(image).copy() for image in images]
    for panel, label in zip(panels, labels, strict=True):
        scale = max(0.4, min(panel.shape[:2]) / 700)
        place = (round(12 * scale), round(30 * scale))
        # light on dark, whatever lies below
        for color, extra in (((0, 0, 0), 3), ((255, 255, 255), 0)):
            thickness = max(1, round(1.5 * scale)) + extra
            cv2.putText(
                panel, label, place, cv2.FONT_HERSHEY_SIMPLEX, scale, color, thickness, cv2.LINE_AA
            )
    return np.concatenate(panels, axis=1)
