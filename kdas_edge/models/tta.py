"""Test-time augmentation: the mean of a network's outputs over flips of the image.

An endoscope has no up, so that the outputs should be the same, flipped back. Where they differ the
network is unsure, and their mean is better than each. It costs as many passes, which a teacher may
take and a device may not.
"""

import torch
from torch import Tensor, nn

from kdas_edge.models.architecture import SegmentationNetwork

# the image itself, left to right, upside down, both
_FLIPS: tuple[tuple[int, ...], ...] = ((), (3,), (2,), (2, 3))


def flipped_outputs(network: nn.Module, x: Tensor, count: int) -> list[tuple[Tensor, Tensor]]:
    """Run a network on the first `count` flips of an image.

    Args:
        network: returns two maps.
        x: (B, C, H, W), what the network takes.
        count: 1 (the image itself) to 4.

    Returns:
        Per flip the two maps, flipped back to lie on the image.
    """
    outputs = []
    for flip in _FLIPS[:count]:
        z1, z2 = network(x.flip(flip))
        outputs.append((z1.flip(flip), z2.flip(flip)))
    return outputs


def with_tta(network: SegmentationNetwork, count: int) -> SegmentationNetwork:
    """Return a network whose outputs are the means over flips, for inference.

    Args:
        network: returns two maps; used, not copied.
        count: 1 (the network itself is returned) to 4.
    """
    return network if count == 1 else _MeanOverFlips(network, count)


class _MeanOverFlips(SegmentationNetwork):
    def __init__(self, network: SegmentationNetwork, count: int) -> None:
        super().__init__()
        self.network, self.architecture = network, network.architecture
        self._count = count

    def extra_repr(self) -> str:
        return f"flips={self._count}"

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = zip(*flipped_outputs(self.network, x, self._count), strict=True)
        return torch.stack(first).mean(0), torch.stack(second).mean(0)
