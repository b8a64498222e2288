"""Dice and masks of a network on the validation split."""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kdas_edge.data.resident import ResidentSet
from kdas_edge.distill.validation import validate
from kdas_edge.models.architecture import FullSize, SegmentationNetwork
from kdas_edge.models.inputs import network_input

_BATCH = 8


@dataclass(frozen=True)
class Evaluation:
    """Deploy protocol, one entry per validation image, in the order of the split.

    Attributes:
        dice: (N,) 0…1; 1 where prediction and truth are both empty, 0 where `finite` is False.
        masks: (N, S, S) bool, what was predicted.
        finite: (N,) False where the network gives NaN or infinity; all True by default.
    """

    dice: NDArray[np.float64]
    masks: NDArray[np.bool_]
    finite: NDArray[np.bool_] = field(default_factory=lambda: np.ones(1, np.bool_))

    def __post_init__(self) -> None:
        finite = np.broadcast_to(self.finite, self.dice.shape) & np.isfinite(self.dice)
        object.__setattr__(self, "finite", finite)
        object.__setattr__(self, "dice", np.where(finite, self.dice, 0.0))

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

        It needs no ground truth and shows small changes that happen to cost no Dice.
        """
        overlap = (self.masks & other.masks).sum(axis=(1, 2))
        both = self.masks.sum(axis=(1, 2)) + other.masks.sum(axis=(1, 2))
        return float(np.where(both == 0, 1.0, 2 * overlap / np.maximum(both, 1)).mean())


def evaluate(network: SegmentationNetwork, data: ResidentSet) -> Evaluation:
    """Score a network, float or fake-quantised, on resident images and masks."""
    device = next(network.parameters()).device
    size, finite = network.architecture.size, list[Tensor]()

    def check(_: nn.Module, __: object, outputs: tuple[Tensor, ...]) -> None:
        maps = [torch.isfinite(output).flatten(1).all(1) for output in outputs]
        finite.append(torch.stack(maps).all(0).cpu())

    watched = network.register_forward_hook(check)
    try:
        dice, masks = validate(network, data.images.to(device), data.masks.to(device), size)
    finally:
        watched.remove()
    return Evaluation(dice, masks, torch.cat(finite).numpy())


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
