"""The segmentation losses against loops in float64 NumPy, and against finite differences."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from kdas_edge.distill.losses import bce_dice, structure_loss

Array = NDArray[np.float64]


def example(batch: int = 2, side: int = 6) -> tuple[Array, Array]:
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 3, (batch, 1, side, side))
    mask = (draw.random((batch, 1, side, side)) > 0.6).astype(np.float64)
    return logits, mask


def cross_entropy(z: float, g: float) -> float:
    p = 1 / (1 + math.exp(-z))
    return -(g * math.log(p) + (1 - g) * math.log(1 - p))


def bce_dice_by_loops(logits: Array, mask: Array) -> float:
    losses = []
    for z, g in zip(logits[:, 0], mask[:, 0], strict=True):
        entropy, overlap, total = 0.0, 0.0, 0.0
        for row in range(z.shape[0]):
            for column in range(z.shape[1]):
                p = 1 / (1 + math.exp(-z[row, column]))
                entropy += cross_entropy(z[row, column], g[row, column])
                overlap += p * g[row, column]
                total += p + g[row, column]
        losses.append(entropy / z.size + 1 - (2 * overlap + 1) / (total + 1))
    return sum(losses) / len(losses)


def structure_by_loops(logits: Array, mask: Array, weighted_bce: bool) -> float:
    losses = []
    for z, g in zip(logits[:, 0], mask[:, 0], strict=True):
        height, width = z.shape
        weights = np.zeros_like(z)
        for row in range(height):
            for column in range(width):
                around = 0.0
                for r in range(max(0, row - 15), min(height, row + 16)):
                    for c in range(max(0, column - 15), min(width, column + 16)):
                        around += g[r, c]
                weights[row, column] = 1 + 5 * abs(around / 31**2 - g[row, column])
        entropy = np.vectorize(cross_entropy)(z, g)
        p = 1 / (1 + np.exp(-z))
        bce = (weights * entropy).sum() / weights.sum() if weighted_bce else entropy.mean()
        overlap = (weights * p * g).sum()
        union = (weights * (p + g)).sum() - overlap
        losses.append(bce + 1 - (overlap + 1) / (union + 1))
    return float(np.mean(losses))


def structure_by_loops_bce(logits: torch.Tensor, mask: torch.Tensor) -> float:
    """The weighted cross-entropy alone, of `structure_loss`."""
    z, g = logits.numpy(), mask.numpy()
    both = structure_by_loops(z, g, weighted_bce=True)
    entropy = float(np.vectorize(cross_entropy)(z, g).mean())
    return both - (structure_by_loops(z, g, weighted_bce=False) - entropy)


def test_bce_dice_equals_a_loop_over_images_and_pixels() -> None:
    logits, mask = example()
    ours = bce_dice(torch.tensor(logits), torch.tensor(mask)).item()
    assert ours == pytest.approx(bce_dice_by_loops(logits, mask), abs=1e-12)


def test_bce_dice_takes_probabilities_as_targets() -> None:
    logits, _ = example()
    soft = np.random.default_rng(1).random(logits.shape)
    ours = bce_dice(torch.tensor(logits), torch.tensor(soft)).item()
    assert ours == pytest.approx(bce_dice_by_loops(logits, soft), abs=1e-12)


@pytest.mark.parametrize("weighted_bce", [True, False])
def test_structure_loss_equals_a_loop_over_windows(weighted_bce: bool) -> None:
    logits, mask = example(side=20)
    ours = structure_loss(torch.tensor(logits), torch.tensor(mask), weighted_bce=weighted_bce)
    expected = structure_by_loops(logits, mask, weighted_bce)
    assert ours.item() == pytest.approx(expected, abs=1e-12)


def test_the_unweighted_form_is_what_the_releases_reduce_argument_does() -> None:
    logits, mask = (torch.tensor(x) for x in example())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        released: Any = {"reduce": "none"}
        scalar = F.binary_cross_entropy_with_logits(logits, mask, **released)
    assert scalar.ndim == 0  # nothing is left to weight
    iou = structure_loss(logits, mask) - structure_by_loops_bce(logits, mask)
    torch.testing.assert_close(structure_loss(logits, mask, weighted_bce=False), iou + scalar)


@pytest.mark.parametrize("loss", [bce_dice, structure_loss])
def test_gradients_agree_with_finite_differences(loss) -> None:
    logits, mask = (torch.tensor(x) for x in example(side=5))
    assert torch.autograd.gradcheck(lambda z: loss(z, mask), logits.requires_grad_())


@pytest.mark.parametrize("loss", [bce_dice, structure_loss])
def test_no_reduction_gives_one_loss_per_image_whose_mean_is_the_loss(loss) -> None:
    logits, mask = (torch.tensor(x) for x in example(batch=3))
    per_image = loss(logits, mask, "none")
    assert per_image.shape == (3,)
    torch.testing.assert_close(per_image.mean(), loss(logits, mask))


@pytest.mark.parametrize("loss", [bce_dice, structure_loss])
def test_a_perfect_and_a_polyp_free_prediction_cost_nothing_and_stay_finite(loss) -> None:
    mask = torch.zeros(2, 1, 40, 40)
    mask[0, :, 10:20, 10:20] = 1
    perfect = (mask * 2 - 1) * 60
    assert loss(perfect, mask).item() == pytest.approx(0, abs=1e-5)
    assert loss(-perfect, mask).isfinite()


@pytest.mark.parametrize("loss", [bce_dice, structure_loss])
def test_half_precision_logits_are_computed_in_float32(loss) -> None:
    logits, mask = (torch.tensor(x, dtype=torch.float32) for x in example())
    low = logits.bfloat16()
    assert loss(low, mask).dtype == torch.float32
    torch.testing.assert_close(loss(low, mask), loss(low.float(), mask))
