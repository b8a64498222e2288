"""The deploy form and the deploy graph compute what the network computes, in float64 too."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdas_edge.export.graph import DeployGraph
from kdas_edge.models.architecture import FullSize
from kdas_edge.models.deploy import ConvolutionalMlp, MapAttention, deploy_form
from kdas_edge.models.polyp_pvt import PolypPVT, upsampling_matrix
from kdas_edge.models.zoo import build
from kdas_edge.recipe import ModelRecipe

SIZE = 96


@pytest.fixture(params=[("pvt_v2_b0", 8), ("mobilenetv2_100", 8), ("mobilenetv2_100", 4)])
def network(request: pytest.FixtureRequest) -> PolypPVT:
    torch.manual_seed(0)
    backbone, stride = request.param
    network = build(ModelRecipe(backbone=backbone, stride=stride), SIZE)
    for parameter in network.parameters():  # no bias and no scale that is 0 or 1
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return network.double().eval()


def image(batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, SIZE, SIZE, generator=generator, dtype=torch.float64)


def kinds(network: nn.Module) -> set[str]:
    return {type(module).__name__ for module in network.modules()}


def test_the_deploy_form_gives_the_same_maps(network: PolypPVT) -> None:
    with torch.no_grad():
        expected = network(image())
        found = deploy_form(network)(image())
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_the_deploy_form_trains_like_the_network(network: PolypPVT) -> None:
    arranged = deploy_form(network)
    for model in (network, arranged):
        z1, z2 = model(image())
        (z1.square() + z2).mean().backward()
    for (name, one), (_, other) in zip(
        network.named_parameters(), arranged.named_parameters(), strict=True
    ):
        assert one.grad is not None and other.grad is not None, name
        torch.testing.assert_close(one.grad.flatten(), other.grad.flatten(), rtol=1e-6, atol=1e-9)


def test_the_network_itself_is_not_changed() -> None:
    network = build(ModelRecipe(backbone="pvt_v2_b0"), SIZE)
    before = kinds(network)
    arranged = deploy_form(network)
    assert kinds(network) == before
    assert {ConvolutionalMlp.__name__, MapAttention.__name__} <= kinds(arranged)
    assert "MlpWithDepthwiseConv" not in kinds(arranged)
    assert list(arranged.state_dict()) == list(network.state_dict())


def test_the_graph_enlarges_the_sum_as_the_network_enlarges_each(network: PolypPVT) -> None:
    with torch.no_grad():
        z1, z2 = FullSize(network)(image())
        polyp = torch.sigmoid(z1 + z2)
        found = DeployGraph(network)(image())
    assert found.shape == (2, 2, SIZE, SIZE)
    torch.testing.assert_close(found[:, 1:], polyp, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found[:, :1], 1 - polyp, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("stride", [8, 4])
def test_the_upsampling_matrix_is_bilinear_interpolation(stride: int) -> None:
    x = torch.randn(3, 1, 12, 12, dtype=torch.float64)
    matrix = upsampling_matrix(12, stride).double()
    expected = F.interpolate(x, scale_factor=stride, mode="bilinear")
    torch.testing.assert_close(matrix @ x @ matrix.t(), expected, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(matrix.sum(1), torch.ones(12 * stride, dtype=torch.float64))
