"""A network that is asked about an image and its mirror images (test-time flips).

An endoscope has no up, so that the answers should be the same, turned back. Where they differ the
network is unsure, and their mean is better than each. It costs as many passes, which a teacher may
take and a device may not.
"""

import torch
from torch import Tensor, nn

# the image itself, left to right, upside down, both
_FLIPS: tuple[tuple[int, ...], ...] = ((), (3,), (2,), (2, 3))


def mirrored(network: nn.Module, x: Tensor, count: int) -> list[tuple[Tensor, Tensor]]:
    """Ask a network about the first `count` mirror images.

    Args:
        network: returns two maps.
        x: (B, C, H, W), what the network takes.
        count: 1 (the image itself) to 4.

    Returns:
        Per mirror image the two maps, turned back to lie on the image.
    """
    answers = []
    for flip in _FLIPS[:count]:
        z1, z2 = network(x.flip(flip))
        answers.append((z1.flip(flip), z2.flip(flip)))
    return answers


def with_mirrors(network: nn.Module, count: int) -> nn.Module:
    """Return a network whose outputs are the means over mirror images, for inference.

    Args:
        network: returns two maps; used, not copied.
        count: 1 (the network itself is returned) to 4.
    """
    return network if count == 1 else _MirrorMean(network, count)


class _MirrorMean(nn.Module):
    def __init__(self, network: nn.Module, count: int) -> None:
        super().__init__()
        self.network = network
        self._count = count

    def extra_repr(self) -> str:
        return f"mirrors={self._count}"

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = zip(*mirrored(self.network, x, self._count), strict=True)
        return torch.stack(first).mean(0), torch.stack(second).mean(0)
