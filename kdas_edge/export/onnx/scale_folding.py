"""Fold activation scales per channel into the weights around them; every integer stays the same.

Before a depthwise convolution NNCF gives each channel its own range, for accuracy. ONNX Runtime has
no int8 convolution on either side of such a range; worse, a convolution that meets it directly is
fused into one that fails when it runs. But with the scale s_c of channel c and one scale s for all,

    round(x_c / s_c) = round((x_c · s / s_c) / s)

and the factor s / s_c is one more factor of the weights and bias that make channel c, its inverse
one more of the depthwise weights that read it. Both weights have a scale per output channel, so
that not one integer changes: what remains is one range per tensor, with the accuracy of one per
channel. (One exception: a channel that was almost zero in calibration has a range of some
ten-thousandths of the others' and a zero point of its own; behind a ReLU it takes that of the
others.)
"""

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from kdas_edge.export.onnx.qdq import GraphEditor

# ONNX Runtime stores a bias as int32 in units of activation scale times weight scale
_LARGEST_BIAS = 2.0**30
# of the widest range: below it, a channel was inactive in calibration
_INACTIVE = 1e-3

_Array = NDArray[Any]


def fold_channel_scales(editor: GraphEditor) -> int:
    """Replace activation scales per channel by one per tensor where the weights can absorb them.

    Args:
        editor: with quantisers rewritten and batch norms folded; it is changed.

    Returns:
        How many quantisers were changed.
    """
    return sum(_ScaleFolding(editor).apply(node) for node in list(editor.nodes))


class _ScaleFolding:
    def __init__(self, editor: GraphEditor) -> None:
        self.editor, self.constants = editor, editor.constants
        self.producers = {name: node for node in editor.nodes for name in node.output}
        self.users: dict[str, list[NodeProto]] = {}
        for node in editor.nodes:
            for name in node.input:
                self.users.setdefault(name, []).append(node)
        self.uses = Counter({name: len(nodes) for name, nodes in self.users.items()})
        self.uses.update(value.name for value in editor.model.graph.output)

    def apply(self, quantizer: NodeProto) -> bool:
        """Fold the scales of one QuantizeLinear into its neighbours, if that is exact."""
        if quantizer.op_type != "QuantizeLinear":
            return False
        scale, zero = (self.constants[name] for name in quantizer.input[1:3])
        readers = self.users.get(quantizer.output[0], [])
        if scale.size == 1 or _axis(quantizer) != 1 or not all(map(_dequantizes, readers)):
            return False
        clip = self.producers.get(quantizer.input[0])
        bounds = self.editor.clip_bounds(clip) if clip is not None else None
        conv = self.producers.get(clip.input[0]) if clip is not None and bounds else clip
        if conv is None or not self._is_foldable(conv) or self.uses[quantizer.input[0]] != 1:
            return False
        if bounds is not None and bounds[0] >= 0:
            zero = _common_zero_point(scale, zero)
        shared = bool((zero == zero[0]).all())
        if clip is not None and bounds is not None:
            levels = [np.rint(bound / scale.astype(np.float64)) + zero for bound in bounds]
            if bool((levels[0] <= 0).all() and (levels[1] >= 255).all()):
                # the quantiser saturates where the clip does
                quantizer.input[0] = conv.output[0]
                self.editor.nodes.remove(clip)
            elif not (shared and np.isinf(bounds[1])):
                # only a ReLU lets a factor pass, and nothing lets a shift pass
                return False
        common = scale.max().astype(np.float32)
        middle = zero[0] if shared else np.asarray(np.rint(zero.mean()), zero.dtype)
        factor = common.astype(np.float64) / scale
        shift = (zero.astype(np.float64) - float(middle)) * float(common)
        self._scale_producer(conv, factor, shift)
        per_tensor = [f"{quantizer.output[0]}/{part}" for part in ("tensor_scale", "tensor_zero")]
        self.constants.update(zip(per_tensor, (common, np.asarray(middle)), strict=True))
        _set_parameters(quantizer, per_tensor)
        for reader in readers:
            depthwise = self.users.get(reader.output[0], [])
            if shared and depthwise and all(self._absorbs(node, scale) for node in depthwise):
                for node in depthwise:
                    weight = self.producers[node.input[1]]
                    self.editor.scale_weight(weight, 1 / factor)
                _set_parameters(reader, per_tensor)
        return True

    def _is_foldable(self, conv: NodeProto) -> bool:
        """True for a convolution whose weights and result have no other reader."""
        return (
            conv.op_type == "Conv"
            and self.uses[conv.output[0]] == 1
            and self._own_int8_weight(conv) is not None
        )

    def _absorbs(self, node: NodeProto, scale: _Array) -> bool:
        """True for a depthwise convolution that can take one factor per input channel."""
        weight = self._own_int8_weight(node) if node.op_type == "Conv" else None
        group = next((a.i for a in node.attribute if a.name == "group"), 1)
        if weight is None or group != scale.size:
            return False
        if len(self.constants[weight.input[0]]) != group:
            return False
        if len(node.input) < 3:
            return True
        step = scale.astype(np.float64) * self.constants[weight.input[1]].reshape(-1)
        return bool((np.abs(self.constants[node.input[2]]) < _LARGEST_BIAS * step).all())

    def _own_int8_weight(self, conv: NodeProto) -> NodeProto | None:
        """The DequantizeLinear of a symmetric weight with output channels first, if not shared."""
        weight = self.producers.get(conv.input[1])
        if (
            weight is None
            or weight.op_type != "DequantizeLinear"
            or self.uses[weight.output[0]] != 1
            or any(name not in self.constants or self.uses[name] != 1 for name in weight.input)
            or self.constants[weight.input[2]].any()
            or (self.constants[weight.input[1]].size > 1 and _axis(weight) != 0)
        ):
            return None
        return weight

    def _scale_producer(self, conv: NodeProto, factor: _Array, shift: _Array) -> None:
        self.editor.scale_weight(self.producers[conv.input[1]], factor)
        bias = self.constants[conv.input[2]] if len(conv.input) > 2 else np.zeros(len(factor))
        name = f"{conv.output[0]}/scaled_bias"
        self.constants[name] = (bias.astype(np.float64) * factor + shift).astype(np.float32)
        inputs = [conv.input[0], conv.input[1], name]
        del conv.input[:]
        conv.input.extend(inputs)


def _common_zero_point(scale: _Array, zero: _Array) -> _Array:
    """Give inactive channels the zero point of the active ones, where those share one."""
    active = scale > _INACTIVE * scale.max()
    points = set(zero[active].tolist())
    return np.where(active, zero, zero[active][0]) if len(points) == 1 else zero


def _dequantizes(node: NodeProto) -> bool:
    return node.op_type == "DequantizeLinear"


def _axis(node: NodeProto) -> int:
    return next((a.i for a in node.attribute if a.name == "axis"), 1)


def _set_parameters(node: NodeProto, names: list[str]) -> None:
    """Give a quantiser one scale and zero point for the whole tensor."""
    fresh = helper.make_node(node.op_type, [node.input[0], *names], node.output, name=node.name)
    node.CopyFrom(fresh)
