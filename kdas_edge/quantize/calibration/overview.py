"""Contact sheet of a calibration set."""

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

TILE = 112
_GAP = 4
_QUALITY = 85
# Okabe and Ito's blue and orange
_POLYP_FREE = (86, 180, 233)
_WITH_POLYP = (230, 159, 0)


def tile(image: NDArray[np.uint8], polyp: float | None) -> NDArray[np.uint8]:
    """Reduce a frame to a square tile with a bar below: how much of the frame polyps cover.

    The bar is orange and as long as the side of a square of the polyp's area; a polyp-free frame
    has a whole blue bar, an unknown one none.

    Args:
        image: (H, W, 3) uint8 RGB.
        polyp: share of the frame, 0…1, or None.

    Returns:
        (TILE, TILE, 3) uint8 RGB.
    """
    canvas = np.zeros((TILE, TILE, 3), np.uint8)
    room = TILE - _GAP
    scale = room / max(image.shape[:2])
    width, height = (max(1, round(side * scale)) for side in (image.shape[1], image.shape[0]))
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    top, left = (room - height) // 2, (room - width) // 2
    canvas[top : top + height, left : left + width] = small
    if polyp is not None:
        length = room if polyp == 0 else max(1, round(polyp**0.5 * room))
        canvas[room + 1 :, :length] = _POLYP_FREE if polyp == 0 else _WITH_POLYP
    return canvas


def contact_sheet(tiles: Iterable[NDArray[np.uint8]]) -> bytes:
    """Lay tiles out row by row, in the given order, and return a JPEG."""
    rows = list(tiles)
    columns = int(np.ceil(np.sqrt(len(rows) * 1.5)))
    lines = -(-len(rows) // columns)
    sheet = np.zeros((lines * TILE, columns * TILE, 3), np.uint8)
    for index, one in enumerate(rows):
        row, column = divmod(index, columns)
        sheet[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE] = one
    _, encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    )
    return encoded.tobytes()
