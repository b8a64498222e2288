"""Decoded and resized images: in memory, or in a file that is mapped into it.

1450 images at 352×352 are 720 MB of uint8: less than a loader's worth of trouble, and no step ever
waits for a file. A set that does not fit is decoded once into files of `data.cache`; the operating
system reads from them what a batch needs, and a later run of the same images finds them there.
"""

import contextlib
import hashlib
import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdas_edge.console import info, progress
from kdas_edge.data.frames import read_video_frames
from kdas_edge.data.layout import Pair, read_pair, resize_image, resize_mask
from kdas_edge.environment import free_memory, usable_cpus
from kdas_edge.errors import UserError
from kdas_edge.files import real_path
from kdas_edge.image_files import read_image

# of the free memory that a set may take: the network and its gradients need the rest
LARGEST_SHARE = 0.5
_CHUNK = 64


@dataclass(frozen=True)
class VideoFrame:
    """A frame of a video, without a mask; `number` counts from 0."""

    name: str
    file: Path
    number: int


@dataclass(frozen=True)
class ResidentSet:
    """Images and masks of one size in memory.

    Attributes:
        images: (N, 3, S, S) uint8 RGB.
        masks: (N, 1, S, S) uint8, 0 or 1; all zero where `labelled` is false.
        labelled: (N,) bool; false for frames that have no ground truth.
        names: N stems.
        teacher: (N, 1, S, S) uint8, the teacher's probability of a polyp by 255; None where the
            teacher runs in each step, or not at all.
        mapped: folder of the files that `images` and `masks` are mapped from; None in memory.
    """

    images: Tensor
    masks: Tensor
    labelled: Tensor
    names: tuple[str, ...]
    teacher: Tensor | None = None
    mapped: Path | None = None

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device | str) -> "ResidentSet":
        """Return the same set with its tensors on `device`; mapped ones stay on the CPU."""
        if self.mapped is not None:
            return self
        return replace(
            self,
            images=self.images.to(device),
            masks=self.masks.to(device),
            labelled=self.labelled.to(device),
            teacher=None if self.teacher is None else self.teacher.to(device),
        )

    def rows(self, index: Tensor, device: torch.device | str) -> "ResidentSet":
        """Return a batch on `device`: the images of `index`, (b,) int64."""
        own = index.to(self.images.device, non_blocking=True)
        return ResidentSet(
            self.images[own].to(device, non_blocking=True),
            self.masks[own].to(device, non_blocking=True),
            self.labelled[own].to(device, non_blocking=True),
            tuple(self.names[i] for i in index.tolist()),
            None if self.teacher is None else self.teacher[own].to(device, non_blocking=True),
        )

    def where(self, kept: Tensor) -> "ResidentSet":
        """Return the images for which `kept`, (N,) bool, is true; this set itself if all are."""
        if kept.all():  # gigabytes need not be copied
            return self
        names = tuple(name for name, keep in zip(self.names, kept.tolist(), strict=True) if keep)
        teacher = None if self.teacher is None else self.teacher[kept]
        if self.mapped is None:
            images, masks = self.images[kept], self.masks[kept]
        else:
            index = kept.nonzero()[:, 0]
            images, masks = (_copied(one, index, self.mapped) for one in (self.images, self.masks))
        return ResidentSet(images, masks, self.labelled[kept], names, teacher, self.mapped)

    def part(self, part: slice) -> "ResidentSet":
        """Return a view of some neighbouring images."""
        return ResidentSet(
            self.images[part],
            self.masks[part],
            self.labelled[part],
            self.names[part],
            mapped=self.mapped,
        )

    def with_masks_of(self, kept: Tensor) -> "ResidentSet":
        """Return the set with the masks of those images alone for which `kept`, (N,), is true."""
        if self.mapped is None:
            masks = self.masks * kept[:, None, None, None]
        else:
            masks = _copied(self.masks, torch.arange(len(self)), self.mapped)
            for index in (~kept).nonzero()[:, 0].tolist():
                masks[index] = 0
        return replace(self, masks=masks, labelled=kept)


def _is_labelled(pair: Pair) -> bool:
    return pair.mask is not None or pair.polyp_free


def bytes_needed(count: int, size: int) -> int:
    """Bytes of `count` images and masks of `size`×`size` pixels."""
    return count * 4 * size * size


