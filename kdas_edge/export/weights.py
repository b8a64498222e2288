"""Weights of 8 bits, arithmetic in float: a quarter of the size, no calibration, no quantiser.

Each output channel of a convolution or linear layer has one scale, its largest weight over 127. The
torch network is rounded to that grid before the export, so that it is the reference for both
formats; the grid survives everything that an exporter does per output channel (folding a batch
norm, transposing), and is found again in the exported constants, where it is stored as integers.
"""

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import nn

from kdas_edge.export.onnx import finish
from kdas_edge.export.openvino import import_openvino

if TYPE_CHECKING:
    import openvino as ov

_LARGEST = 127
# Distance from the grid, in steps, that float32 folding may leave. Any other constant, such as a
# resize matrix, lies up to half a step off.
_OFF_GRID = 0.02

_Array = NDArray[Any]


def round_weights(network: nn.Module) -> nn.Module:
    """Copy a float network with the weights of its convolutions and linear layers on int8 grids.

    Args:
        network: float; it is not changed.

    Returns:
        The copy, in eval mode. Its weights are float32 multiples -127…127 of a scale per output
        channel (axis 0).
    """
    rounded = copy.deepcopy(network).eval()
    with torch.no_grad():
        for module in rounded.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
                weight = module.weight
                scale = _scale(weight.detach().cpu().numpy(), 0)
                steps = torch.from_numpy(scale).to(weight.device)
                weight.copy_((weight.double() / steps).round() * steps)
    return rounded


def on_grid(weights: _Array, *axes: int) -> tuple[_Array, _Array] | None:
    """Find the integers of weights that were rounded.

    Args:
        weights: float constant.
        axes: of the output channels.

    Returns:
        int8 integers of the same shape, and float32 scales that broadcast; None where the weights
        lie on no grid, so that storing them as integers would change them.
    """
    scale = _scale(weights, *axes)
    steps = weights.astype(np.float64) / scale
    integers = np.rint(steps)
    if weights.size == 0 or np.abs(steps - integers).max() > _OFF_GRID:
        return None
    return integers.astype(np.int8), scale.astype(np.float32)


def _scale(weights: _Array, *axes: int) -> _Array:
    """Float64 scale per channel, broadcastable; 1 for a channel of zeros."""
    others = tuple(axis for axis in range(weights.ndim) if axis not in axes)
    largest = np.abs(weights.astype(np.float64)).max(axis=others, keepdims=True)
    scale: _Array = np.where(largest == 0, 1.0, largest / _LARGEST)
    return scale


def store_int8_in_onnx(core: ModelProto) -> ModelProto:
    """Store rounded weights as int8 constants, cast and multiplied by a scale per output channel.

    Not behind a DequantizeLinear: ONNX Runtime never folds that one, computes it anew at every
    inference (EfficientNet-B0 at 256 px: 49 ms, instead of the 17 ms of fp32), and quantises the
    activations of linear layers on the way. Cast and Mul it folds when it loads the file.

    Args:
        core: from `to_onnx`, of a network from `round_weights`; it is not changed.
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
            found = None if output in stored else on_grid(constants[name], axis)
            if found is not None:
                constants[f"{output}/int8"], constants[f"{output}/scale"] = found
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
    """Nodes that make the float weight `name` of its integers and scales."""
    integers, floats, scale = f"{name}/int8", f"{name}/float", f"{name}/scale"
    return [
        helper.make_node("Cast", [integers], [floats], name=floats, to=TensorProto.FLOAT),
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


def store_int8_in_openvino(core: "ov.Model") -> "ov.Model":
    """Store rounded weights as int8 constants, converted and multiplied by a scale per channel.

    Args:
        core: from `to_openvino`, of a network from `round_weights`; it is not changed.
    """
    import_openvino()
    from openvino import opset13 as op

    model = core.clone()
    for node in model.get_ordered_ops():
        axes = _openvino_channel_axes(node)
        source = node.input_value(1).get_node() if axes else None
        if source is None or source.get_type_name() != "Constant":
            continue
        found = on_grid(source.get_data(), *axes)
        if found is None:
            continue
        integers, scale = found
        name = source.get_friendly_name()
        stored = op.constant(integers, name=f"{name}/int8")
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
