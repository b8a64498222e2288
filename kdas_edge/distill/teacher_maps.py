"""What a teacher says of each training image, asked once before the training.

A teacher that is asked in every step takes more time than the student that learns from it. Asked
once, about the image as it is, its map is moved along with the image in each augmentation, and a
step costs what a supervised one costs. Blur, noise and changes of colour are then seen by the
student alone, which learns not to mind them (as in Noisy Student, arXiv 1911.04252).

Only the probability is kept, in 8 bits. KDAS compares the logits of both outputs, for which the
teacher has to be asked in each step.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from kdas_edge.console import progress
from kdas_edge.data.dataset import ResidentSet
from kdas_edge.models.inputs import network_input, resized
from kdas_edge.models.zoo import Architecture

# of a probability that is kept in 8 bits: half a level from 0 and 1
_LEAST = 1 / 510


@torch.no_grad()
def with_maps(
    data: ResidentSet, teacher: nn.Module, size: int, architecture: Architecture, batch: int = 8
) -> ResidentSet:
    """Ask a teacher about each image.

    Args:
        data: the images, on the device where the teacher is to run.
        teacher: returns two logit maps.
        size: side of what the teacher sees, in pixels.
        architecture: of the teacher; says how to normalise.
        batch: images at a time.

    Returns:
        The same set with the teacher's maps, rounded to 1/255.
    """
    images = data.images
    maps = torch.empty_like(images[:, :1])
    teacher.eval().to(images.device)
    with progress(len(images), "asking the teacher once about each image") as advance:
        for start in range(0, len(images), batch):
            x = network_input(images[start : start + batch].float() / 255, size, architecture)
            z1, z2 = teacher(x)
            probability = resized(torch.sigmoid(z1.float() + z2.float()), images.shape[-1])
            maps[start : start + batch] = (255 * probability).round().to(torch.uint8)
            advance(len(x))
    return replace(data, teacher=maps)


def as_outputs(probability: Tensor) -> tuple[Tensor, Tensor]:
    """The two outputs of a teacher whose σ(z₁ + z₂) is `probability`, (B, 1, H, W) of 0…1."""
    half = torch.logit(probability.clamp(_LEAST, 1 - _LEAST)) / 2
    return half, half
