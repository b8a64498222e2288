"""What a runtime made of an int8 file: how many layers it computes in int8, and why not the rest.

Asked of the graph that the runtime really runs: ONNX Runtime writes its optimised graph to a file,
OpenVINO tells kernel and precision of each layer. That int8 weights are in the file proves nothing.
"""

import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from kdas_edge.runtime.targets import Target

PER_CHANNEL = "beside an activation range per channel, for which there is no int8 kernel"
FLOAT_WEIGHT = "with weights that were not quantised"
FLOAT_INPUT = "with an input that was not quantised"
FLOAT_RESULT = "whose result goes on in float"
FUSED_ACTIVATION = "with an activation that the next quantiser does not take over"

# operator types of ONNX Runtime's graphs, whatever their domain
_CONV = {"Conv": False, "FusedConv": False, "QLinearConv": True, "ConvInteger": True}
_PRODUCT = {
    "MatMul": False,
    "Gemm": False,
    "FusedMatMul": False,
    "FusedGemm": False,
    "QLinearMatMul": True,
    "MatMulInteger": True,
    "MatMulIntegerToFloat": True,
    "QGemm": True,
}
# they move values, and change none
_MOVES = {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "ReorderInput", "ReorderOutput"}
# a fused convolution takes another's result as the summand of a residual; QuickGelu is x·σ(αx)
_PLAIN = {"FusedConv": "Add", "QuickGelu": "SiLU"}
_INT8 = {"i8", "u8"}

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
    """Load a file in its runtime on this CPU and look at what is run.

    Args:
        path: `.xml` for OpenVINO, `.onnx` for ONNX Runtime.
    """
    if path.suffix == ".xml":
        from kdas_edge.runtime.backends.openvino import compile_file

        compiled = compile_file(path, Target("openvino", "CPU", {"threads": "1"}))
        return _openvino_kernels(compiled.get_runtime_model())
    from kdas_edge.runtime.backends.onnxruntime import open_session

    with tempfile.TemporaryDirectory() as folder:
        optimised = Path(folder) / "optimised.onnx"
        open_session(path, Target("onnxruntime", "CPU", {"threads": "1"}), optimised=optimised)
        return onnxruntime_kernels(onnx.load(str(optimised)))


def onnxruntime_kernels(model: ModelProto) -> Kernels:
    """Judge a graph that ONNX Runtime has optimised."""
    graph = _Graph(model)
    convolutions, products = _count(graph.nodes, _CONV), _count(graph.nodes, _PRODUCT)
    reasons: Counter[str] = Counter()
    takers: Counter[str] = Counter()
    others: Counter[str] = Counter()
    conversions = 0
    for node in graph.nodes:
        kind = node.op_type
        if _CONV.get(kind) is False:
            reason = graph.why_float(node)
            reasons[reason] += 1
            if reason == FLOAT_RESULT:
                takers.update(graph.float_takers(node))
        elif kind in ("QuantizeLinear", "DequantizeLinear"):
            conversions += not graph.is_constant(node.input[0])
        elif kind not in _MOVES and kind not in _CONV and kind not in _PRODUCT:
            others[_PLAIN.get(kind, kind)] += 1
    return Kernels(
        *convolutions,
        *products,
        reasons=dict(reasons.most_common()),
        result_goes_to=dict(takers.most_common()),
        conversions=conversions,
        others=dict(others.most_common()),
    )


def _count(nodes: list[NodeProto], kinds: Mapping[str, bool]) -> tuple[int, int]:
    """Nodes of these kinds, and those of them in int8."""
    found = [kinds[node.op_type] for node in nodes if node.op_type in kinds]
    return len(found), sum(found)


class _Graph:
    """An optimised graph with its edges."""

    def __init__(self, model: ModelProto) -> None:
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

    def why_float(self, conv: NodeProto) -> str:
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

    def float_takers(self, conv: NodeProto) -> set[str]:
        """Types of the operators that take a node's result in float."""
        users = self._consumers(conv.output[0])
        return {
            _PLAIN.get(user.op_type, user.op_type)
            for user in users
            if user.op_type != "QuantizeLinear"
        }

    def _per_channel(self, node: NodeProto) -> bool:
        scale = self._constants.get(node.input[1])
        return scale is not None and int(np.size(scale)) > 1

    def _source(self, name: str) -> NodeProto | None:
        node = self._producers.get(name)
        while node is not None and node.op_type in _MOVES:
            node = self._producers.get(node.input[0])
        return node

    def _consumers(self, name: str) -> list[NodeProto]:
        found: list[NodeProto] = []
        for user in self._users.get(name, []):
            moves = user.op_type in _MOVES
            found += self._consumers(user.output[0]) if moves else [user]
        return found


def _openvino_kernels(runtime_model: Any) -> Kernels:
    """Judge the graph that OpenVINO's CPU plugin runs."""
    totals: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    others: Counter[str] = Counter()
    conversions = 0
    for node in runtime_model.get_ops():
        information = node.get_rt_info()
        kind = information["layerType"].astype(str)
        precision = information["runtimePrecision"].astype(str)
        if kind in ("Convolution", "MatMul", "FullyConnected"):
            group = "convolutions" if kind == "Convolution" else "products"
            totals[group] += 1
            totals[f"{group}_int8"] += precision in _INT8
            if group == "convolutions" and precision not in _INT8:
                reasons[FLOAT_INPUT] += 1
        elif kind == "FakeQuantize":
            conversions += 1
        elif kind not in ("Const", "Input", "Output", "Reshape", "Reorder") and (
            precision not in _INT8
        ):
            others[kind] += 1
    return Kernels(
        totals["convolutions"],
        totals["convolutions_int8"],
        totals["products"],
        totals["products_int8"],
        reasons=dict(reasons),
        conversions=conversions,
        others=dict(others.most_common()),
    )
