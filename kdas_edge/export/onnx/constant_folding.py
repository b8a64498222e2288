"""Compute the parts of an ONNX graph that depend on constants and static shapes alone."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper
from onnx.reference import ReferenceEvaluator

from kdas_edge.export.onnx.qdq import OPSET, GraphEditor

_Array = NDArray[Any]


def fold_constants(editor: GraphEditor) -> None:
    """Replace nodes whose inputs are all known by their values.

    TensorFlow's padding, which `tf_*` backbones imitate, is traced as arithmetic on shapes. A
    padding that has become constant makes the next layer's shape static, so this is repeated until
    nothing changes.
    """
    before = None
    while before != len(editor.nodes):
        before = len(editor.nodes)
        _fold_once(editor)


def _fold_once(editor: GraphEditor) -> None:
    shapes, constants = _static_shapes(editor), editor.constants
    kept = []
    for node in editor.nodes:
        if node.op_type == "Shape" and node.input[0] in shapes and not node.attribute:
            constants[node.output[0]] = np.asarray(shapes[node.input[0]], np.int64)
        elif (
            node.op_type not in ("QuantizeLinear", "DequantizeLinear")
            and node.input
            and all(name in constants for name in node.input if name)
        ):
            feeds = {name: constants[name] for name in node.input if name}
            constants.update(zip(node.output, _evaluate(node, feeds), strict=True))
        else:
            kept.append(node)
    editor.nodes = kept


def _static_shapes(editor: GraphEditor) -> dict[str, tuple[int, ...]]:
    inferred = onnx.shape_inference.infer_shapes(editor.build(), data_prop=True)
    shapes = {}
    for value in [*inferred.graph.value_info, *inferred.graph.input]:
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            shapes[value.name] = tuple(d.dim_value for d in tensor.shape.dim)
    return shapes


def _evaluate(node: NodeProto, feeds: dict[str, _Array]) -> list[_Array]:
    """Run one node on constants, with ONNX's own reference."""
    graph = helper.make_graph(
        [node],
        "constant",
        [
            onnx.helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for k, v in feeds.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in node.output],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    return [np.asarray(value) for value in ReferenceEvaluator(model).run(None, feeds)]
