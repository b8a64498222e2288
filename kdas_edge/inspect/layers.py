"""Executed layers with their times, grouped by layer types that precisions share.

Runtimes fuse operators and rename what is left. A profile lists what is executed: an activation
that was fused into a convolution takes no time of its own and is not listed.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

CONVOLUTION = "convolution"
DEPTHWISE = "depthwise convolution"
MATMUL = "matmul, fully connected"
ELEMENTWISE = "element-wise, activation"
QUANTISE = "quantise, convert, reorder"
OTHER = "other"

# what int8 speeds up; these groups are split by precision
ARITHMETIC = (CONVOLUTION, DEPTHWISE, MATMUL)

_OPERATORS = {
    CONVOLUTION: "Convolution GroupConvolution BinaryConvolution DeformableConvolution "
    "Deconvolution ConvolutionBackpropData GroupConvolutionBackpropData Conv ConvTranspose "
    "ConvInteger",
    MATMUL: "MatMul FullyConnected Gemm MatMulInteger MatMulIntegerToFloat MatMulNBits "
    "DynamicQuantizeMatMul ScaledDotProductAttention SDPA Attention MultiHeadAttention LLMMLP",
    "resize": "Interpolate Resize Upsample",
    "normalisation": "MVN RMS NormalizeL2 GroupNormalization BatchNormInference LRN "
    "BatchNormalization LayerNormalization InstanceNormalization SimplifiedLayerNormalization "
    "SkipLayerNormalization SkipGroupNorm GroupNorm RMSNorm",
    "softmax": "Softmax LogSoftmax",
    "pooling, reduce": "AvgPool MaxPool AveragePool GlobalAveragePool GlobalMaxPool "
    "AdaptiveAvgPool AdaptiveMaxPool Pooling AdaptivePooling ReduceMean ReduceMax ReduceMin "
    "ReduceSum ReduceProd ReduceL1 ReduceL2 Reduce",
    "transpose, reshape, concat": "Transpose Reshape Concat Concatenation Split VariadicSplit "
    "Slice StridedSlice Gather GatherND Squeeze Unsqueeze Flatten Pad Tile Broadcast Expand "
    "ShuffleChannels DepthToSpace SpaceToDepth Permute Identity",
    QUANTISE: "FakeQuantize FakeConvert Convert Reorder Quantize QuantizeLinear DequantizeLinear "
    "DynamicQuantizeLinear Cast ReorderInput ReorderOutput",
    ELEMENTWISE: "Subgraph Eltwise Add Subtract Multiply Divide Sub Mul Div Power PowerStatic Pow "
    "Sqrt Exp Log Abs Neg Negative Min Max Minimum Maximum Sum Relu ReLU PRelu PReLU LeakyRelu Elu "
    "Gelu QuickGelu BiasGelu FastGelu Sigmoid HardSigmoid HSigmoid HSwish HardSwish Swish SiLU "
    "Tanh Erf Mish SoftPlus Clamp Clip Select Where Round Floor Math SquaredDifference Greater "
    "Less Equal MulAdd",
}
_GROUP_OF = {name: group for group, names in _OPERATORS.items() for name in names.split()}
# ONNX Runtime marks fused and integer variants by prefixes: QLinearConv, NhwcFusedConv, QGemm
_VARIANTS = ("QLinear", "Nhwc", "Fused", "Quant", "Q")

_PRECISIONS = {
    "u8": "int8", "i8": "int8", "uint8": "int8", "int8": "int8",
    "f32": "f32", "float": "f32", "f16": "f16", "float16": "f16", "bf16": "bf16",
    "bfloat16": "bf16", "i32": "i32", "int32": "i32", "i64": "i64", "int64": "i64",
}  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """One executed layer.

    Attributes:
        name: as the runtime calls it.
        operator: the runtime's operator type, e.g. `GroupConvolution` or `QLinearConv`.
        kind: layer type without precision, e.g. `depthwise convolution`.
        kernel: implementation, e.g. `brgconv_avx512_I8`, where the runtime reports it.
        precision: of the arithmetic: `int8`, `f32`, `bf16`, `f16` or another short name.
        milliseconds: median of one inference.
        calls: how many times one inference runs it.
    """

    name: str
    operator: str
    kind: str
    kernel: str
    precision: str
    milliseconds: float
    calls: int = 1

    @property
    def group(self) -> str:
        """Layer type, with the precision where it is arithmetic."""
        if self.kind not in ARITHMETIC:
            return self.kind
        return f"{'int8' if self.precision == 'int8' else 'float'} {self.kind}"


@dataclass(frozen=True)
class LayerGroup:
    """All layers of one type.

    Attributes:
        name: e.g. `int8 convolution`.
        calls: layers executed in one inference.
        milliseconds: their sum.
        share: of the profile's total, 0–1.
        kernels: milliseconds of each kernel, longest first.
    """

    name: str
    calls: int
    milliseconds: float
    share: float
    kernels: dict[str, float]


@dataclass(frozen=True)
class Profile:
    """The layers of one model on one target.

    Attributes:
        layers: every executed layer, in the order of execution.
        rounds: profiled inferences.
        inference_ms: median wall-clock time of one profiled inference; profiling itself costs.
    """

    layers: tuple[Layer, ...]
    rounds: int
    inference_ms: float

    @property
    def total_ms(self) -> float:
        """Sum of all layers, in milliseconds."""
        return sum(layer.milliseconds for layer in self.layers)

    @property
    def int8_share(self) -> float | None:
        """Share (0–1) of convolution and matrix time spent in int8; None without such layers."""
        arithmetic = [layer for layer in self.layers if layer.kind in ARITHMETIC]
        total = sum(layer.milliseconds for layer in arithmetic)
        if total == 0:
            return None
        return sum(x.milliseconds for x in arithmetic if x.precision == "int8") / total

    def by_group(self) -> list[LayerGroup]:
        """Layer types, the longest first."""
        total = self.total_ms
        groups = []
        for name in dict.fromkeys(layer.group for layer in self.layers):
            members = [layer for layer in self.layers if layer.group == name]
            spent = sum(layer.milliseconds for layer in members)
            kernels: defaultdict[str, float] = defaultdict(float)
            for layer in members:
                kernels[layer.kernel] += layer.milliseconds
            groups.append(
                LayerGroup(
                    name,
                    sum(layer.calls for layer in members),
                    spent,
                    spent / total if total else 0.0,
                    dict(sorted(kernels.items(), key=lambda item: -item[1])),
                )
            )
        return sorted(groups, key=lambda group: -group.milliseconds)

    def arithmetic_kernels(self) -> dict[str, dict[str, int]]:
        """How many convolutions and matrix products ran in each kernel, int8 and float apart."""
        arithmetic = [layer for layer in self.layers if layer.kind in ARITHMETIC]
        return {
            "int8_kernels": Counter(x.kernel for x in arithmetic if x.precision == "int8"),
            "float_kernels": Counter(x.kernel for x in arithmetic if x.precision != "int8"),
        }

    def slowest(self, count: int) -> list[Layer]:
        """The layers that take longest, the longest first."""
        return sorted(self.layers, key=lambda layer: -layer.milliseconds)[:count]

    def as_json(self) -> dict[str, Any]:
        """Groups, totals and every layer; milliseconds to 0.1 µs, shares of 1."""
        share = self.int8_share
        return {
            "unit": "ms",
            "rounds": self.rounds,
            "inference": _round(self.inference_ms),
            "total": _round(self.total_ms),
            "int8_share": None if share is None else _round(share),
            "groups": [
                {
                    "group": group.name,
                    "calls": group.calls,
                    "ms": _round(group.milliseconds),
                    "share": _round(group.share),
                    "kernels": {name: _round(spent) for name, spent in group.kernels.items()},
                }
                for group in self.by_group()
            ],
            "layers": [
                {
                    "name": layer.name,
                    "operator": layer.operator,
                    "group": layer.group,
                    "kernel": layer.kernel,
                    "precision": layer.precision,
                    "calls": layer.calls,
                    "ms": _round(layer.milliseconds),
                }
                for layer in self.layers
            ],
        }


def kind_of(operator: str, fused: Iterable[str] = (), depthwise: bool = False) -> str:
    """Layer type of an operator.

    Args:
        operator: the runtime's operator type.
        fused: types of the operators that a fused element-wise layer holds; one of nothing but
            quantisers is no arithmetic.
        depthwise: the convolution has one input channel for each group.
    """
    kind = _GROUP_OF.get(operator)
    stripped = operator
    while kind is None:
        prefix = next((p for p in _VARIANTS if stripped.startswith(p) and stripped != p), None)
        if prefix is None:
            return OTHER
        stripped = stripped.removeprefix(prefix)
        kind = _GROUP_OF.get(stripped)
    if kind == CONVOLUTION and depthwise:
        return DEPTHWISE
    inside = set(fused)
    if kind == ELEMENTWISE and inside and all(_GROUP_OF.get(x) == QUANTISE for x in inside):
        return QUANTISE
    return kind


def is_integer(operator: str) -> bool:
    """Whether an operator of ONNX Runtime's graphs computes with 8-bit integers."""
    return operator.startswith(("QLinear", "QGemm")) or "Integer" in operator


def is_depthwise(weights: Sequence[int]) -> bool:
    """Whether weights belong to a depthwise convolution.

    Args:
        weights: (groups, 1, 1, k…) as OpenVINO writes grouped weights, or (channels, 1, k…) as
            ONNX does, with more than one group or channel.
    """
    if len(weights) >= 5:
        return weights[0] > 1 and weights[1] == 1 and weights[2] == 1
    return len(weights) >= 3 and weights[0] > 1 and weights[1] == 1


def precision_name(runtime_name: str) -> str:
    """`u8` and `i8` are both `int8`, `float` is `f32`; unknown names stay."""
    return _PRECISIONS.get(runtime_name.lower(), runtime_name)


def _round(value: float) -> float:
    return round(float(value), 4)
