"""7-bit weights lie on levels that every exporter rounds alike and that cannot saturate."""

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from tiny_student import SIZE, TinyStudent
from torch import Tensor, nn

from kdas_edge.export.onnx import to_onnx
from kdas_edge.export.openvino import to_openvino
from kdas_edge.quantize.ptq import post_training_quantize
from kdas_edge.recipe import PtqRecipe


def quantised(student: TinyStudent, overflow_fix: str) -> nn.Module:
    recipe = PtqRecipe.model_validate({"overflow_fix": overflow_fix, "activation_ranges": "tensor"})
    return post_training_quantize(student.network, student.inputs(student.frames)[:2], recipe)


def levels(network: nn.Module, rounded: bool = True) -> dict[str, NDArray[np.float64]]:
    """Constant → its values in levels of its quantiser, as torch rounds them or before that."""
    named = [*network.named_parameters(), *network.named_buffers()]
    names = {value.data_ptr(): name for name, value in named}
    found: dict[str, NDArray[np.float64]] = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        name = names.get(inputs[0].data_ptr())
        if type(module).__name__ == "SymmetricQuantizer" and name is not None:
            scale = module.scale.detach().double()  # type: ignore[operator]
            found[name] = (
                127 * (output if rounded else inputs[0]).detach().double() / scale
            ).numpy()

    hooks = [module.register_forward_hook(note) for module in network.modules()]
    with torch.no_grad():
        network(torch.zeros(1, 3, SIZE, SIZE))
    for hook in hooks:
        hook.remove()
    return found


def depthwise(network: nn.Module) -> set[str]:
    return {
        f"{name}.weight"
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups > 1
    }


@pytest.fixture(scope="module")
def safe(student: TinyStudent) -> nn.Module:
    return quantised(student, "enable")


def test_the_largest_weight_of_every_channel_lies_on_a_level_that_cannot_saturate(
    safe: nn.Module,
) -> None:
    found = levels(safe, rounded=False)
    assert {"sam.pool_rows", "sam.pool_columns"} <= found.keys()
    full = depthwise(safe)
    assert full & found.keys()
    for name, values in found.items():
        if name in full:
            assert np.abs(values).max() == pytest.approx(127, abs=1e-3)
            continue
        largest = np.abs(values).reshape(len(values), -1).max(axis=1)
        # a pooling matrix has one scale for a whole column, and rows of zeros
        assert largest[largest > 0] == pytest.approx(64, abs=1e-3), name
        # two products of such a weight and an activation of 255 fit into 16 bits
        assert 2 * 255 * np.rint(np.abs(values)).max() < 2**15


def test_torch_openvino_and_onnx_hold_the_same_integers(safe: nn.Module) -> None:
    import openvino as ov

    def sorted_magnitudes(values: NDArray[np.generic]) -> bytes:
        # an exporter may transpose a constant, or turn its sign into that of the scale
        return np.sort(np.abs(values.astype(np.int16)).ravel()).tobytes()

    expected = Counter(sorted_magnitudes(np.rint(values)) for values in levels(safe).values())
    model = to_openvino(safe, SIZE)
    in_openvino = Counter(
        sorted_magnitudes(operation.data)
        for operation in model.get_ops()
        if operation.get_type_name() == "Constant" and operation.get_element_type() == ov.Type.i8
    )
    assert set(in_openvino) == set(expected)
    stored = (
        onnx.numpy_helper.to_array(tensor) for tensor in to_onnx(safe, SIZE).graph.initializer
    )
    in_onnx = {
        sorted_magnitudes(values)
        for values in stored
        if values.dtype == np.int8 and values.ndim > 1
    }
    assert in_onnx == set(expected)


def test_an_export_leaves_the_network_as_it_was(safe: nn.Module) -> None:
    before = {name: value.clone() for name, value in safe.state_dict().items()}
    to_openvino(safe, SIZE)
    after = safe.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_without_the_fix_all_levels_are_used(student: TinyStudent) -> None:
    found = levels(quantised(student, "disable"))
    assert all(np.abs(values).max() > 126 for values in found.values())


def test_the_fix_of_the_first_layer_touches_no_other(student: TinyStudent) -> None:
    found = levels(quantised(student, "first_layer"))
    halved = {name for name, values in found.items() if np.abs(values).max() < 100}
    assert halved == {"backbone.conv_stem.weight"}
    assert np.abs(found["backbone.conv_stem.weight"]).max() == pytest.approx(64, abs=1e-3)
