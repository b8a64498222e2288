"""Every setting of the recipe is found again in the quantisers that NNCF makes."""

from typing import Any

import pytest
import torch
from tiny_student import TinyStudent
from torch import Tensor, nn

from kdas_edge.errors import UserError
from kdas_edge.quantize.layers import layer_graph
from kdas_edge.quantize.mixed import MixedNetwork
from kdas_edge.quantize.ptq import post_training_quantize
from kdas_edge.recipe import PtqRecipe

BASE: dict[str, Any] = {"model_type": "none", "activation_ranges": "tensor"}
STEM = "post_hooks.x__0.0"  # the quantiser of the network's input


def quantised(student: TinyStudent, **changes: Any) -> nn.Module:
    recipe = PtqRecipe(**{**BASE, **changes})
    return post_training_quantize(student.network, student.inputs(student.frames)[:4], recipe)


def quantisers(network: nn.Module) -> dict[str, nn.Module]:
    from nncf.torch.function_hook.wrapper import get_hook_storage

    return dict(get_hook_storage(network).named_hooks(remove_duplicate=False))


def shapes(network: nn.Module, weights: bool) -> set[tuple[int, ...]]:
    """Shapes of the ranges of weights (hooks before port 1 of a convolution) or of results."""
    return {
        tuple(module.scale_shape)  # type: ignore[arg-type]
        for name, module in quantisers(network).items()
        if ("conv" in name and "__1." in name if weights else name.startswith("post_hooks."))
    }


def input_range(network: nn.Module) -> tuple[float, float]:
    module: Any = quantisers(network)[STEM]
    low, span = module.input_low, module.input_range
    return float(low.detach().min()), float((low + span).detach().max())


@pytest.fixture(scope="module")
def base(student: TinyStudent) -> nn.Module:
    return quantised(student)


def test_activation_ranges_are_per_tensor_or_per_channel(
    student: TinyStudent, base: nn.Module
) -> None:
    assert shapes(base, weights=False) == {(1,)}
    per_channel = quantised(student, activation_ranges="channel")
    assert any(len(shape) == 4 for shape in shapes(per_channel, weights=False))


def test_weights_have_a_range_per_output_channel_unless_switched_off(
    student: TinyStudent, base: nn.Module
) -> None:
    assert any(shape[0] > 1 for shape in shapes(base, weights=True))
    assert shapes(quantised(student, weights_per_channel=False), weights=True) == {(1,)}


def test_the_performance_preset_makes_activations_symmetric(
    student: TinyStudent, base: nn.Module
) -> None:
    def kinds(network: nn.Module) -> set[str]:
        return {type(q).__name__ for n, q in quantisers(network).items() if n.startswith("post")}

    assert "AsymmetricQuantizer" in kinds(base)
    assert kinds(quantised(student, preset="performance")) == {"SymmetricQuantizer"}


@pytest.mark.parametrize("estimator", ["minmax", "mean_minmax", "median_minmax", "quantile"])
def test_range_estimators_give_the_ranges_that_they_are_named_after(
    estimator: str, student: TinyStudent
) -> None:
    frames = torch.cat(student.inputs(student.frames)[:4]).flatten(1)
    low, high = frames.min(1).values, frames.max(1).values
    expected: dict[str, tuple[Tensor, Tensor]] = {
        "minmax": (low.min(), high.max()),
        "mean_minmax": (low.mean(), high.mean()),
        "median_minmax": (low.quantile(0.5), high.quantile(0.5)),
        "quantile": (frames.quantile(1e-4, 1).mean(), frames.quantile(1 - 1e-4, 1).mean()),
    }
    found = input_range(quantised(student, range_estimator=estimator))
    # NNCF widens a range a little so that zero is on the grid of 256 levels
    step = float(high.max() - low.min()) / 255
    assert found == pytest.approx([float(value) for value in expected[estimator]], abs=1.5 * step)


