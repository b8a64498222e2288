"""Peers for tests: the tiny network as other people would have exported it."""

from pathlib import Path

import numpy as np
import onnx
import openvino as ov
import yaml
from onnx import TensorProto, helper, numpy_helper
from tiny_bundle import BIAS, NORMALISATION, WEIGHTS

SIZE = 64
# the normalisation that the tiny network was made for, as a peer's configuration
NORMAL = {"mean": list(NORMALISATION.mean), "std": list(NORMALISATION.std)}


def make_peer(
    path: Path,
    output: str = "logits",
    layout: str = "NCHW",
    color: str = "RGB",
    uint8: bool = False,
    stride: int = 1,
    open_batch: bool = False,
    second_output: bool = False,
) -> Path:
    """Write the tiny network as ONNX.

    Args:
        path: of the `.onnx` file.
        output: kind of output, as in a peer's configuration.
        layout: of input and output.
        color: order of the input's channels.
        uint8: the input is 0–255 and mean and std are in the graph.
        stride: the output has a `stride`-th of the input's side.
        open_batch: the first dimension has a name instead of a number.
        second_output: add an output named `edges`.
    """
    nodes, constants = [], []

    def constant(name, value):
        constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(operator, inputs, **attributes):
        nodes.append(helper.make_node(operator, inputs, [f"v{len(nodes)}"], **attributes))
        return f"v{len(nodes) - 1}"

    order = slice(None, None, -1) if color == "BGR" else slice(None)
    x, kind = "x", TensorProto.FLOAT
    if uint8:
        kind, x = TensorProto.UINT8, add("Cast", [x], to=TensorProto.FLOAT)
    if layout == "NHWC":
        x = add("Transpose", [x], perm=[0, 3, 1, 2])
    if uint8:
        mean = np.array(NORMALISATION.mean, dtype=np.float32)[order].reshape(1, 3, 1, 1) * 255
        std = np.array(NORMALISATION.std, dtype=np.float32)[order].reshape(1, 3, 1, 1) * 255
        x = add("Div", [add("Sub", [x, constant("mean", mean)]), constant("std", std)])
    kernel = constant("kernel", WEIGHTS[order].reshape(1, 3, 1, 1).copy())
    logits = add("Conv", [x, kernel, constant("bias", BIAS.reshape(1))], strides=[stride, stride])
    result = logits
    if output in ("probabilities", "two-channel"):
        result = add("Sigmoid", [logits])
    if output == "two-channel":
        background = add("Sub", [constant("one", np.float32(1)), result])
        result = add("Concat", [background, result], axis=1)
    if output == "two-channel-logits":
        nothing = add("Mul", [logits, constant("zero", np.float32(0))])
        result = add("Concat", [nothing, logits], axis=1)
    channels = 2 if output.startswith("two-channel") else 1
    found = TensorProto.FLOAT
    if output == "classes":
        result = add("Greater", [logits, constant("zero", np.float32(0))])
        result, found = add("Cast", [result], to=TensorProto.INT64), TensorProto.INT64
    side = SIZE // stride
    shape, shape_out = [1, 3, SIZE, SIZE], [1, channels, side, side]
    if layout == "NHWC":
        result = add("Transpose", [result], perm=[0, 2, 3, 1])
        shape, shape_out = [1, SIZE, SIZE, 3], [1, side, side, channels]
    if open_batch:
        shape[0] = shape_out[0] = "batch"
    nodes.append(helper.make_node("Identity", [result], ["y"]))
    outputs = [helper.make_tensor_value_info("y", found, shape_out)]
    if second_output:
        nodes.append(helper.make_node("Neg", [logits], ["edges"]))
        batch = shape[0]
        outputs.insert(
            0, helper.make_tensor_value_info("edges", TensorProto.FLOAT, [batch, 1, side, side])
        )
    graph = helper.make_graph(
        nodes, "peer", [helper.make_tensor_value_info("x", kind, shape)], outputs, constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def make_peer_ir(path: Path, **options) -> Path:
    """The same as an OpenVINO IR; `path` is that of the `.xml`."""
    source = make_peer(path.with_suffix(".onnx"), **options)
    ov.save_model(ov.Core().read_model(source), path, compress_to_fp16=False)
    source.unlink()
    return path


def write_config(path: Path, **values) -> Path:
    """Write a peer's configuration; `size` and the normalisation are those of the network."""
    path.write_text(yaml.safe_dump({"size": SIZE, "output": "logits", **NORMAL, **values}))
    return path
