import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import openvino as ov
import pytest
from onnx import TensorProto, helper, numpy_helper
from openvino import opset13 as ops

from kdas_edge.errors import UserError
from kdas_edge.inspect import profile
from kdas_edge.inspect.layers import kind_of
from kdas_edge.inspect.openvino import per_inference
from kdas_edge.runtime.targets import Target, parse_target

CHANNELS, SIZE = 32, 48
OPENVINO = parse_target("openvino:CPU:threads=1")
ONNXRUNTIME = parse_target("onnxruntime:CPU:threads=1")


def weights(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.normal(0, 0.1, shape).astype(np.float32)


def quantised(node: ov.Node, low: float, high: float, levels: int = 256) -> ov.Node:
    return ops.fake_quantize(node, *map(np.float32, (low, high, low, high)), levels)


def openvino_network(int8: bool) -> ov.Model:
    """3×3 convolution, ReLU, depthwise, ReLU, 1×1, upsampling, sigmoid; quantised or not."""
    rng = np.random.default_rng(0)
    x = ops.parameter([1, CHANNELS, SIZE, SIZE], np.float32, name="image")

    def activation(node: ov.Node, low: float = 0.0) -> ov.Node:
        return quantised(node, low, 4.0) if int8 else node

    def constant(shape: tuple[int, ...]) -> ov.Node:
        node = ops.constant(weights(rng, shape))
        return quantised(node, -0.5, 0.5, 255) if int8 else node

    plain = ([1, 1], [1, 1], [1, 1], [1, 1])
    node = ops.convolution(activation(x, -4.0), constant((CHANNELS, CHANNELS, 3, 3)), *plain)
    node = activation(ops.relu(node))
    node = ops.group_convolution(node, constant((CHANNELS, 1, 1, 3, 3)), *plain)
    node = activation(ops.relu(node))
    node = ops.convolution(
        node, constant((4, CHANNELS, 1, 1)), [1, 1], [0, 0], [0, 0], [1, 1], name="head"
    )
    node = ops.interpolate(node, [2 * SIZE, 2 * SIZE], "linear_onnx", "sizes", axes=[2, 3])
    return ov.Model([ops.sigmoid(node)], [x], "network")


def onnx_network(path: Path, int8: bool) -> Path:
    """A 3×3 convolution, a depthwise one and a 1×1, with QuantizeLinear pairs where int8."""
    rng = np.random.default_rng(0)
    nodes, constants = [], []

    def constant(name: str, value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    def pair(value: str, zero: np.ndarray, scale: float) -> str:
        ends = [constant(f"{value}_s", np.float32(scale)), constant(f"{value}_z", zero)]
        nodes.append(helper.make_node("QuantizeLinear", [value, *ends], [f"{value}_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{value}_q", *ends], [f"{value}_d"]))
        return f"{value}_d"

    x = pair("image", np.uint8(128), 0.03) if int8 else "image"
    for index, (shape, groups) in enumerate(
        (((CHANNELS, CHANNELS, 3, 3), 1), ((CHANNELS, 1, 3, 3), CHANNELS), ((4, CHANNELS, 1, 1), 1))
    ):
        kernel = constant(f"w{index}", weights(rng, shape))
        if int8:
            kernel = pair(kernel, np.int8(0), 0.004)
        pads = [shape[2] // 2] * 4
        nodes.append(helper.make_node("Conv", [x, kernel], [f"y{index}"], group=groups, pads=pads))
        x = pair(f"y{index}", np.uint8(128), 0.03) if int8 else f"y{index}"
    nodes.append(helper.make_node("Sigmoid", [x], ["probabilities"]))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, CHANNELS, SIZE, SIZE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, 4, SIZE, SIZE])],
        constants,
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def frame() -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.normal(0, 1, (1, CHANNELS, SIZE, SIZE)).astype(np.float32)


def names(found) -> set[str]:
    return {group.name for group in found.by_group()}


def test_the_groups_are_all_of_the_total_and_nothing_twice(frame):
    found = profile(openvino_network(int8=False), frame, OPENVINO)
    groups = found.by_group()
    assert sum(group.milliseconds for group in groups) == pytest.approx(found.total_ms)
    assert sum(group.share for group in groups) == pytest.approx(1)
    assert sum(group.calls for group in groups) == len(found.layers)
    assert all(sum(g.kernels.values()) == pytest.approx(g.milliseconds) for g in groups)
    # a counter that still held the first inference would say more than the clock
    assert 0 < found.total_ms < 1.2 * found.inference_ms


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="Arm simulates int8")
def test_a_float_network_has_no_int8_and_a_quantised_one_has_its_convolutions_in_it(frame):
    floating = profile(openvino_network(int8=False), frame, OPENVINO)
    assert {"float convolution", "float depthwise convolution", "resize"} <= names(floating)
    assert floating.int8_share == 0
    assert not {layer.precision for layer in floating.layers} & {"int8"}
    integer = profile(openvino_network(int8=True), frame, OPENVINO)
    assert {"int8 convolution", "int8 depthwise convolution", "resize"} <= names(integer)
    assert "float convolution" not in names(integer)
    assert integer.int8_share == 1
    # quantisers in front of the network are what they are, not arithmetic
    assert "quantise, convert, reorder" in names(integer)


