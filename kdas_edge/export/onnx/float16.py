"""Convert an ONNX graph to float16: half the size; input and output stay float32.

The whole graph becomes float16, not the weights alone: TensorRT, CUDA and DirectML take the
precision from the file. A runtime without float16 kernels (ONNX Runtime on x86) casts to float32.
"""

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from kdas_edge.errors import KdasEdgeError
from kdas_edge.export.onnx.export import INPUT, OUTPUT, finish

# region and scales of a Resize are float32 in every type of image
_FLOAT_INPUTS = {"Resize": (1, 2)}


def to_half(core: ModelProto) -> ModelProto:
    """Turn a float32 `core` graph into a float16 one between two casts.

    Args:
        core: from `to_onnx`, float; it is not changed.

    Returns:
        A model with the same float32 input and output.

    Raises:
        KdasEdgeError: a weight is beyond float16's largest number, 65504.
    """
    model = ModelProto()
    model.CopyFrom(core)
    graph = model.graph
    kept = {
        node.input[index]
        for node in graph.node
        for index in _FLOAT_INPUTS.get(node.op_type, ())
        if index < len(node.input)
    }
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in kept:
            values = numpy_helper.to_array(tensor)
            with np.errstate(over="ignore"):
                half = values.astype(np.float16)
            if np.isfinite(values).all() and not np.isfinite(half).all():
                raise KdasEdgeError(f"{tensor.name} is beyond the range of float16")
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    names = {INPUT: f"{INPUT}/half", OUTPUT: f"{OUTPUT}/half"}
    for node in graph.node:
        for ends in (node.input, node.output):
            for index, name in enumerate(ends):
                ends[index] = names.get(name, name)
        for attribute in node.attribute:
            _cast_to_half(node.op_type, attribute)
    body = list(graph.node)
    del graph.node[:]
    graph.node.append(_cast(INPUT, names[INPUT], TensorProto.FLOAT16))
    graph.node.extend(body)
    graph.node.append(_cast(names[OUTPUT], OUTPUT, TensorProto.FLOAT))
    return finish(model)


def _cast_to_half(kind: str, attribute: AttributeProto) -> None:
    if kind == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
        attribute.i = TensorProto.FLOAT16


def _cast(source: str, name: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [source], [name], name=f"{name}/cast", to=to)
