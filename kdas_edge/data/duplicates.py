"""Near-duplicate frames: fingerprints of images and groups of the same content. No torch.

Frames of one video look alike, and a frame-wise split of a video puts almost the same picture on
both sides: CVC-ClinicDB's published test split does (37 of its 62 frames, by our measure). Groups
keep such frames together.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.console import progress
from kdas_edge.data.layout import read_image

Fingerprint = NDArray[np.float32]

THUMBNAIL = 32
# Everything darker, in all three colours, is the frame around the endoscope's picture.
_BORDER_LEVEL = 30
NEAR_DUPLICATE = 0.88


def fingerprint(image: NDArray[np.uint8]) -> Fingerprint:
    """Reduce an image to a vector whose dot product with another tells how alike the two are.

    A 32×32 grey thumbnail with its mean removed, the dark frame around the endoscope's picture set
    to zero (it is the same in every frame of a device and would make all of them look alike), and
    scaled to length one. The dot product of two fingerprints is then a correlation in −1…1 that
    survives another size, JPEG, and a change of brightness or contrast.

    Args:
        image: (H, W, 3) uint8 RGB.

    Returns:
        (1024,) float32, of length one, or zero for an image without any structure.
    """
    thumbnail = cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(thumbnail, cv2.COLOR_RGB2GRAY).astype(np.float32)
    inside = thumbnail.max(axis=2) > _BORDER_LEVEL
    if inside.any():
        grey = (grey - grey[inside].mean()) * inside
    length = float(np.linalg.norm(grey))
    # rounding noise of a uniform image must not be blown up to a pattern
    return (grey / length if length > THUMBNAIL else np.zeros_like(grey)).ravel()


def similarity(first: Sequence[Fingerprint], second: Sequence[Fingerprint]) -> NDArray[np.float32]:
    """Return the correlations (len(first), len(second)) of two lists of fingerprints, −1…1."""
    return np.stack(first) @ np.stack(second).T


def groups(fingerprints: Sequence[Fingerprint], threshold: float = NEAR_DUPLICATE) -> list[int]:
    """Number the content groups: connected components of "more alike than `threshold`".

    Args:
        fingerprints: one per image.
        threshold: smallest correlation of two images that belong together, −1…1.

    Returns:
        One group number per image; groups are numbered in the order of their first image.
    """
    parent = list(range(len(fingerprints)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    if fingerprints:
        alike = np.triu(similarity(fingerprints, fingerprints) > threshold, 1)
        for first, second in np.argwhere(alike):
            low, high = sorted((root(int(first)), root(int(second))))
            parent[high] = low
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(index), len(numbers)) for index in range(len(parent))]


def read_fingerprints(paths: Sequence[Path], workers: int = 2) -> list[Fingerprint]:
    """Read image files and return their fingerprints in the given order, with progress.

    Args:
        paths: image files.
        workers: threads; decoding releases the interpreter lock.

    Raises:
        UserError: a file is unreadable.
    """

    def one(path: Path) -> Fingerprint:
        return fingerprint(read_image(path))

    found = []
    with (
        ThreadPoolExecutor(max(1, workers)) as pool,
        progress(len(paths), "comparing images") as advance,
    ):
        for result in pool.map(one, paths):
            found.append(result)
            advance()
    return found
