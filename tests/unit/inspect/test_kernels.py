"""Why int8 is not faster, from the graph that the runtime really runs."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_student import SIZE, TinyStudent
from torch import nn

from kdas_edge.export import openvino as to_openvino
from kdas_edge.export import timing
from kdas_edge.export.onnx import export as to_onnx
from kdas_edge.inspect import kernels
from kdas_edge.inspect.kernels import Kernels, kernels_of
from kdas_edge.latency import Latency, speedup

CHANNELS, SIDE = 32, 64


class Graph:
    """A chain of depthwise-separable blocks, float or quantised with chosen activation ranges."""

    def __init__(self, ranges: str | None, activation: str = "") -> None:
        self.ranges, self.activation = ranges, activation
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(0)

    def constant(self, value: np.ndarray) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, kind: str, *inputs: str, **attributes: int) -> str:
        name = f"value_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def quantise(self, x: str, channel: bool) -> str:
        shape = (CHANNELS,) if channel else ()
        scale = self.constant(np.full(shape, 0.05, np.float32))
        zero = self.constant(np.full(shape, 128, np.uint8))
        axis = {"axis": 1} if channel else {}
        x = self.add("QuantizeLinear", x, scale, zero, **axis)
        return self.add("DequantizeLinear", x, scale, zero, **axis)

    def conv(self, x: str, kernel: int, group: int) -> str:
        shape = (CHANNELS, CHANNELS // group, kernel, kernel)
        if self.ranges is None:
            weight = self.constant(self.rng.normal(size=shape).astype(np.float32))
        else:
            integers = self.rng.integers(-127, 128, shape).astype(np.int8)
            scale = np.full(CHANNELS, 0.01, np.float32)
            weight = self.add(
                "DequantizeLinear",
                *map(self.constant, (integers, scale, np.zeros(CHANNELS, np.int8))),
                axis=0,
            )
        bias = self.constant(np.zeros(CHANNELS, np.float32))
        attributes = {"group": group, "pads": [kernel // 2] * 4}
        return self.add("Conv", x, weight, bias, **attributes)

    def save(self, path: Path, blocks: int) -> Path:
        x = "image"
        if self.ranges:
            x = self.quantise(x, False)
        for _ in range(blocks):
            x = self.conv(x, 1, 1)
            if self.activation == "SiLU":
                x = self.add("Mul", x, self.add("Sigmoid", x))
            if self.activation == "Relu":
                x = self.add("Relu", x)
            if self.ranges:
                x = self.quantise(x, self.ranges == "channel")
            x = self.conv(x, 3, CHANNELS)
            if self.ranges:
                x = self.quantise(x, False)
        self.nodes.append(helper.make_node("Relu", [x], ["probabilities"]))
        shape = [1, CHANNELS, SIDE, SIDE]
        ends = [
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
            for name in ("image", "probabilities")
        ]
        graph = helper.make_graph(self.nodes, "g", *ends, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, path)
        return path


def test_with_one_range_per_tensor_every_convolution_runs_in_int8(tmp_path: Path) -> None:
    found = kernels_of(Graph("tensor").save(tmp_path / "tensor.onnx", 3))
    assert (found.convolutions_int8, found.convolutions) == (6, 6)
    assert found.reasons == {}
    assert "6 of 6 convolutions in int8" in found.counts()


def test_with_a_range_per_channel_both_neighbours_run_in_float_and_it_is_said(
    tmp_path: Path,
) -> None:
    found = kernels_of(Graph("channel", "Relu").save(tmp_path / "channel.onnx", 3))
    assert (found.convolutions_int8, found.convolutions) == (0, 6)
    assert found.reasons == {kernels.PER_CHANNEL: 6}
    assert "range per channel" in found.explanation()


def test_an_activation_in_float_is_named(tmp_path: Path) -> None:
    found = kernels_of(Graph("tensor", "SiLU").save(tmp_path / "silu.onnx", 3))
    # the depthwise ones still meet quantisers on both sides
    assert (found.convolutions_int8, found.convolutions) == (3, 6)
    assert found.reasons == {kernels.FLOAT_RESULT: 3}
    assert set(found.result_goes_to) <= {"SiLU", "Sigmoid", "Mul"}
    assert found.conversions >= 6 and "(to " in found.explanation()


def test_a_float_file_has_no_int8_layer(tmp_path: Path) -> None:
    found = kernels_of(Graph(None).save(tmp_path / "float.onnx", 2))
    assert (found.convolutions_int8, found.convolutions) == (0, 4)
    assert found.reasons == {kernels.FLOAT_WEIGHT: 4}


def test_int8_that_is_slower_is_reported_with_its_reason(tmp_path: Path) -> None:
    float_file = Graph(None, "Relu").save(tmp_path / "float.onnx", 6)
    slow = Graph("channel", "Relu").save(tmp_path / "channel.onnx", 6)
    x = np.random.default_rng(0).normal(size=(1, CHANNELS, SIDE, SIDE)).astype(np.float32)
    (speed,) = timing.time_int8({"onnx": (float_file, slow)}, x, rounds=12)
    # the same float convolutions, and twelve conversions more
    assert not speed.faster and speed.ratio.value < 1
    assert speed.line().startswith("int8 is NOT faster than fp32 in ONNX Runtime: 0.")
    assert "12 beside an activation range per channel" in speed.line()
    assert "\n" not in speed.line()
    values = speed.as_json()
    assert values["faster"] is False and values["kernels"]["convolutions_int8"] == 0
    assert values["fp32_ms"] < values["int8_ms"] and values["rounds"] == 12


def speed_of(int8: list[float]) -> timing.Int8Speed:
    fp32 = Latency(np.full(len(int8), 2e-3), 1.0)
    ratio = speedup(fp32, Latency(np.asarray(int8), 1.0))
    return timing.Int8Speed("openvino", 2.0, 1e3 * float(np.median(int8)), ratio, 12, KERNELS)


KERNELS = Kernels(70, 60, 4, 2, {kernels.FLOAT_INPUT: 10}, {}, 3, {"Interpolate": 7})


def test_int8_that_is_faster_is_praised_with_its_ratio_and_no_excuse() -> None:
    speed = speed_of([1e-3] * 12)
    assert speed.faster
    assert speed.line() == (
        "int8 is 2.00 × (2.00–2.00) as fast as fp32 in OpenVINO, one thread: 60 of 70 "
        "convolutions and 2 of 4 matrix products in int8"
    )


def test_int8_that_may_be_faster_by_chance_only_is_not_called_faster() -> None:
    speed = speed_of([1.9e-3] * 7 + [2.2e-3] * 5)
    assert speed.ratio.value > 1 and not speed.faster
    assert "NOT faster" in speed.line() and "10 with an input that was not" in speed.line()


@pytest.mark.parametrize("end", [".onnx", ".xml"])
def test_an_exported_network_is_judged_in_both_runtimes(
    end: str, tiny: TinyStudent, tiny_int8: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / f"int8{end}"
    if end == ".xml":
        to_openvino.save_openvino(to_openvino.to_openvino(tiny_int8, SIZE), path, {})
    else:
        to_onnx.save_onnx(to_onnx.to_onnx(tiny_int8, SIZE), path, {})
    found = kernels_of(path)
    convolutions = sum(isinstance(module, nn.Conv2d) for module in tiny.network.modules())
    # the average pool of the channel attention is a convolution for no runtime
    assert abs(found.convolutions - convolutions) <= 4
    assert 0 < found.convolutions_int8 < found.convolutions
    assert sum(found.reasons.values()) == found.convolutions - found.convolutions_int8
