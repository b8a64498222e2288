"""From resident images in 0…1 to the input of a network, as in training."""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from kdas_edge.models.architecture import Architecture


def resized(x: Tensor, size: int) -> Tensor:
    """Resize (B, C, S, S) to size×size as PIL does (antialiased bilinear), if it is another."""
    if size == x.shape[-1]:
        return x
    return F.interpolate(x, (size, size), mode="bilinear", antialias=True)


def normalise(images: Tensor, architecture: Architecture) -> Tensor:
    """`(x - mean) / std` for images (B, 3, H, W) in 0…1."""
    mean = _channels(architecture.mean, images.device, images.dtype)
    std = _channels(architecture.std, images.device, images.dtype)
    return (images - mean) / std


@functools.cache
def _channels(
    values: tuple[float, float, float], device: torch.device, dtype: torch.dtype
) -> Tensor:
    """One number a channel, (1, 3, 1, 1); kept, as a copy to a GPU makes the host wait."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device, dtype=dtype).view(1, 3, 1, 1)


def network_input(images: Tensor, size: int, architecture: Architecture) -> Tensor:
    """Resize images (B, 3, S, S) of 0…1 to what a network sees, normalise, channels last."""
    x = normalise(resized(images, size), architecture)
    return x.to(memory_format=torch.channels_last)
