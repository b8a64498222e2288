"""A contact sheet: all corruptions of one image, to judge the strengths by eye."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.data.corruptions import CORRUPTIONS, SEED, STRENGTHS, check_names, corrupt
from kdas_edge.errors import UserError
from kdas_edge.files import write_bytes_atomic

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_LABEL = 22  # pixels above each picture
_GAP = 4
_PAPER, _INK = 250, (30, 30, 30)


def contact_sheet(
    frame: NDArray[np.uint8],
    corruptions: Sequence[str] = tuple(CORRUPTIONS),
    name: str = "",
    seed: int = SEED,
    width: int = 240,
) -> NDArray[np.uint8]:
    """Draw a row for each corruption: the clean image and its three strengths.

    Args:
        frame: (H, W, 3) uint8 RGB.
        corruptions: names; see `data.corruptions`.
        name: of the image; it decides the random choices, as in a benchmark.
        seed: of the random choices.
        width: of one picture, in pixels.

    Returns:
        (rows, columns, 3) uint8 RGB.

    Raises:
        UserError: an unknown corruption.
    """
    check_names(list(corruptions))
    height = max(1, round(width * frame.shape[0] / frame.shape[1]))
    rows = []
    for corruption in corruptions:
        cells = []
        for strength in (0, *STRENGTHS):
            title = f"{corruption.replace('_', ' ')} {strength}" if strength else "clean"
            corrupted = corrupt(frame, corruption, strength, name, seed)
            # the corruption is of the full frame; only its picture is small
            small = cv2.resize(corrupted, (width, height), interpolation=cv2.INTER_AREA)
            cell = np.full((height + _LABEL + _GAP, width + _GAP, 3), _PAPER, np.uint8)
            cell[_LABEL : _LABEL + height, :width] = small
            place, font = (2, _LABEL - 7), cv2.FONT_HERSHEY_SIMPLEX
            cv2.putText(cell, title, place, font, 0.45, _INK, 1, cv2.LINE_AA)
            cells.append(cell)
        rows.append(np.concatenate(cells, axis=1))
    return np.concatenate(rows, axis=0)


def write_sheet(path: Path, sheet: NDArray[np.uint8]) -> None:
    """Write a sheet as PNG, JPEG or WebP, by the suffix of the path.

    Raises:
        UserError: another suffix, or the folder cannot be written.
    """
    check_suffix(path)
    quality = [] if path.suffix.lower() not in (".jpg", ".jpeg") else [cv2.IMWRITE_JPEG_QUALITY, 88]
    write_bytes_atomic(path, cv2.imencode(path.suffix, sheet[..., ::-1], quality)[1].tobytes())


def check_suffix(path: Path) -> None:
    """Refuse a path that is no picture's.

    Raises:
        UserError: names the suffixes that are.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path} is no picture's name; end it in {', '.join(SUFFIXES)}")
