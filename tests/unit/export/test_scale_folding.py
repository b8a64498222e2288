"""Ranges per channel become one per tensor without changing an integer, and then run in int8."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from kdas_edge.export.onnx.qdq import GraphEditor
from kdas_edge.export.onnx.scale_folding import fold_channel_scales
from kdas_edge.inspect.kernels import kernels_of

CHANNELS, SIDE = 16, 24


def block(
    scale: np.ndarray, zero: np.ndarray, activation: str = "Relu", multiplier: int = 1
) -> ModelProto:
    """Conv, activation, range per channel, depthwise Conv, range per tensor."""
    rng = np.random.default_rng(3)
    constants: dict[str, np.ndarray] = {
        "input/scale": np.float32(0.02),
        "input/zero": np.uint8(120),
        "range/scale": scale.astype(np.float32),
        "range/zero": zero.astype(np.uint8),
        "output/scale": np.float32(0.1),
        "output/zero": np.uint8(128),
        "low": np.float32(0),
        "high": np.float32(6),
    }
    shapes = {"wide": (CHANNELS, 3, 1, 1), "deep": (CHANNELS * multiplier, 1, 3, 3)}
    nodes = []
    for name, shape in shapes.items():
        # half of the range, as `overflow_fix: enable` leaves it: on a CPU without VNNI two products
        # are added in 16 bits, which more would overflow
        constants[f"{name}/int8"] = rng.integers(-63, 64, shape).astype(np.int8)
        constants[f"{name}/scale"] = rng.uniform(0.01, 0.04, shape[0]).astype(np.float32)
        constants[f"{name}/zero"] = np.zeros(shape[0], np.int8)
        constants[f"{name}/bias"] = rng.normal(size=shape[0]).astype(np.float32)
        parts = [f"{name}/{part}" for part in ("int8", "scale", "zero")]
        nodes.append(helper.make_node("DequantizeLinear", parts, [f"{name}/weight"], axis=0))

    def quantise(name: str, source: str, result: str, **attributes: int) -> None:
        parts = [f"{name}/scale", f"{name}/zero"]
        whole = f"{name}/integers"
        nodes.append(helper.make_node("QuantizeLinear", [source, *parts], [whole], **attributes))
        nodes.append(helper.make_node("DequantizeLinear", [whole, *parts], [result], **attributes))

    quantise("input", "image", "x0")
    nodes.append(helper.make_node("Conv", ["x0", "wide/weight", "wide/bias"], ["x1"]))
    kinds = {"Relu": ["x1"], "Clip": ["x1", "low", "high"]}
    if activation:
        nodes.append(helper.make_node(activation, kinds[activation], ["x2"]))
    quantise("range", "x2" if activation else "x1", "x3", axis=1)
    deep = {"group": CHANNELS, "pads": [1, 1, 1, 1]}
    nodes.append(helper.make_node("Conv", ["x3", "deep/weight", "deep/bias"], ["x4"], **deep))
    quantise("output", "x4", "probabilities")
    sizes = {"image": 3, "probabilities": CHANNELS * multiplier}
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size, SIDE, SIDE])]
        for name, size in sizes.items()
    ]
    initializers = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "block", *ends, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def moved(model: ModelProto) -> tuple[ModelProto, int]:
    copy = ModelProto()
    copy.CopyFrom(model)
    editor = GraphEditor(copy)
    count = fold_channel_scales(editor)
    result = editor.build()
    onnx.checker.check_model(result, full_check=True)
    return result, count


def run(model: ModelProto, optimise: bool) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    x = np.random.default_rng(1).normal(size=(1, 3, SIDE, SIDE)).astype(np.float32)
    return session.run(None, {"image": x})[0]


def convolutions_in_int8(model: ModelProto, tmp_path: Path) -> int:
    onnx.save(model, tmp_path / "model.onnx")
    return kernels_of(tmp_path / "model.onnx").convolutions_int8


SCALES = np.linspace(0.001, 0.0235, CHANNELS)
NONE = np.zeros(CHANNELS)


@pytest.mark.parametrize("activation", ["Relu", "Clip"])
def test_behind_a_relu_everything_runs_in_int8_and_no_integer_changes(
    activation: str, tmp_path: Path
) -> None:
    before = block(SCALES, NONE, activation)
    after, count = moved(before)
    assert count == 1
    # the results lie on the grid of the last quantiser, so that equal means the same integer;
    # single ones may fall on a tie of rounding
    wanted = run(before, optimise=False)
    assert (run(after, optimise=False) == wanted).mean() > 0.9995
    assert (run(after, optimise=True) == wanted).mean() > 0.99
    assert len(np.unique(wanted)) > 50
    assert convolutions_in_int8(before, tmp_path) == 0
    assert convolutions_in_int8(after, tmp_path) == 2


def test_a_clip_that_cuts_below_the_range_is_not_dropped() -> None:
    # the highest level of the last channels lies beyond 6
    before = block(np.linspace(0.02, 0.04, CHANNELS), NONE, "Clip")
    after, count = moved(before)
    assert count == 0
    assert after == GraphEditor(before).build()


def test_a_convolution_that_meets_a_range_per_channel_fails_in_onnx_runtime_but_not_after(
    tmp_path: Path,
) -> None:
    zeros = np.arange(100, 100 + CHANNELS)
    before = block(np.linspace(0.01, 0.02, CHANNELS), zeros, activation="")
    # the reason for the move: fused into a convolution that cannot run
    with pytest.raises(Exception, match="result zero point must be a scalar"):
        run(before, optimise=True)
    after, count = moved(before)
    assert count == 1
    wanted = run(before, optimise=False)
    assert (run(after, optimise=False) == wanted).mean() > 0.9995
    assert (run(after, optimise=True) == wanted).mean() > 0.99
    # the padding of the depthwise one is not the zero of every channel: it stays in float
    assert convolutions_in_int8(after, tmp_path) == 1


def test_a_silent_channel_with_a_zero_point_of_its_own_does_not_stop_the_others(
    tmp_path: Path,
) -> None:
    scales, zeros = SCALES.copy(), NONE.copy()
    scales[5], zeros[5] = 6e-6, 128
    after, count = moved(block(scales, zeros, "Clip"))
    assert count == 1 and convolutions_in_int8(after, tmp_path) == 2


def test_weights_that_two_layers_share_are_left_alone() -> None:
    before = block(SCALES, NONE)
    other = helper.make_node("Identity", ["wide/weight"], ["copy"], name="copy")
    before.graph.node.append(other)
    before.graph.output.append(
        helper.make_tensor_value_info("copy", TensorProto.FLOAT, [CHANNELS, 3, 1, 1])
    )
    assert moved(before)[1] == 0


def test_a_depthwise_convolution_that_multiplies_channels_keeps_its_range(tmp_path: Path) -> None:
    before = block(SCALES, NONE, multiplier=2)
    after, count = moved(before)
    # the first one gets its range per tensor, the second reads it per channel as before
    assert count == 1
    assert (run(after, optimise=False) == run(before, optimise=False)).mean() > 0.9995
