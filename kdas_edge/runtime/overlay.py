"""Drawing results on frames: contours, so that the mucosa inside stays visible."""

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.errors import UserError

# Two colours of the Okabe–Ito palette that stay apart from red mucosa, and from each other, under
# the common colour-vision deficiencies.
PREDICTION = (86, 180, 233)  # sky blue
TRUTH = (240, 228, 66)  # yellow


def draw_contours(
    image_rgb: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    color: tuple[int, int, int] = PREDICTION,
    thickness: int | None = None,
) -> NDArray[np.uint8]:
    """Draw the outline of a mask.

    Args:
        image_rgb: (H, W, 3) uint8 RGB; it is not changed.
        mask: (H, W) bool.
        color: of the line, (red, green, blue), 0–255.
        thickness: of the line in pixels; by default 1/150 of the shorter side.

    Returns:
        (H, W, 3) uint8 RGB, a copy. The line has a dark edge, so that it can be told from
        highlights by brightness alone.

    Raises:
        UserError: image and mask differ in size.
    """
    if image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or image_rgb.shape[:2] != mask.shape:
        raise UserError(
            f"an overlay needs an image (H, W, 3) and a mask (H, W) of one size, "
            f"not {image_rgb.shape} and {mask.shape}"
        )
    drawn = np.ascontiguousarray(image_rgb).copy()
    if thickness is None:
        thickness = max(1, round(min(mask.shape) / 150))
    # holes have their own outline
    contours, _ = cv2.findContours(
        np.ascontiguousarray(mask, dtype=np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
    )
    cv2.drawContours(drawn, contours, -1, (0, 0, 0), thickness + 2)
    cv2.drawContours(drawn, contours, -1, color, thickness, cv2.LINE_AA)
    return drawn
