"""The network against an independent reading of the published one, and its export manners."""

import dataclasses
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdas_edge.models.architecture import Architecture, FullSize
from kdas_edge.models.polyp_pvt import (
    PolypPVT,
    Refinement,
    SimilarityAggregation,
    pooling_matrix,
)
from kdas_edge.models.zoo import from_architecture

TINY = Architecture("test_efficientnet", width=8, size=64)


def tiny(stride: int = 8) -> PolypPVT:
    torch.manual_seed(0)
    network = from_architecture(dataclasses.replace(TINY, stride=stride)).eval()
    if network.refine is not None:  # which begins by adding nothing
        nn.init.normal_(network.refine.extend.weight)
    return network


@pytest.fixture(params=[8, 4])
def stride(request: pytest.FixtureRequest) -> int:
    return int(request.param)


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
def test_both_outputs_are_one_channel_and_enlarged_to_the_size_of_the_image(
    shape: tuple[int, int], stride: int
) -> None:
    network, image = tiny(stride), torch.randn(2, 3, *shape)
    z1, z2 = FullSize(network)(image)
    own = network(image)
    for whole, small in zip((z1, z2), own, strict=True):
        assert small.shape == (2, 1, shape[0] // stride, shape[1] // stride)
        assert torch.equal(whole, F.interpolate(small, scale_factor=stride, mode="bilinear"))
    assert z1.shape == z2.shape == (2, 1, *shape)
    assert z1.isfinite().all() and z2.isfinite().all()


def test_pooling_matrices_stay_out_of_the_state_dict() -> None:
    assert not [key for key in tiny().state_dict() if "pool" in key]


def test_a_traced_network_equals_the_eager_one_without_tracer_warnings(stride: int) -> None:
    model, image = tiny(stride), torch.randn(1, 3, 64, 64)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        traced = torch.jit.trace(model, image)
        other = torch.randn(1, 3, 64, 64)
        for ours, theirs in zip(model(other), traced(other), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_every_parameter_gets_a_gradient_from_the_two_outputs(stride: int) -> None:
    # DistributedDataParallel waits for ever for a parameter without one
    model = tiny(stride).train()
    z1, z2 = model(torch.randn(2, 3, 64, 64))
    (z1.square().mean() + z2.square().mean()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_the_refined_map_is_what_its_layers_say_and_begins_as_an_enlargement() -> None:
    torch.manual_seed(0)
    refine = Refinement(8).double().eval()
    x, detail = torch.randn(2, 8, 6, 6).double(), torch.randn(2, 8, 12, 12).double()
    # linear by hand: every second pixel lies a quarter to the left of a centre, every other right
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    for axis in (2, 3):
        near, before = padded.narrow(axis, 1, 6), padded.narrow(axis, 0, 6)
        after = padded.narrow(axis, 2, 6)
        pair = torch.stack((0.75 * near + 0.25 * before, 0.75 * near + 0.25 * after), axis + 1)
        padded = pair.flatten(axis, axis + 1)
    torch.testing.assert_close(refine(x, detail), padded)

    nn.init.normal_(refine.extend.weight)
    joined = torch.cat((padded, detail), 1)
    for layer in (refine.join, refine.mix):
        nn.init.normal_(layer.bn.running_mean)
        scale = layer.bn.weight / (layer.bn.running_var + layer.bn.eps).sqrt()
        shift = layer.bn.bias - layer.bn.running_mean * scale
        patches = F.unfold(joined, 3, padding=1)
        product = (layer.conv.weight.flatten(1) @ patches).unflatten(-1, (12, 12))
        joined = (product * scale[:, None, None] + shift[:, None, None]).clamp(min=0)
    added = torch.einsum("oi,bihw->bohw", refine.extend.weight[..., 0, 0], joined)
    torch.testing.assert_close(refine(x, detail), padded + added)
    assert added.abs().mean() > 0.01


def test_what_is_finer_is_only_the_second_map() -> None:
    coarse, fine = tiny(), tiny(stride=4)
    image = torch.randn(1, 3, 64, 64)
    fine.load_state_dict(coarse.state_dict(), strict=False)
    with torch.no_grad():
        (z1, z2), (fine1, fine2) = coarse(image), fine(image)
        assert z1.shape[-1] == z2.shape[-1] == 8 and fine1.shape[-1] == fine2.shape[-1] == 16
        enlarged = F.interpolate(z1, scale_factor=2, mode="bilinear")
        torch.testing.assert_close(fine1, enlarged)
        assert not torch.allclose(fine2, F.interpolate(z2, scale_factor=2, mode="bilinear"))


def test_channels_last_and_autocast_keep_the_outputs() -> None:
    model, image = tiny(), torch.randn(2, 3, 64, 64)
    expected = model(image)[0]
    model = model.to(memory_format=torch.channels_last)
    image = image.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(image)[0], expected, atol=1e-5, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert (model(image)[0].float() - expected).abs().max() < 0.1
