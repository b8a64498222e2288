"""Store weights in 8 or 16 bits and compute in float: a quarter or half of the size, uncalibrated.

Each output channel of a convolution or linear layer has one scale, its largest weight over 127 (or
1, where its weights are float16). The torch network is rounded to that grid before the export, so
that it is the reference for both formats; the grid survives everything that an exporter does per
output channel (folding a batch norm, transposing), and is found again in the exported constants,
where it is stored in few bits.
"""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import nn

from kdas_edge.export.onnx.export import finish
from kdas_edge.export.openvino import import_openvino

if TYPE_CHECKING:
    import openvino as ov

# Distance from the grid, in its steps, that float32 folding may leave. Any other constant, such as
# a resize matrix, lies up to half a step off.
_OFF_GRID = 0.02

_Array = NDArray[Any]
_Network = TypeVar("_Network", bound=nn.Module)


@dataclass(frozen=True)
class WeightGrid:
    """The values that weights are rounded to: numbers of `dtype` times a scale per output channel.

    Attributes:
        dtype: as they are stored.
        largest: the number of a channel's largest weight.
    """

    dtype: "type[np.int8] | type[np.float16]"
    largest: int

    def nearest(self, values: _Array) -> _Array:
        """Round float64 values to numbers of the grid."""
        whole = np.rint(values) if self.dtype is np.int8 else values
        return whole.astype(self.dtype)

    def step(self, numbers: _Array) -> _Array:
        """How far it is from numbers of the grid to the next ones, float64."""
        if self.dtype is np.int8:
            return np.ones(numbers.shape)
        return np.spacing(np.abs(numbers)).astype(np.float64)


INT8 = WeightGrid(np.int8, 127)
# 11 bits of each weight, relative to itself: no mask moves visibly
HALF = WeightGrid(np.float16, 1)


def round_weights(network: _Network, grid: WeightGrid) -> _Network:
    """Copy a float network with the weights of its convolutions and linear layers on grids.

    Args:
        network: float; it is not changed.
        grid: `INT8` or `HALF`.

    Returns:
        The copy, in eval mode. Its weights are float32, numbers of the grid times a scale per
        output channel (axis 0).
    """
    rounded = copy.deepcopy(network).eval()
    with torch.no_grad():
        for module in rounded.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
                values = module.weight.detach().cpu().numpy()
                scale = _scale(values, grid, 0)
                numbers = grid.nearest(values.astype(np.float64) / scale)
                module.weight.copy_(torch.from_numpy(numbers.astype(np.float64) * scale))
    return rounded


def on_grid(weights: _Array, grid: WeightGrid, *axes: int) -> tuple[_Array, _Array] | None:
    """Find the numbers of weights that were rounded.

    Args:
        weights: float constant.
        grid: that they were rounded to.
        axes: of the output channels.

    Returns:
        Numbers of the grid's type and the same shape, and float32 scales that broadcast; None
        where the weights lie on no such grid, so that storing them so would change them.
    """
    scale = _scale(weights, grid, *axes)
    steps = weights.astype(np.float64) / scale
    numbers = grid.nearest(steps)
    if weights.size == 0 or (np.abs(steps - numbers) / grid.step(numbers)).max() > _OFF_GRID:
        return None
    return numbers, scale.astype(np.float32)


def _scale(weights: _Array, grid: WeightGrid, *axes: int) -> _Array:
    """Float64 scale per channel, broadcastable; 1 for a channel of zeros."""
    others = tuple(axis for axis in range(weights.ndim) if axis not in axes)
    largest = np.abs(weights.astype(np.float64)).max(axis=others, keepdims=True)
    scale: _Array = np.where(largest == 0, 1.0, largest / grid.largest)
    return scale


def store_in_onnx(core: ModelProto, grid: WeightGrid) -> ModelProto:
    """Store rounded weights in few bits, cast and multiplied by a scale per output channel.

    Not behind a DequantizeLinear: ONNX Runtime never folds that one, computes it anew at every
    inference (EfficientNet-B0 at 256 px: 49 ms, instead of the 17 ms of fp32), and quantises the
    activations of linear layers on the way. Cast and Mul it folds when it loads the file.

    Args:
        core: from `to_onnx`, of a network from `round_weights`; it is not changed.
        grid: that it was rounded to.
    """
    model = ModelProto()
    model.CopyFrom(core)
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    stored: set[str] = set()
    nodes = []
    for node in graph.node:
        axis = _onnx_channel_axis(node)
        name = node.input[1] if axis is not None else ""
        if axis is not None and name in constants and constants[name].ndim > 1:
            # a weight that two nodes share has one form per axis
            output = f"{name}/axis{axis}"
            found = None if output in stored else on_grid(constants[name], grid, axis)
            if found is not None:
                constants[f"{output}/stored"], constants[f"{output}/scale"] = found
                nodes += _restore(output)
                stored.add(output)
            if output in stored:
                node.input[1] = output
        nodes.append(node)
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    used = {name for node in kept for name in node.input}
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(
        numpy_helper.from_array(constants[name], name) for name in sorted(used & constants.keys())
    )
    return finish(model)


def _restore(name: str) -> list[NodeProto]:
    """Nodes that make the float weight `name` of its stored numbers and scales."""
    numbers, floats, scale = f"{name}/stored", f"{name}/float", f"{name}/scale"
    return [
        helper.make_node("Cast", [numbers], [floats], name=floats, to=TensorProto.FLOAT),
        helper.make_node("Mul", [floats, scale], [name], name=name),
    ]


def _onnx_channel_axis(node: NodeProto) -> int | None:
    """Axis of the output channels in a node's weight, None for a node without one."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "MatMul":
        return 1
    if node.op_type == "Gemm":
        return 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
    return None


def store_in_openvino(core: "ov.Model", grid: WeightGrid) -> "ov.Model":
    """Store rounded weights in few bits, converted and multiplied by a scale per channel.

    Args:
        core: from `to_openvino`, of a network from `round_weights`; it is not changed.
        grid: that it was rounded to.
    """
    import_openvino()
    from openvino import opset13 as op

    model = core.clone()
    for node in model.get_ordered_ops():
        axes = _openvino_channel_axes(node)
        source = node.input_value(1).get_node() if axes else None
        if source is None or source.get_type_name() != "Constant":
            continue
        found = on_grid(source.get_data(), grid, *axes)
        if found is None:
            continue
        numbers, scale = found
        name = source.get_friendly_name()
        stored = op.constant(numbers, name=f"{name}/stored")
        steps = op.constant(scale, name=f"{name}/scale")
        floats = op.convert(stored, "f32", name=f"{name}/float")
        node.input(1).replace_source_output(op.multiply(floats, steps, name=name).output(0))
    return model


def _openvino_channel_axes(node: "ov.Node") -> tuple[int, ...]:
    kind = node.get_type_name()
    if kind == "Convolution":
        return (0,)
    if kind == "GroupConvolution":
        return (0, 1)
    if kind == "MatMul" and len(node.input_value(1).get_partial_shape()) == 2:
        return (0,) if node.get_attributes()["transpose_b"] else (1,)
    return ()
