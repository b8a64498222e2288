"""The network against an independent reading of the published one, and its export manners."""

import warnings

import pytest
import torch
import torch.nn.functional as F

from kdas_edge.models.polyp_pvt import PolypPVT, SimilarityAggregation, pooling_matrix
from kdas_edge.models.zoo import Architecture, from_architecture

TINY = Architecture("test_efficientnet", width=8, size=64)


def tiny() -> PolypPVT:
    torch.manual_seed(0)
    return from_architecture(TINY).eval()


@pytest.mark.parametrize("side", [8, 12, 28, 32, 44, 55])
def test_two_matrix_products_equal_the_inner_cells_of_adaptive_pooling(side: int) -> None:
    x = torch.randn(2, 3, side, side)
    pool = pooling_matrix(side)
    expected = F.adaptive_avg_pool2d(x, 6)[:, :, 1:-1, 1:-1]
    torch.testing.assert_close(pool @ x @ pool.t(), expected, atol=1e-6, rtol=0)


def test_aggregation_is_the_same_through_the_matrices_and_through_adaptive_pooling() -> None:
    torch.manual_seed(0)
    fixed, other = SimilarityAggregation(16, side=12), SimilarityAggregation(16, side=44)
    other.load_state_dict(fixed.state_dict())
    x, detail = torch.randn(2, 2, 16, 12, 12)
    torch.testing.assert_close(fixed(x, detail), other(x, detail), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(64, 64), (96, 96), (32, 32), (64, 96)])
def test_both_outputs_are_one_channel_at_the_size_of_the_image(shape: tuple[int, int]) -> None:
    z1, z2 = tiny()(torch.randn(2, 3, *shape))
    assert z1.shape == z2.shape == (2, 1, *shape)
    assert z1.isfinite().all() and z2.isfinite().all()


def test_pooling_matrices_stay_out_of_the_state_dict() -> None:
    assert not [key for key in tiny().state_dict() if "pool" in key]


def test_a_traced_network_equals_the_eager_one_without_tracer_warnings() -> None:
    model, image = tiny(), torch.randn(1, 3, 64, 64)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        traced = torch.jit.trace(model, image)
        other = torch.randn(1, 3, 64, 64)
        for ours, theirs in zip(model(other), traced(other), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_every_parameter_gets_a_gradient_from_the_two_outputs() -> None:
    # DistributedDataParallel waits for ever for a parameter without one
    model = tiny().train()
    z1, z2 = model(torch.randn(2, 3, 64, 64))
    (z1.square().mean() + z2.square().mean()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_channels_last_and_autocast_keep_the_outputs() -> None:
    model, image = tiny(), torch.randn(2, 3, 64, 64)
    expected = model(image)[0]
    model = model.to(memory_format=torch.channels_last)
    image = image.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(image)[0], expected, atol=1e-5, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert (model(image)[0].float() - expected).abs().max() < 0.1
