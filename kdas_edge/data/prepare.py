"""A compact copy of a data set at the training size.

The copy has the layout of the original, so that every verb reads it as it reads the original. Its
images went through `layout.resize_image`, the resize that trains: reading the copy at its own size
resizes nothing a second time. What differs is JPEG's loss, which is measured and recorded.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdas_edge.data.layout import (
    ImageSet,
    Pair,
    find_pairs,
    find_sets,
    read_pair,
    resize_image,
    resize_mask,
)
from kdas_edge.data.parallel import WORKERS, parallel_map
from kdas_edge.data.splits import hash_pair
from kdas_edge.errors import UserError
from kdas_edge.files import check_output_directory, real_path, staged_directory, write_json
from kdas_edge.image_files import read_image

RECORD = "prepared.json"
DEFAULT_QUALITY = 90


@dataclass(frozen=True)
class PreparedSet:
    """One set of the copy.

    Attributes:
        images: number of images.
        bytes: of images and masks together.
        psnr_mean: of JPEG against the resized pixels, in dB, mean over images.
        psnr_min: of the worst image, in dB.
    """

    images: int
    bytes: int
    psnr_mean: float
    psnr_min: float


@dataclass(frozen=True)
class _Written:
    name: str
    source: str
    bytes: int
    psnr: float


def prepare(
    root: Path,
    out: Path,
    size: int = 352,
    quality: int = DEFAULT_QUALITY,
    overwrite: bool = False,
    workers: int = WORKERS,
    mask_values: str | None = None,
) -> dict[str, PreparedSet]:
    """Write the compact copy: JPEG images without chroma subsampling, 1-bit PNG masks.

    Args:
        root: PraNet layout, or a folder with images/ and masks/, or with images/ alone.
        out: the folder to make; nothing of it remains if a pair is faulty.
        size: side in pixels; images are stretched to a square, as in training.
        quality: of JPEG, 1…100.
        overwrite: replace an existing folder.
        workers: threads.
        mask_values: see `masks.parse_mask_values`; the copy's masks are 1-bit.

    Returns:
        The sets of the copy by name. The same is in `prepared.json`, with the hash of every
        source pair (see `splits.hash_pair`).

    Raises:
        UserError: a faulty pair, size or quality out of range, or `out` exists, cannot be
            written, or contains the originals.
    """
    if not 32 <= size <= 4096:
        raise UserError(f"size {size} is not in 32…4096 pixels; 352 is the published size")
    if not 1 <= quality <= 100:
        raise UserError(f"quality {quality} is not in 1…100; try {DEFAULT_QUALITY}")
    sets = _sets(root, mask_values)
    if real_path(root).is_relative_to(real_path(out)):
        raise UserError(f"{out} holds the originals; choose another folder for the copy")
    check_output_directory(out, overwrite)
    prepared: dict[str, PreparedSet] = {}
    sources: dict[str, dict[str, str]] = {}
    with staged_directory(out, overwrite) as staging:
        for name, image_set in sets.items():
            folder = staging / image_set.root.relative_to(root)
            (folder / "images").mkdir(parents=True)
            if any(pair.mask for pair in image_set.pairs):
                (folder / "masks").mkdir()

            def write(pair: Pair, folder: Path = folder) -> _Written:
                return _write_pair(pair, folder, size, quality)

            written = parallel_map(write, image_set.pairs, f"preparing {name}", workers)
            psnr = [one.psnr for one in written]
            prepared[name] = PreparedSet(
                images=len(written),
                bytes=sum(one.bytes for one in written),
                psnr_mean=round(float(np.mean(psnr)), 2),
                psnr_min=round(float(np.min(psnr)), 2),
            )
            sources[name] = {one.name: one.source for one in written}
        write_json(staging / RECORD, record(root, size, quality, prepared) | {"sources": sources})
    return prepared


def record(root: Path, size: int, quality: int, prepared: dict[str, PreparedSet]) -> dict[str, Any]:
    """Return what is recorded of a copy, as plain dictionaries."""
    return {
        "schema": 1,
        "source": real_path(root).name,
        "size": size,
        "format": "jpeg",
        "quality": quality,
        "chroma_subsampling": "4:4:4",
        "resize": "PIL bilinear, antialiased, stretched to a square",
        "sets": {name: vars(one) for name, one in prepared.items()},
    }


def _sets(root: Path, mask_values: str | None) -> dict[str, ImageSet]:
    if (root / "images").is_dir() and not (root / "masks").exists():
        # frames without ground truth: for calibration, or for a teacher to label
        return {real_path(root).name: find_pairs(root, real_path(root).name, require_masks=False)}
    return find_sets(root, mask_values)


def _write_pair(pair: Pair, folder: Path, size: int, quality: int) -> _Written:
    mask: NDArray[np.bool_] | None = None
    if pair.mask is None:
        image = read_image(pair.image)
    else:
        image, mask = read_pair(pair)
    image = resize_image(image, size, size)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0, optimize=True)
    target = folder / "images" / f"{pair.name}.jpg"
    target.write_bytes(buffer.getvalue())
    count = len(buffer.getvalue())
    if mask is not None:
        mask_target = folder / "masks" / f"{pair.name}.png"
        Image.fromarray(resize_mask(mask, size, size)).save(mask_target, optimize=True)
        count += mask_target.stat().st_size
    return _Written(pair.name, hash_pair(pair), count, _psnr(image, read_image(target)))


def _psnr(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    error = float(np.mean((first.astype(np.float32) - second.astype(np.float32)) ** 2))
    # identical pixels have no finite PSNR; half a level is below anything JPEG reaches
    return 10 * float(np.log10(255**2 / max(error, 1e-3)))
