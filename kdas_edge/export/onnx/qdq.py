"""Rewrite the quantisers of an exported ONNX graph as QDQ pairs that ONNX Runtime runs in int8.

NNCF leaves every quantiser in the exported graph as `org.openvinotoolkit.FakeQuantize`, which only
OpenVINO knows. Each is exactly one QuantizeLinear/DequantizeLinear pair, so they are rewritten here
in the graph, and rearrangements that change no value let ONNX Runtime see its int8 patterns:

1. A quantised constant is stored as int8 with its DequantizeLinear only (a quarter of the size).
2. A BatchNormalization after a quantised convolution moves into the scales and the bias. The float
   exporter folds it into the weights; behind a quantiser it cannot.
3. A Transpose of a quantised constant is done once, here.
4. An activation range per channel moves into the weights around it (`scale_folding.py`).
5. A Relu or Clip whose result is only quantised is dropped where the quantiser saturates at the
   same levels: a convolution must meet its quantiser to run in int8.
"""

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from kdas_edge.errors import KdasEdgeError

# 18 is the first with an antialiased Resize, the one that equals the resize that trains
OPSET = 18
_OPENVINO_DOMAIN = "org.openvinotoolkit"
_Array = NDArray[Any]


class GraphEditor:
    """An ONNX graph as a list of nodes and a table of constants; no pass changes a value."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.nodes: list[NodeProto] = list(model.graph.node)
        self.constants: dict[str, _Array] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        }

    def inline_constants(self) -> None:
        """Make Constant nodes and Identities of constants plain constants."""
        alias: dict[str, str] = {}
        kept = []
        for node in self.nodes:
            self.rename(node, alias)
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            elif node.op_type == "Identity" and node.input[0] in self.constants:
                alias[node.output[0]] = node.input[0]
            else:
                kept.append(node)
        self.nodes = kept

    def rewrite_fake_quantize(self) -> None:
        """FakeQuantize(x, low, high) becomes QuantizeLinear and DequantizeLinear."""
        nodes: list[NodeProto] = []
        for node in self.nodes:
            if node.op_type in ("Max", "Min") and all(i in self.constants for i in node.input):
                # NNCF clamps a weight of half range (overflow_fix) before its quantiser
                clamp = np.maximum if node.op_type == "Max" else np.minimum
                low, high = (self.constants[name] for name in node.input)
                self.constants[node.output[0]] = clamp(low, high)
                continue
            if node.domain != _OPENVINO_DOMAIN or node.op_type != "FakeQuantize":
                nodes.append(node)
                continue
            source, name = node.input[0], node.output[0]
            low = self.constants[node.input[1]].astype(np.float64)
            high = self.constants[node.input[2]].astype(np.float64)
            levels = next(a.i for a in node.attribute if a.name == "levels")
            if source in self.constants:
                nodes.append(self._quantized_constant(source, name, low, high, levels))
            else:
                nodes.extend(self._quantize_pair(source, name, low, high, levels))
        self.nodes = nodes

    def _quantize_pair(
        self, source: str, name: str, low: _Array, high: _Array, levels: int
    ) -> list[NodeProto]:
        if levels != 256:
            raise KdasEdgeError(f"a quantiser of {levels} levels has no ONNX form; use 8 bits")
        scale, zero, axis = _scale_and_zero_point(low, high, levels)
        # always unsigned: the same grid shifted by 128, and the x86 kernels need u8 activations
        parameters = [f"{name}/scale", f"{name}/zero_point"]
        self.constants[parameters[0]] = scale.astype(np.float32)
        self.constants[parameters[1]] = zero.clip(0, 255).astype(np.uint8)
        attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
        return [
            helper.make_node(
                "QuantizeLinear",
                [source, *parameters],
                [f"{name}/quantized"],
                name=f"{name}/quantize",
                **attributes,
            ),
            helper.make_node(
                "DequantizeLinear",
                [f"{name}/quantized", *parameters],
                [name],
                name=f"{name}/dequantize",
                **attributes,
            ),
        ]

    def _quantized_constant(
        self, source: str, name: str, low: _Array, high: _Array, levels: int
    ) -> NodeProto:
        values = self.constants[source].astype(np.float64)
        scale, zero, axis = _scale_and_zero_point(low, high, levels)
        shape = [1] * values.ndim
        if axis is not None:
            shape[axis] = -1
        wide_scale, wide_zero = scale.reshape(shape), zero.reshape(shape)
        grid = np.clip(np.rint(values / wide_scale) + wide_zero, 0, levels - 1)
        symmetric = np.all(zero == (levels if levels % 2 == 0 else levels - 1) // 2)
        if symmetric:
            grid, zero, kind = grid - wide_zero, np.zeros_like(zero), np.int8
        else:
            kind = np.uint8  # type: ignore[assignment]
        inputs = [f"{name}/int8", f"{name}/scale", f"{name}/zero_point"]
        self.constants[inputs[0]] = grid.astype(kind)
        self.constants[inputs[1]] = scale.astype(np.float32)
        self.constants[inputs[2]] = zero.astype(kind)
        attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
        return helper.make_node(
            "DequantizeLinear",
            inputs,
            [name],
            name=f"{name}/dequantize",
            **attributes,
        )

    def fold_batch_norm(self) -> None:
        """Move a BatchNormalization after Conv(DequantizeLinear) into scale and bias, exactly."""
        producers = {node.output[0]: node for node in self.nodes}
        uses = Counter(name for node in self.nodes for name in node.input)
        kept = []
        for node in self.nodes:
            conv = producers.get(node.input[0]) if node.op_type == "BatchNormalization" else None
            weight = producers.get(conv.input[1]) if conv and conv.op_type == "Conv" else None
            if (
                conv is None
                or weight is None
                or weight.op_type != "DequantizeLinear"
                or uses[conv.output[0]] != 1
                or uses[weight.output[0]] != 1
                or self.constants[weight.input[2]].any()
            ):
                kept.append(node)
                continue
            gamma, beta, mean, variance = (
                self.constants[name].astype(np.float64) for name in node.input[1:5]
            )
            epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
            factor = gamma / np.sqrt(variance + epsilon)
            self.scale_weight(weight, factor)
            bias = self.constants[conv.input[2]] if len(conv.input) > 2 else np.zeros_like(mean)
            name = f"{conv.output[0]}/bias"
            self.constants[name] = ((bias - mean) * factor + beta).astype(np.float32)
            inputs = [conv.input[0], conv.input[1], name]
            del conv.input[:]
            conv.input.extend(inputs)
            # downstream nodes keep their input's name
            conv.output[0] = node.output[0]
        self.nodes = kept

    def scale_weight(self, node: NodeProto, factor: _Array) -> None:
        """Multiply the output channels (axis 0) of a symmetric int8 weight by `factor`."""
        grid = self.constants[node.input[0]].astype(np.int16)
        channels = grid.shape[0]
        scale = np.broadcast_to(self.constants[node.input[1]].reshape(-1), (channels,))
        sign = np.sign(factor).astype(np.int16).reshape(-1, *[1] * (grid.ndim - 1))
        scale = scale.astype(np.float64) * np.abs(factor)
        # a channel of factor 0 has weights of 0 from here on, and any scale will do
        scale[scale == 0] = 1.0
        self.constants[node.input[0]] = (grid * sign).clip(-128, 127).astype(np.int8)
        self.constants[node.input[1]] = scale.astype(np.float32)
        self.constants[node.input[2]] = np.zeros(channels, np.int8)
        del node.attribute[:]
        node.attribute.append(helper.make_attribute("axis", 0))

    def fold_constant_transposes(self) -> None:
        """Transpose(DequantizeLinear(constant)) becomes DequantizeLinear(transposed constant)."""
        producers = {node.output[0]: node for node in self.nodes}
        uses = Counter(name for node in self.nodes for name in node.input)
        alias: dict[str, str] = {}
        kept = []
        for node in self.nodes:
            self.rename(node, alias)
            source = producers.get(node.input[0]) if node.op_type == "Transpose" else None
            if (
                source is None
                or source.op_type != "DequantizeLinear"
                or source.input[0] not in self.constants
                or uses[source.output[0]] != 1
            ):
                kept.append(node)
                continue
            order = list(next(a.ints for a in node.attribute if a.name == "perm"))
            grid = self.constants[source.input[0]]
            self.constants[source.input[0]] = np.ascontiguousarray(grid.transpose(order))
            for attribute in source.attribute:
                if attribute.name == "axis":
                    attribute.i = order.index(attribute.i)
            alias[node.output[0]] = source.output[0]
        self.nodes = kept

    def drop_saturated_clips(self) -> None:
        """Relu(x) or Clip(x) before QuantizeLinear goes where saturation does the same."""
        consumers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                consumers.setdefault(name, []).append(node)
        outputs = {value.name for value in self.model.graph.output}
        alias: dict[str, str] = {}
        kept = []
        for node in self.nodes:
            self.rename(node, alias)
            bounds = self.clip_bounds(node)
            users = consumers.get(node.output[0], [])
            if (
                bounds is None
                or not users
                or node.output[0] in outputs
                or not all(self._saturates(user, *bounds) for user in users)
            ):
                kept.append(node)
            else:
                alias[node.output[0]] = node.input[0]
        self.nodes = kept

    def clip_bounds(self, node: NodeProto) -> tuple[float, float] | None:
        """Lower and upper bound of a Relu or of a Clip with constant bounds, else None."""
        if node.op_type == "Relu":
            return 0.0, np.inf
        if node.op_type != "Clip" or len(node.input) != 3:
            return None
        if not all(name in self.constants for name in node.input[1:]):
            return None
        return float(self.constants[node.input[1]]), float(self.constants[node.input[2]])

    def _saturates(self, node: NodeProto, low: float, high: float) -> bool:
        """True if QuantizeLinear gives its extreme levels beyond these bounds anyway."""
        if node.op_type != "QuantizeLinear":
            return False
        scale, zero = self.constants[node.input[1]], self.constants[node.input[2]]
        if scale.size != 1 or zero.dtype != np.uint8:
            return False
        level = [np.rint(bound / float(scale)) + float(zero) for bound in (low, high)]
        return bool(level[0] <= 0 and level[1] >= 255)

    def build(self) -> ModelProto:
        """Return the model with the edited nodes and the constants still used."""
        graph = self.model.graph
        used = {name for node in self.nodes for name in node.input}
        del graph.node[:]
        graph.node.extend(self.nodes)
        del graph.initializer[:]
        graph.initializer.extend(
            numpy_helper.from_array(np.asarray(self.constants[name]), name)
            for name in sorted(used & self.constants.keys())
        )
        return self.model

    @staticmethod
    def rename(node: NodeProto, alias: dict[str, str]) -> None:
        """Replace the inputs of a node that have another name in `alias`."""
        for index, name in enumerate(node.input):
            node.input[index] = alias.get(name, name)


def _scale_and_zero_point(
    low: _Array, high: _Array, levels: int
) -> tuple[_Array, _Array, int | None]:
    """Scale and zero point, on the grid 0…levels-1, of a FakeQuantize's range.

    Returns:
        scale, zero point (both 0-d or 1-d float64) and the channel axis, None for per-tensor.
    """
    scale = (high - low) / (levels - 1)
    zero = np.rint(-low / scale)
    axes = [axis for axis, length in enumerate(scale.shape) if length > 1]
    if not axes:
        return scale.reshape(()), zero.reshape(()), None
    return scale.reshape(-1), zero.reshape(-1), axes[0]
