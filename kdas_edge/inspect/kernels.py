"""How many layers of an int8 file a runtime computes in int8, and why not the others.

Read from the graph that the runtime executes: int8 weights in the file prove nothing.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kdas_edge.inspect.layers import ARITHMETIC, MATMUL, is_integer, kind_of, precision_name
from kdas_edge.runtime.targets import cpu_target

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

    from kdas_edge.inspect.openvino import ExecutedLayer

PER_CHANNEL = "beside an activation range per channel, for which there is no int8 kernel"
FLOAT_WEIGHT = "with weights that were not quantised"
FLOAT_INPUT = "with an input that was not quantised"
FLOAT_RESULT = "whose result goes on in float"
FUSED_ACTIVATION = "with an activation that the next quantiser does not take over"

# they move values and change none; both runtimes
_MOVES = {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "ReorderInput", "ReorderOutput"}
# a fused convolution takes another's result as the summand of a residual; QuickGelu is x·σ(αx)
_PLAIN = {"FusedConv": "Add", "QuickGelu": "SiLU"}
# what OpenVINO lists without computing
_NO_WORK = {"Const", "Input", "Output", "Reshape", "Reorder"}

_Array = NDArray[Any]


@dataclass(frozen=True)
class Kernels:
    """Layers of one file in one runtime.

    Attributes:
        convolutions: how many there are.
        convolutions_int8: of which run in int8.
        products: matrix products (linear layers, attention).
        products_int8: of which run in int8.
        reasons: why convolutions run in float, with how many of them.
        result_goes_to: operators that take a convolution's result in float (activations such as
            SiLU, residual sums, resizes), by type.
        conversions: stand-alone conversions of activations between int8 and float, each a pass over
            memory that fp32 does not need.
        others: other operators in float by type, the most frequent first.
    """

    convolutions: int
    convolutions_int8: int
    products: int
    products_int8: int
    reasons: dict[str, int] = field(default_factory=dict)
    result_goes_to: dict[str, int] = field(default_factory=dict)
    conversions: int = 0
    others: dict[str, int] = field(default_factory=dict)

    def counts(self) -> str:
        """How much of the arithmetic runs in int8, in words."""
        parts = [f"{self.convolutions_int8} of {self.convolutions} convolutions"]
        if self.products:
            parts.append(f"{self.products_int8} of {self.products} matrix products")
        return f"{' and '.join(parts)} in int8"

    def explanation(self) -> str:
        """Why int8 is not faster, in one line of words."""
        parts = [self.counts()]
        if self.reasons:
            listed = ", ".join(
                f"{count} {reason}{self._takers() if reason == FLOAT_RESULT else ''}"
                for reason, count in self.reasons.items()
            )
            parts.append(f"in float {listed}")
        if self.conversions:
            plural = "s" if self.conversions > 1 else ""
            parts.append(f"{self.conversions} conversion{plural} of activations to or from int8")
        if self.others:
            frequent = list(self.others.items())[:4]
            listed = ", ".join(f"{count} {kind}" for kind, count in frequent)
            parts.append(f"also in float {listed}")
        return "; ".join(parts)

    def _takers(self) -> str:
        return f" (to {', '.join(list(self.result_goes_to)[:4])})" if self.result_goes_to else ""

    def as_json(self) -> dict[str, Any]:
        """A JSON object with the numbers."""
        return asdict(self)


def kernels_of(path: Path) -> Kernels:
    """Load a file in its runtime on this CPU and count what is run.

    Args:
        path: `.xml` for OpenVINO, `.onnx` for ONNX Runtime.
    """
    target = cpu_target(path, threads=1)
    if target.runtime == "openvino":
        from kdas_edge.inspect.openvino import executed_layers
        from kdas_edge.runtime.backends.openvino import compile_model

        return _openvino_kernels(executed_layers(compile_model(path, target)))
    from kdas_edge.inspect.onnxruntime import optimised_graph

    return onnxruntime_kernels(optimised_graph(path, target))


def onnxruntime_kernels(model: "ModelProto") -> Kernels:
    """Count the kernels of a graph that ONNX Runtime has optimised."""
    graph = _Graph(model)
    tally = _Tally()
    for node in graph.nodes:
        kind, int8 = kind_of(node.op_type), is_integer(node.op_type)
        if kind in ARITHMETIC:
            tally.count(kind, int8)
            if kind != MATMUL and not int8:
                reason = graph.why_float(node)
                tally.reasons[reason] += 1
                if reason == FLOAT_RESULT:
                    tally.takers.update(graph.float_takers(node))
        elif node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            tally.conversions += not graph.is_constant(node.input[0])
        elif node.op_type not in _MOVES:
            tally.others[_PLAIN.get(node.op_type, node.op_type)] += 1
    return tally.kernels()


def _openvino_kernels(layers: Sequence["ExecutedLayer"]) -> Kernels:
    """Count the kernels of the graph that OpenVINO's CPU plugin runs."""
    tally = _Tally()
    for layer in layers:
        kind, int8 = kind_of(layer.operator), precision_name(layer.precision) == "int8"
        if kind in ARITHMETIC:
            tally.count(kind, int8)
            if kind != MATMUL and not int8:
                tally.reasons[FLOAT_INPUT] += 1
        elif layer.operator == "FakeQuantize":
            tally.conversions += 1
        elif layer.operator not in _NO_WORK and not int8:
            tally.others[layer.operator] += 1
    return tally.kernels()


