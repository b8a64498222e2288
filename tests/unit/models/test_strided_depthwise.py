"""The fast form of strided depthwise convolutions is the same function, forward and backward."""

import copy

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from kdas_edge.models import strided_depthwise
from kdas_edge.models.strided_depthwise import (
    StridedDepthwise,
    StridedDepthwiseSame,
    with_fast_strided_depthwise,
)
from kdas_edge.models.zoo import build
from kdas_edge.recipe import ModelRecipe

LAYERS = [
    lambda: nn.Conv2d(6, 6, 3, 2, 1, groups=6, bias=False),
    lambda: nn.Conv2d(6, 6, 5, 2, 2, groups=6),
    lambda: nn.Conv2d(6, 6, 3, (2, 3), 1, dilation=2, groups=6),
    lambda: Conv2dSame(6, 6, 3, 2, groups=6, bias=False),
    lambda: Conv2dSame(6, 6, 5, 2, groups=6),
]


@pytest.fixture
def fast_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """The form of bfloat16 in float64, where equality can be seen."""
    monkeypatch.setattr(strided_depthwise, "_has_slow_backward", lambda layer, x: layer.training)


def gradients(network: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    out = network(x)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return [out, *torch.autograd.grad((out * weights).sum(), [x, *network.parameters()])]


@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize("side", [16, 17, 23])
@pytest.mark.usefixtures("fast_form")
def test_result_and_gradients_are_those_of_the_layer_in_float64(make, side: int) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(make()).double()
    fast = with_fast_strided_depthwise(copy.deepcopy(plain))
    assert type(fast[0]) in (StridedDepthwise, StridedDepthwiseSame)
    x = torch.randn(2, 6, side, side + 3, dtype=torch.float64)
    for ours, theirs in zip(gradients(fast, x), gradients(plain, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", LAYERS)
def test_without_training_the_layer_is_computed_as_it_is(make) -> None:
    plain = nn.Sequential(make())
    fast = with_fast_strided_depthwise(copy.deepcopy(plain))
    x = torch.randn(2, 6, 17, 16)
    with torch.no_grad():
        assert torch.equal(fast(x), plain(x))
    assert torch.equal(fast.eval()(x), plain(x))
    assert list(fast.state_dict()) == list(plain.state_dict())


def test_the_fast_form_is_that_of_training_in_bfloat16_on_a_cpu() -> None:
    layer = with_fast_strided_depthwise(nn.Sequential(LAYERS[0]()))[0]
    x = torch.randn(1, 6, 8, 8)
    chosen = strided_depthwise._has_slow_backward
    assert not chosen(layer, x) and chosen(layer, x.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert chosen(layer, x) and layer(x).shape == (1, 6, 4, 4)
        with torch.no_grad():
            assert not chosen(layer, x)
        assert not chosen(layer.eval(), x)


def test_other_convolutions_are_left_alone() -> None:
    others = nn.Sequential(
        nn.Conv2d(6, 6, 3, 1, 1, groups=6),
        nn.Conv2d(6, 6, 3, 2, 1),
        nn.Conv2d(6, 12, 3, 2, 1, groups=6),
        nn.Conv2d(6, 6, 3, 2, 1, groups=6, padding_mode="reflect"),
    )
    before = [type(layer) for layer in others]
    assert [type(layer) for layer in with_fast_strided_depthwise(others)] == before


@pytest.mark.parametrize(
    ("backbone", "kind"),
    [("mobilenetv2_100", StridedDepthwise), ("tf_efficientnet_lite0", StridedDepthwiseSame)],
)
@pytest.mark.usefixtures("fast_form")
def test_the_encoders_train_with_it_and_keep_their_outputs(
    backbone: str, kind: type[nn.Conv2d]
) -> None:
    torch.manual_seed(0)
    network = build(ModelRecipe(backbone=backbone, width=8), 64)
    found = [module for module in network.modules() if isinstance(module, kind)]
    assert len(found) >= 3
    trained = copy.deepcopy(network).double().train()
    plain = copy.deepcopy(trained)
    for layer in plain.modules():
        if isinstance(layer, kind):
            layer.eval()  # then it is computed as it is
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    for ours, theirs in zip(trained(x), plain(x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    for model in (trained, plain):
        sum(z.sum() for z in model(x)).backward()
    for one, other in zip(trained.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-7, atol=1e-9)