def load_pairs(
    pairs: Sequence[Pair | VideoFrame],
    size: int,
    cache: Path | None = None,
    largest: int | None = None,
) -> ResidentSet:
    """Decode and resize images with the threads of this machine (PIL releases the interpreter).

    Args:
        pairs: images with and without masks, and frames of videos.
        size: side S in pixels.
        cache: folder for the decoded images of a set that does not fit into memory.
        largest: bytes that may be held in memory; half of what is free by default.

    Raises:
        UserError: an unreadable file, a mask of another size than its image, a set that does not
            fit and no `cache`, or a `cache` that cannot be written.
    """
    labelled = [isinstance(pair, Pair) and _is_labelled(pair) for pair in pairs]
    names = tuple(pair.name for pair in pairs)
    needed, free = bytes_needed(len(pairs), size), free_memory()
    if largest is None:
        largest = needed if free is None else int(free * LARGEST_SHARE)
    if needed <= largest:
        images = torch.empty(len(pairs), 3, size, size, dtype=torch.uint8)
        masks = torch.zeros(len(pairs), 1, size, size, dtype=torch.uint8)
        _fill(pairs, size, images, masks)
        return ResidentSet(images, masks, torch.tensor(labelled, dtype=torch.bool), names)
    if cache is None:
        raise UserError(
            f"{len(pairs)} images of {size}×{size} pixels are {needed / 1e9:.1f} GB decoded, and "
            f"{largest / 1e9:.1f} GB may be held in memory; set data.cache=DIR to keep them in a "
            "file, data.memory_gb to allow more, or a smaller data.size"
        )
    images, masks = _cached(pairs, size, cache)
    return ResidentSet(images, masks, torch.tensor(labelled, dtype=torch.bool), names, mapped=cache)


def _fill(pairs: Sequence[Pair | VideoFrame], size: int, images: Tensor, masks: Tensor) -> None:
    """Decode every image into its row."""

    def put(index: int, image: NDArray[np.uint8]) -> None:
        small = np.ascontiguousarray(resize_image(image, size, size).transpose(2, 0, 1))
        images[index] = torch.from_numpy(small)

    def load(index: int) -> None:
        pair = pairs[index]
        assert isinstance(pair, Pair)
        if not _is_labelled(pair):
            put(index, read_image(pair.image))
            return
        image, mask = read_pair(pair)
        put(index, image)
        masks[index, 0] = torch.from_numpy(resize_mask(mask, size, size))

    files = [index for index, pair in enumerate(pairs) if isinstance(pair, Pair)]
    videos: dict[Path, dict[int, int]] = {}
    for index, pair in enumerate(pairs):
        if isinstance(pair, VideoFrame):
            videos.setdefault(pair.file, {})[pair.number] = index
    with (
        ThreadPoolExecutor(usable_cpus()) as pool,
        progress(len(pairs), "reading images") as advance,
    ):
        try:
            for _ in pool.map(load, files):
                advance()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        for file, rows in videos.items():
            for number, image in read_video_frames(file, sorted(rows)):
                put(rows[number], image)
                advance()


def _cached(pairs: Sequence[Pair | VideoFrame], size: int, cache: Path) -> tuple[Tensor, Tensor]:
    """The decoded images and masks as private maps of two files, made where they are absent."""
    key = _key(pairs, size)
    shapes = {"images": (len(pairs), 3, size, size), "masks": (len(pairs), 1, size, size)}
    files = {kind: cache / f"{key}.{kind}" for kind in shapes}
    if not all(file.is_file() for file in files.values()):
        info(f"decoding {len(pairs)} images into {cache}, once")
        made = {kind: cache / f".{key}.{kind}" for kind in shapes}
        try:
            cache.mkdir(parents=True, exist_ok=True)
            maps = {
                kind: np.memmap(made[kind], np.uint8, "w+", shape=shape)
                for kind, shape in shapes.items()
            }
            _fill(pairs, size, *(torch.from_numpy(maps[kind]) for kind in shapes))
            for kind in shapes:
                maps[kind].flush()
                made[kind].replace(files[kind])
        except OSError as error:
            raise UserError(
                f"data.cache {cache}: {error.strerror}; name a folder with room for "
                f"{bytes_needed(len(pairs), size) / 1e9:.1f} GB"
            ) from None
        finally:
            for path in made.values():
                with contextlib.suppress(OSError):
                    path.unlink()
    images, masks = (_mapped(files[kind], shape) for kind, shape in shapes.items())
    return images, masks


def _key(pairs: Sequence[Pair | VideoFrame], size: int) -> str:
    """Names, files, their sizes and times: other content gives another key."""
    parts: list[object] = [size]
    for pair in pairs:
        files = [pair.image, pair.mask] if isinstance(pair, Pair) else [pair.file]
        values = str(pair.mask_values) if isinstance(pair, Pair) else pair.number
        parts.append([pair.name, values, getattr(pair, "polyp_free", False)])
        for file in files:
            if file is not None:
                found = file.stat()
                parts.append([str(real_path(file)), found.st_size, found.st_mtime_ns])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _mapped(file: Path, shape: tuple[int, ...]) -> Tensor:
    """Map a file; what is written into the tensor stays in memory and never reaches the file."""
    flat = torch.from_file(str(file), shared=False, size=math.prod(shape), dtype=torch.uint8)
    return flat.view(shape)


def _copied(rows: Tensor, index: Tensor, folder: Path) -> Tensor:
    """Some rows of a mapped tensor, in a file without a name that goes with the tensor."""
    shape = (len(index), *rows.shape[1:])
    path = folder / f".rows-{hashlib.sha256(index.numpy().tobytes()).hexdigest()[:16]}"
    target = np.memmap(path, np.uint8, "w+", shape=shape)
    path.unlink()
    copy = torch.from_numpy(target)
    for start in range(0, len(index), _CHUNK):
        copy[start : start + _CHUNK] = rows[index[start : start + _CHUNK]]
    return copy
