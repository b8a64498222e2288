"""int8 weights lie on levels that every exporter rounds alike and that cannot saturate."""

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from tiny_student import SIZE, TinyStudent
from torch import Tensor, nn

from kdas_edge.export.onnx.export import to_onnx
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


def owners(network: nn.Module) -> dict[str, nn.Module]:
    """Weight → its layer."""
    layers = nn.Conv1d | nn.Conv2d | nn.Linear
    return {
        f"{name}.weight": module
        for name, module in network.named_modules()
        if isinstance(module, layers)
    }


def is_depthwise(layer: nn.Module | None) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.groups > 1


def is_pointwise(layer: nn.Module | None) -> bool:
    return isinstance(layer, nn.Linear) or (
        isinstance(layer, nn.Conv1d | nn.Conv2d)
        and layer.groups == 1
        and set(layer.kernel_size) == {1}
    )


def sum_of_two_products(weights: NDArray[np.float64]) -> float:
    """Largest that 16 bits have to hold: activations of 0…255 at two neighbouring channels."""
    rows = np.rint(weights.reshape(len(weights), -1))
    neighbours = np.stack([rows, np.pad(rows, ((0, 0), (0, 1)))[:, 1:]])
    above, below = neighbours.clip(min=0).sum(0), -neighbours.clip(max=0).sum(0)
    return 255 * float(max(above.max(), below.max()))


@pytest.fixture(scope="module")
def safe(student: TinyStudent) -> nn.Module:
    return quantised(student, "enable")


def test_no_two_products_saturate_and_no_largest_weight_lies_on_a_tie(safe: nn.Module) -> None:
    found, layers = levels(safe, rounded=False), owners(safe)
    assert {"sam.pool_rows", "sam.pool_columns"} <= found.keys()
    above_64 = 0
    for name, values in found.items():
        layer = layers.get(name)
        if is_depthwise(layer):
            assert np.abs(values).max() == pytest.approx(127, abs=1e-3)
            continue
        largest = np.abs(values).reshape(len(values), -1).max(axis=1)
        largest = largest[largest > 0]  # a pooling matrix has rows of zeros
        if is_pointwise(layer):
            # OpenVINO and ONNX Runtime add the products of neighbouring input channels
            assert sum_of_two_products(values) < 2**15, name
            # NNCF holds up the scale of a channel of next to nothing, and such a one stays
            assert np.mean(largest > 63) > 0.9, name
            assert not np.isclose(largest, 63.5, atol=1e-3).any(), name
            above_64 += int((largest > 65).sum())
        else:
            assert (np.isclose(largest, 64, atol=1e-3) | (largest < 63)).all(), name
            assert largest.max() == pytest.approx(64, abs=1e-3), name
            assert 2 * 255 * np.rint(largest).max() < 2**15
    # most channels have no two large neighbours, and gain levels
    pointwise = [values for name, values in found.items() if is_pointwise(layers.get(name))]
    assert above_64 > sum(map(len, pointwise)) / 2


def test_torch_openvino_and_onnx_hold_the_same_integers(safe: nn.Module) -> None:
    import openvino as ov

    def sorted_magnitudes(values: NDArray[np.generic]) -> bytes:
        # an exporter may transpose a constant, or turn its sign into that of the scale
        return np.sort(np.abs(values.astype(np.int16)).ravel()).tobytes()

    expected = {sorted_magnitudes(np.rint(values)) for values in levels(safe).values()}
    model = to_openvino(safe, SIZE)
    in_openvino = {
        sorted_magnitudes(operation.data)
        for operation in model.get_ops()
        if operation.get_type_name() == "Constant" and operation.get_element_type() == ov.Type.i8
    }
    assert in_openvino == expected
    stored = (
        onnx.numpy_helper.to_array(tensor) for tensor in to_onnx(safe, SIZE).graph.initializer
    )
    in_onnx = {
        sorted_magnitudes(values)
        for values in stored
        if values.dtype == np.int8 and values.ndim > 1
    }
    assert in_onnx == expected


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
