"""Test-time flips of a teacher."""

import pytest
import torch
from torch import Tensor, nn

from kdas_edge.models.architecture import Architecture, SegmentationNetwork
from kdas_edge.models.tta import flipped_outputs, with_tta


class Shifted(SegmentationNetwork):
    """Moves the image a pixel to the right and down: no flip of it has the same outputs."""

    architecture = Architecture("none")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        moved = x.roll((1, 1), (2, 3))
        return moved, 2 * moved


def test_answers_lie_on_the_image_again() -> None:
    x = torch.arange(12.0).view(1, 1, 3, 4)

    class Identity(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, -x

    for z1, z2 in flipped_outputs(Identity(), x, 4):
        assert torch.equal(z1, x) and torch.equal(z2, -x)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_mean_is_that_of_the_answers_turned_back(count: int) -> None:
    x = torch.rand(2, 1, 5, 6, dtype=torch.float64)
    moves = [(1, 1), (1, -1), (-1, 1), (-1, -1)][:count]  # a move, seen in the mirror
    wanted = sum(x.roll(move, (2, 3)) for move in moves) / count
    z1, z2 = with_tta(Shifted(), count)(x)
    assert torch.allclose(z1, wanted, atol=1e-15)
    assert torch.allclose(z2, 2 * wanted, atol=1e-15)


def test_the_mean_of_all_mirror_images_is_the_same_for_each_of_them() -> None:
    x = torch.rand(1, 1, 4, 4, dtype=torch.float64)
    network = with_tta(Shifted(), 4)
    for dims in ((2,), (3,), (2, 3)):
        assert torch.allclose(network(x.flip(dims))[0].flip(dims), network(x)[0], atol=1e-15)


def test_one_is_the_network_itself() -> None:
    network = Shifted()
    assert with_tta(network, 1) is network
