"""Export a torch network to ONNX, float or int8 (QDQ), so that ONNX Runtime loads and fuses it.

`qdq.py` rewrites the quantisers.
"""

import io
import logging
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from torch import nn

from kdas_edge.bundle.manifest import Normalisation
from kdas_edge.errors import KdasEdgeError
from kdas_edge.export.graph import DeployGraph
from kdas_edge.export.onnx.constant_folding import fold_constants
from kdas_edge.export.onnx.qdq import OPSET, GraphEditor
from kdas_edge.export.onnx.scale_folding import fold_channel_scales
from kdas_edge.export.presets import CAMERA_INPUT, HOLOSCAN_INPUT, INPUT, OUTPUT, scale_and_shift
from kdas_edge.quantize.weight_scales import rounded_weights

_Array = NDArray[Any]


def to_onnx(network: nn.Module, size: int) -> ModelProto:
    """Export a float or NNCF-quantised network as the `core` preset.

    Args:
        network: returns logits `(z1, z2)`; put in eval mode here. It is not changed otherwise.
        size: side S of the square input, in pixels.

    Returns:
        A checked model: (1, 3, S, S) float32 normalised RGB to (1, 2, S, S) probabilities, opset
        18, standard operators only. The bytes depend on the weights alone.

    Raises:
        KdasEdgeError: an operator of a foreign domain is left.
    """
    graph = DeployGraph(network).eval()
    device = next(network.parameters()).device
    example = torch.zeros(1, 3, size, size, device=device)
    # the exporter writes to any file-like object, though its annotation names paths only
    buffer: Any = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad(), rounded_weights(network, example):
        # the tracer warns of shapes that become constants, which is what a static graph wants;
        # the dynamo exporter fails on NNCF's quantisers
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(
            graph,
            (example,),
            buffer,
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
        )
    model = onnx.load_from_string(buffer.getvalue())
    editor = GraphEditor(model)
    editor.inline_constants()
    editor.rewrite_fake_quantize()
    editor.fold_batch_norm()
    editor.fold_constant_transposes()
    fold_channel_scales(editor)
    editor.drop_saturated_clips()
    fold_constants(editor)
    return finish(editor.build())


def with_camera_input(core: ModelProto, normalisation: Normalisation, size: int) -> ModelProto:
    """Put the camera's preprocessing before a `core` graph.

    The Resize is ONNX's antialiased linear one on uint8, as PIL does it (measured in the tests).

    Args:
        core: from `to_onnx`.
        normalisation: mean and standard deviation per RGB channel, of 0…1.
        size: side S, in pixels.

    Returns:
        A model that takes (1, H, W, 3) uint8 BGR of any height and width.
    """
    scale, shift = scale_and_shift(normalisation, 255.0)
    constants: dict[str, _Array] = {
        "camera/size": np.asarray([1, 3, size, size], np.int64),
        "camera/bgr_to_rgb": np.asarray([2, 1, 0], np.int64),
        "camera/scale": scale,
        "camera/shift": shift,
    }
    nodes = [
        helper.make_node("Transpose", [CAMERA_INPUT], ["camera/nchw"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "Resize",
            ["camera/nchw", "", "", "camera/size"],
            ["camera/resized"],
            mode="linear",
            antialias=1,
            coordinate_transformation_mode="half_pixel",
        ),
        # after the resize there are fewer pixels to reorder
        helper.make_node("Gather", ["camera/resized", "camera/bgr_to_rgb"], ["camera/rgb"], axis=1),
        helper.make_node("Cast", ["camera/rgb"], ["camera/float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["camera/float", "camera/scale"], ["camera/scaled"]),
        helper.make_node("Add", ["camera/scaled", "camera/shift"], [INPUT]),
    ]
    frame = helper.make_tensor_value_info(
        CAMERA_INPUT, TensorProto.UINT8, [1, "height", "width", 3]
    )
    return _prepend(core, frame, nodes, constants, "camera/normalised")


def with_holoscan_input(core: ModelProto, normalisation: Normalisation, size: int) -> ModelProto:
    """Let a `core` graph take what NVIDIA Holoscan's FormatConverterOp gives.

    Args:
        core: from `to_onnx`.
        normalisation: mean and standard deviation per RGB channel, of 0…1.
        size: side S, in pixels.

    Returns:
        A model that takes (1, S, S, 3) float32 RGB of 0…1, all static.
    """
    scale, shift = scale_and_shift(normalisation, 1.0)
    nodes = [
        helper.make_node("Transpose", [HOLOSCAN_INPUT], ["holoscan/nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["holoscan/nchw", "holoscan/scale"], ["holoscan/scaled"]),
        helper.make_node("Add", ["holoscan/scaled", "holoscan/shift"], [INPUT]),
    ]
    image = helper.make_tensor_value_info(HOLOSCAN_INPUT, TensorProto.FLOAT, [1, size, size, 3])
    constants = {"holoscan/scale": scale, "holoscan/shift": shift}
    return _prepend(core, image, nodes, constants, "holoscan/normalised")


def _prepend(
    core: ModelProto,
    source: ValueInfoProto,
    nodes: Sequence[NodeProto],
    constants: Mapping[str, _Array],
    last: str,
) -> ModelProto:
    """Copy `core` with `nodes` before it, which compute its input from `source`.

    Args:
        core: is not changed.
        source: the new input.
        nodes: the last one gives the value that `core` reads.
        constants: that the nodes read.
        last: name of the last node; the others are named like their output.
    """
    for node in nodes:
        node.name = node.output[0] if node.output[0] != INPUT else last
    model = ModelProto()
    model.CopyFrom(core)
    graph = model.graph
    body = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *body])
    graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    del graph.input[:]
    graph.input.append(source)
    return finish(model)


def save_onnx(model: ModelProto, path: Path, metadata: dict[str, str]) -> None:
    """Write a model with its metadata in `metadata_props`, in sorted order."""
    del model.metadata_props[:]
    helper.set_model_props(model, dict(sorted(metadata.items())))
    path.write_bytes(model.SerializeToString(deterministic=True))


def quantized_operators(model: ModelProto) -> dict[str, int]:
    """Count the QuantizeLinear and DequantizeLinear nodes, to check that the file is quantised."""
    counts = Counter(node.op_type for node in model.graph.node)
    return {kind: counts[kind] for kind in ("QuantizeLinear", "DequantizeLinear")}


def finish(model: ModelProto) -> ModelProto:
    """Remove notes, local paths and traced shapes, set the opset, and check the model.

    Raises:
        KdasEdgeError: an operator of a foreign domain is left.
    """
    foreign = {(node.domain, node.op_type) for node in model.graph.node if node.domain}
    if foreign:
        names = ", ".join(f"{domain}.{kind}" for domain, kind in sorted(foreign))
        raise KdasEdgeError(
            f"the ONNX graph holds operators that ONNX Runtime cannot load: {names}"
        )
    for node in model.graph.node:
        node.doc_string = ""  # stack traces with local paths
    model.doc_string = model.graph.doc_string = ""
    model.graph.name = "kdas_edge"
    # shapes of intermediate tensors from the trace; the runtime infers them itself
    del model.graph.value_info[:]
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", OPSET))
    model.functions.clear()
    onnx.checker.check_model(model, full_check=True)
    return model