def test_properties_reach_the_compiler_and_files_are_read(frame, tmp_path):
    ov.save_model(openvino_network(int8=False), tmp_path / "network.xml", compress_to_fp16=False)
    found = profile(tmp_path / "network.xml", [frame, -frame], OPENVINO, rounds=6)
    assert found.rounds == 6
    slowest = found.slowest(2)
    assert len(slowest) == 2 and slowest[0].milliseconds >= slowest[1].milliseconds
    with pytest.raises(UserError, match="no_such_precision"):
        wrong = Target("openvino", "CPU", {"precision": "no_such_precision"})
        profile(openvino_network(False), frame, wrong)
    with pytest.raises(UserError, match="at least 5"):
        profile(openvino_network(False), frame, OPENVINO, rounds=4)


def test_a_running_average_in_whole_microseconds_gives_the_typical_inference():
    rng = np.random.default_rng(0)
    typical = 30
    # microseconds: a first inference that packs weights, then noise, twice another process
    spent = np.concatenate([[17_000], typical + rng.integers(-2, 3, 25)])
    spent[[12, 19]] += 4000
    warmup = 5

    def found(spent: np.ndarray) -> float:
        averages = np.cumsum(spent) // np.arange(1, len(spent) + 1)
        assert averages[-1] > 30 * typical  # the first inference is still in it
        return 1e3 * per_inference(averages[warmup - 1 :] / 1e3, warmup, spent[warmup:] / 1e6)

    assert found(spent) == pytest.approx(typical, abs=3)
    # a neighbour that takes the CPU every few inferences
    busy = spent.copy()
    busy[6::4] += 4000
    assert found(busy) == pytest.approx(typical, abs=3)
    assert per_inference(np.zeros(21), warmup, np.ones(20)) == 0


def test_onnx_runtime_tells_integer_and_depthwise_convolutions_and_leaves_no_file(
    frame, tmp_path, monkeypatch
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.chdir(scratch)
    floating = profile(onnx_network(tmp_path / "f.onnx", int8=False), frame, ONNXRUNTIME, 5)
    integer = profile(onnx_network(tmp_path / "q.onnx", int8=True), frame, ONNXRUNTIME, 5)
    assert {"float convolution", "float depthwise convolution"} <= names(floating)
    assert floating.int8_share == 0
    assert {"int8 convolution", "int8 depthwise convolution"} <= names(integer)
    assert integer.int8_share == 1
    for found in (floating, integer):
        groups = found.by_group()
        assert sum(group.milliseconds for group in groups) == pytest.approx(found.total_ms)
        assert 0 < found.total_ms <= found.inference_ms
        assert all(layer.calls == 1 for layer in found.layers)
    assert list(scratch.iterdir()) == []


def test_an_onnx_file_that_does_not_load_is_one_line_and_leaves_no_file(tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
    with pytest.raises(UserError, match=r"broken\.onnx"):
        profile(tmp_path / "broken.onnx", np.zeros(1), ONNXRUNTIME)
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        ("QLinearConv", "convolution"),
        ("NhwcFusedConv", "convolution"),
        ("QGemm", "matmul, fully connected"),
        ("QLinearAdd", "element-wise, activation"),
        ("QuickGelu", "element-wise, activation"),
        ("QuantizeLinear", "quantise, convert, reorder"),
        ("QLinearGlobalAveragePool", "pooling, reduce"),
        ("MVN", "normalisation"),
        ("Q", "other"),
        ("NonMaxSuppression", "other"),
    ],
)
def test_an_operator_belongs_to_its_layer_type(operator, kind):
    assert kind_of(operator) == kind


def test_a_fused_layer_of_nothing_but_quantisers_is_no_arithmetic():
    assert kind_of("Subgraph", ["FakeQuantize", "Convert"]) == "quantise, convert, reorder"
    assert kind_of("Subgraph", ["FakeQuantize", "Gelu"]) == "element-wise, activation"


def test_one_input_channel_is_not_depthwise(tmp_path):
    rng = np.random.default_rng(0)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "w"], ["y"], pads=[1, 1, 1, 1])],
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 20, 20])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 20, 20])],
        [numpy_helper.from_array(weights(rng, (8, 1, 3, 3)), "w")],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "one.onnx")
    found = profile(
        tmp_path / "one.onnx", np.ones((1, 1, 20, 20), np.float32), ONNXRUNTIME, rounds=2
    )
    assert "float convolution" in names(found)
    assert "float depthwise convolution" not in names(found)


def test_a_device_with_one_runtime_can_bench():
    code = (
        "import sys; sys.modules['onnxruntime'] = sys.modules['openvino'] = None; "
        "import kdas_edge.bench.harness"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
