"""What a network does on the validation split, in the terms by which attempts are compared."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdas_edge.data.resident import ResidentSet
from kdas_edge.distill.validation import validate
from kdas_edge.models.architecture import FullSize, SegmentationNetwork
from kdas_edge.models.inputs import network_input

_BATCH = 8


@dataclass(frozen=True)
class Evaluation:
    """Deploy protocol, one entry per validation image, in the order of the split.

    Attributes:
        dice: (N,) 0…1; 1 where prediction and truth are both empty.
        masks: (N, S, S) bool, what was predicted.
    """

    dice: NDArray[np.float64]
    masks: NDArray[np.bool_]

    @property
    def mean(self) -> float:
        """Mean Dice, 0…1."""
        return float(self.dice.mean())

    @property
    def marked(self) -> NDArray[np.bool_]:
        """(N,) True where any pixel is predicted to be polyp."""
        return np.asarray(self.masks.any(axis=(1, 2)), dtype=np.bool_)

    def agreement(self, other: "Evaluation") -> float:
        """Mean Dice of the two networks' masks with each other, 0…1; 1 where both are empty.

        It needs no ground truth and feels small changes that happen to cost no Dice.
        """
        overlap = (self.masks & other.masks).sum(axis=(1, 2))
        both = self.masks.sum(axis=(1, 2)) + other.masks.sum(axis=(1, 2))
        return float(np.where(both == 0, 1.0, 2 * overlap / np.maximum(both, 1)).mean())


def evaluate(network: SegmentationNetwork, data: ResidentSet) -> Evaluation:
    """Score a network, float or fake-quantised, on resident images and masks."""
    device = next(network.parameters()).device
    size = network.architecture.size
    dice, masks = validate(network, data.images.to(device), data.masks.to(device), size)
    return Evaluation(dice, masks)


def polyp_fractions(data: ResidentSet) -> NDArray[np.float64]:
    """(N,) the share of each frame that is polyp, 0…1."""
    fractions: NDArray[np.float64] = data.masks.double().mean(dim=(1, 2, 3)).cpu().numpy()
    return fractions


@torch.no_grad()
def probability_maps(network: SegmentationNetwork, data: ResidentSet) -> Tensor:
    """Return σ(z₁ + z₂) of every image, (N, S, S) float32 on the CPU, in eval mode."""
    network.eval()
    architecture, full_size = network.architecture, FullSize(network)
    device = next(network.parameters()).device
    maps = []
    for images in data.images.split(_BATCH):
        x = network_input(images.to(device).float() / 255, architecture.size, architecture)
        z1, z2 = full_size(x)
        maps.append(torch.sigmoid((z1 + z2).float())[:, 0].cpu())
    return torch.cat(maps)
