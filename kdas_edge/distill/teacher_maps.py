"""What a teacher says of each training image, asked once before the training.

A teacher that is asked in every step takes more time than the student that learns from it. Asked
once, about the image as it is, its map is moved along with the image in each augmentation, and a
step costs what a supervised one costs. Blur, noise and changes of colour are then seen by the
student alone, which learns not to mind them (as in Noisy Student, arXiv 1911.04252).

The maps are kept beside the runs, so that a run that goes on, and the next student of this teacher,
do not ask again.

Only the probability is kept, in 8 bits. KDAS compares the logits of both outputs, for which the
teacher has to be asked in each step.
"""

import hashlib
import io
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdas_edge.console import info, progress
from kdas_edge.data.resident import ResidentSet
from kdas_edge.files import write_bytes_atomic
from kdas_edge.models.architecture import FullSize, SegmentationNetwork
from kdas_edge.models.inputs import network_input, resized

# the folder of kept maps, among the runs
TEACHER_MAPS = ".teacher_maps"

# of a probability that is kept in 8 bits: half a level from 0 and 1
_LEAST = 1 / 510


def with_maps(
    data: ResidentSet,
    teacher: SegmentationNetwork,
    size: int,
    keep: Path | None = None,
    writes: bool = True,
) -> ResidentSet:
    """Ask a teacher about each image, or find what it said of them before.

    Args:
        data: the images, on the device where the teacher is to run.
        teacher: returns two logit maps.
        size: side of what the teacher sees, in pixels.
        keep: folder of answers, one file for each teacher, its size and the images.
        writes: false where another process keeps them.

    Returns:
        The same set with the teacher's maps, rounded to 1/255.

    Raises:
        UserError: `keep` cannot be written.
    """
    teacher.eval().to(data.images.device)
    file = None
    if keep is not None:
        file = keep / f"{_digest(data, teacher, size)}.npz"
        maps = _read(file)
        if maps is not None:
            info(f"the teacher's maps are those of {file}")
            return replace(data, teacher=maps.to(data.images.device))
    maps = _ask(data.images, teacher, size)
    if file is not None and writes:
        packed = io.BytesIO()
        np.savez_compressed(packed, maps=maps.cpu().numpy())
        write_bytes_atomic(file, packed.getvalue())
    return replace(data, teacher=maps)


@torch.no_grad()
def _ask(images: Tensor, teacher: SegmentationNetwork, size: int, batch: int = 8) -> Tensor:
    """Return (N, 1, S, S) uint8, the probability in 1/255."""
    maps = torch.empty_like(images[:, :1])
    full_size = FullSize(teacher)
    with progress(len(images), "asking the teacher once about each image") as advance:
        for start in range(0, len(images), batch):
            x = network_input(
                images[start : start + batch].float() / 255, size, teacher.architecture
            )
            z1, z2 = full_size(x)
            probability = resized(torch.sigmoid(z1.float() + z2.float()), images.shape[-1])
            maps[start : start + batch] = (255 * probability).round().to(torch.uint8)
            advance(len(x))
    return maps


def _digest(data: ResidentSet, teacher: SegmentationNetwork, size: int) -> str:
    """Name what an answer depends on: images, network, mirror images, size, normalisation."""
    found = hashlib.sha256(f"{size} {teacher.architecture.to_dict()} {teacher}".encode())
    for name, tensor in (("images", data.images), *sorted(teacher.state_dict().items())):
        found.update(f"{name} {tuple(tensor.shape)}".encode())
        found.update(tensor.cpu().contiguous().numpy())
    return found.hexdigest()[:32]


def _read(file: Path) -> Tensor | None:
    """Return kept maps; none, if the file is absent or damaged."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return torch.from_numpy(arrays["maps"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def as_outputs(probability: Tensor) -> tuple[Tensor, Tensor]:
    """The two outputs of a teacher whose σ(z₁ + z₂) is `probability`, (B, 1, H, W) of 0…1."""
    half = torch.logit(probability.clamp(_LEAST, 1 - _LEAST)) / 2
    return half, half