class _Tally:
    """Counts on the way to `Kernels`."""

    def __init__(self) -> None:
        self.layers: Counter[tuple[str, bool]] = Counter()
        self.reasons: Counter[str] = Counter()
        self.takers: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self.conversions = 0

    def count(self, kind: str, int8: bool) -> None:
        self.layers["product" if kind == MATMUL else "convolution", int8] += 1

    def kernels(self) -> Kernels:
        layers = self.layers
        return Kernels(
            convolutions=layers["convolution", False] + layers["convolution", True],
            convolutions_int8=layers["convolution", True],
            products=layers["product", False] + layers["product", True],
            products_int8=layers["product", True],
            reasons=dict(self.reasons.most_common()),
            result_goes_to=dict(self.takers.most_common()),
            conversions=self.conversions,
            others=dict(self.others.most_common()),
        )


class _Graph:
    """An optimised graph with its edges."""

    def __init__(self, model: "ModelProto") -> None:
        from onnx import numpy_helper

        self.nodes = list(model.graph.node)
        self._producers = {name: node for node in self.nodes for name in node.output}
        self._constants: dict[str, _Array] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        }
        self._users: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self._users.setdefault(name, []).append(node)

    def is_constant(self, name: str) -> bool:
        """True for a weight."""
        return name in self._constants

    def why_float(self, conv: "NodeProto") -> str:
        """Why a float convolution of a quantised network did not become an int8 one."""
        weight = self._producers.get(conv.input[1])
        if weight is None or weight.op_type != "DequantizeLinear":
            return FLOAT_WEIGHT
        source = self._source(conv.input[0])
        if source is None or source.op_type != "DequantizeLinear":
            return FLOAT_INPUT
        if self._per_channel(source):
            return PER_CHANNEL
        users = self._consumers(conv.output[0])
        quantisers = [user for user in users if user.op_type == "QuantizeLinear"]
        if any(self._per_channel(user) for user in quantisers):
            return PER_CHANNEL
        if len(quantisers) == len(users) and users:
            return FUSED_ACTIVATION
        return FLOAT_RESULT

    def float_takers(self, conv: "NodeProto") -> set[str]:
        """Types of the operators that take a node's result in float."""
        users = self._consumers(conv.output[0])
        return {
            _PLAIN.get(user.op_type, user.op_type)
            for user in users
            if user.op_type != "QuantizeLinear"
        }

    def _per_channel(self, node: "NodeProto") -> bool:
        scale = self._constants.get(node.input[1])
        return scale is not None and int(np.size(scale)) > 1

    def _source(self, name: str) -> "NodeProto | None":
        node = self._producers.get(name)
        while node is not None and node.op_type in _MOVES:
            node = self._producers.get(node.input[0])
        return node

    def _consumers(self, name: str) -> list["NodeProto"]:
        found: list[NodeProto] = []
        for user in self._users.get(name, []):
            moves = user.op_type in _MOVES
            found += self._consumers(user.output[0]) if moves else [user]
        return found