@pytest.mark.parametrize("estimator", ["histogram", "mean_no_outliers"])
def test_other_estimators_reach_nncf_and_change_ranges(
    estimator: str, student: TinyStudent, base: nn.Module
) -> None:
    def ranges(network: nn.Module) -> Tensor:
        state = network.state_dict()
        return torch.cat([v.flatten() for k, v in state.items() if k.endswith("input_range")])

    other = ranges(quantised(student, range_estimator=estimator))
    assert other.shape == ranges(base).shape and not torch.equal(other, ranges(base))


def test_bias_correction_changes_biases_and_can_be_left_out(
    student: TinyStudent, base: nn.Module
) -> None:
    before = student.network.state_dict()

    def changed(network: nn.Module) -> list[str]:
        state = network.state_dict()
        return [key for key in before if not torch.equal(state[key], before[key])]

    assert changed(base) and all(key.endswith("bias") for key in changed(base))
    assert changed(quantised(student, fast_bias_correction=False)) == []


def test_overflow_fix_widens_the_range_of_the_weights(student: TinyStudent) -> None:
    def scales(network: nn.Module) -> dict[str, Tensor]:
        return {
            name: module.scale.detach()  # type: ignore[operator, union-attr]
            for name, module in quantisers(network).items()
            if "conv2d/" in name and "__1." in name
        }

    full = scales(quantised(student, overflow_fix="disable"))
    halved = scales(quantised(student, overflow_fix="enable"))
    first = scales(quantised(student, overflow_fix="first_layer"))
    stem = "pre_hooks.backbone/conv_stem/conv2d/0__1.0"
    for name, scale in full.items():
        wider = halved[name] / scale
        if "conv_dw" in name:  # added up in 32 bits
            torch.testing.assert_close(wider, torch.ones_like(wider), rtol=0.02, atol=0)
        elif name == stem:  # the largest weight on level 64 of 127
            torch.testing.assert_close(wider, torch.full_like(wider, 127 / 64), rtol=0.02, atol=0)
        else:  # 1×1: as wide as two neighbours need
            assert wider.min() > 0.98 and wider.max() < 2.02
    same = {name for name, scale in full.items() if torch.allclose(first[name], scale, rtol=1e-3)}
    assert stem in set(full) - same
    assert len(same) > len(full) - 3


def test_ignored_layers_keep_no_quantiser_and_others_do(
    student: TinyStudent, base: nn.Module
) -> None:
    ignored = ["backbone.blocks.3.0.conv_dw", "head1", "cim"]
    network = quantised(student, ignored=ignored)
    left = set(MixedNetwork(network).layers)
    before = set(MixedNetwork(base).layers)
    gone = before - left
    assert {"backbone.blocks.3.0.conv_dw", "head1", "cim.squeeze", "cim.mul"} <= gone
    # the call of this name that belongs to another block is still quantised
    assert "backbone.blocks.4.0.conv_dw" in left and "head2" in left
    assert all(
        layer == "head1" or layer.startswith(("cim", "backbone.blocks.3.0.conv_dw"))
        for layer in gone
    )


def test_layers_are_named_after_the_modules_that_own_their_weights(student: TinyStudent) -> None:
    graph = layer_graph(student.network, student.architecture.size)
    modules = dict(student.network.named_modules())
    convolutions = {name for name, module in modules.items() if isinstance(module, nn.Conv2d)}
    assert convolutions <= set(graph.operations)
    assert {"sam.matmul", "cim.mul", "cfm.interpolate"} <= set(graph.operations)
    assert len(graph.operations["cim.squeeze"]) == 2  # called twice, one layer
    assert not hasattr(student.network, "__nncf_hooks")


def test_an_unknown_layer_is_refused_with_the_nearest(student: TinyStudent) -> None:
    with pytest.raises(UserError, match=r"'backbone.blocks.3.0.convdw'.*conv_dw'"):
        quantised(student, ignored=["backbone.blocks.3.0.convdw"])
