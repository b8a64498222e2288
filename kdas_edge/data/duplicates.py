"""Near-duplicate frames: fingerprints of images and groups of the same content. No torch.

Frames of one video look alike, and a frame-wise split of a video puts almost the same picture on
both sides: CVC-ClinicDB's published test split does, with more than half of its frames. Groups
keep such frames together.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.data.parallel import WORKERS, parallel_map
from kdas_edge.image_files import read_image

Fingerprint = NDArray[np.float32]

THUMBNAIL = 24
# Everything darker, in all three colours, is the frame around the endoscope's picture.
_BORDER_LEVEL = 30
# Between two frames everything moves by a pixel: a little blur, in thumbnail pixels, allows it.
_SOFTEN = 0.6
# Large gradients (a bright lower half) are shared by unrelated frames and count half.
_BLUR = 4.0
_BLUR_SHARE = 0.5
# Highlights jump from frame to frame; beyond this many standard deviations they count no more.
_CLIP = 2.0

# Chosen on the PraNet sets (`tests/unit/data/test_real_sets.py` prints the figures): no test image
# of Kvasir or CVC-300 comes nearer than 0.87 to a training image, while 37 of ClinicDB's 62 test
# frames are above 0.915.
NEAR_DUPLICATE = 0.915
# Groups of a split are wider: to separate two frames of one video costs more than to keep two
# unrelated ones together. Much lower, and unrelated videos grow together into one group.
SAME_CONTENT = 0.87
_BLOCK = 1024


def fingerprint(image: NDArray[np.uint8]) -> Fingerprint:
    """Reduce an image to a vector whose dot product with another tells how alike the two are.

    A 24×24 grey thumbnail, slightly blurred, with its mean removed, its largest gradients weakened
    and its highlights clipped; the dark frame around the endoscope's picture set to zero (it is
    the same in every frame of a device and would make all of them look alike); scaled to length
    one. The dot product of two fingerprints is then
    a correlation in −1…1 that survives another size, JPEG, and a change of brightness or contrast.

    Args:
        image: (H, W, 3) uint8 RGB.

    Returns:
        (576,) float32, of length one, or zero for an image without any structure.
    """
    thumbnail = cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    thumbnail = cv2.GaussianBlur(thumbnail, (0, 0), _SOFTEN)
    grey = cv2.cvtColor(thumbnail, cv2.COLOR_RGB2GRAY).astype(np.float32)
    inside = thumbnail.max(axis=2) > _BORDER_LEVEL
    if inside.any():
        grey = (grey - grey[inside].mean()) * inside
        grey = grey - _BLUR_SHARE * cv2.GaussianBlur(grey, (0, 0), _BLUR) * inside
        limit = _CLIP * float(grey[inside].std())
        grey = np.clip(grey, -limit, limit)
    length = float(np.linalg.norm(grey))
    # the rounding noise of a uniform image, one level a pixel, must not be blown up to a pattern
    if not inside.any() or length < THUMBNAIL:
        return np.zeros(THUMBNAIL * THUMBNAIL, np.float32)
    return np.asarray(grey / length, dtype=np.float32).ravel()


def pixel_digest(pixels: NDArray[Any]) -> str:
    """Return the SHA-256 of an array's shape and values: equal for equal pictures in any file."""
    shape = ",".join(map(str, pixels.shape)).encode()
    return hashlib.sha256(shape + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def similarity(first: Sequence[Fingerprint], second: Sequence[Fingerprint]) -> NDArray[np.float32]:
    """Return the correlations (len(first), len(second)) of two lists of fingerprints, −1…1."""
    return np.stack(first) @ np.stack(second).T


def alike(prints: Sequence[Fingerprint], threshold: float) -> Iterator[tuple[int, int, float]]:
    """Yield all pairs (i, j, correlation) with i < j and a correlation above `threshold`."""
    for start in range(0, len(prints), _BLOCK):
        # in blocks: the whole matrix of 20 000 recordings would take 1.6 GB
        block = similarity(prints[start : start + _BLOCK], prints[start:])
        for i, j in np.argwhere(np.triu(block > threshold, 1)):
            yield start + int(i), start + int(j), float(block[i, j])


def groups(
    fingerprints: Sequence[Fingerprint],
    threshold: float = SAME_CONTENT,
    declared: Sequence[str] | None = None,
) -> list[int]:
    """Number the content groups: connected components of "more alike than `threshold`".

    Args:
        fingerprints: one per image.
        threshold: smallest correlation of two images that belong together, −1…1.
        declared: a name per image (of the patient, the video); images of one name belong together
            as well.

    Returns:
        One group number per image; groups are numbered in the order of their first image.
    """
    parent = list(range(len(fingerprints)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    firsts: dict[str, int] = {}
    same = [(firsts.setdefault(name, i), i) for i, name in enumerate(declared or ())]
    together = [(first, second) for first, second, _ in alike(fingerprints, threshold)]
    for first, second in same + together:
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(index), len(numbers)) for index in range(len(parent))]


def read_fingerprints(paths: Sequence[Path], workers: int = WORKERS) -> list[Fingerprint]:
    """Read image files and return their fingerprints in the given order, with progress.

    Args:
        paths: image files.
        workers: threads.

    Raises:
        UserError: a file is unreadable.
    """
    return parallel_map(lambda p: fingerprint(read_image(p)), paths, "comparing images", workers)
