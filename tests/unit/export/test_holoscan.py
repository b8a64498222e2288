"""The holoscan preset: NHWC float32 RGB of 0…1, static, the normalisation inside."""

from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
import pytest
from onnx import TensorProto, helper

from kdas_edge.bundle.manifest import Normalisation
from kdas_edge.export import openvino as openvino_room
from kdas_edge.export.onnx import export as onnx_room
from kdas_edge.export.onnx.float16 import to_half
from kdas_edge.export.presets import INPUT, OUTPUT, input_contract, with_input

SIZE = 16
IMAGENET = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def openvino_core() -> ov.Model:
    """A `core` graph that returns its input."""
    image = ov.opset13.parameter([1, 3, SIZE, SIZE], np.float32, name=INPUT)
    return ov.Model([ov.opset13.add(image, np.float32(0))], [image])


def onnx_core() -> onnx.ModelProto:
    shape = [1, 3, SIZE, SIZE]
    graph = helper.make_graph(
        [helper.make_node("Identity", [INPUT], [OUTPUT])],
        "core",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def run_openvino(model: ov.Model, x: np.ndarray) -> np.ndarray:
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled(x)[0]


def run_onnx(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


ROOMS = [(openvino_room, openvino_core, run_openvino), (onnx_room, onnx_core, run_onnx)]


@pytest.mark.parametrize(("room", "core", "run"), ROOMS, ids=["openvino", "onnx"])
def test_unit_rgb_becomes_what_training_fed(room: ModuleType, core: Any, run: Any) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), np.uint8)
    model = with_input(room, core(), "holoscan", IMAGENET, SIZE)
    found = run(model, rgb.astype(np.float32) / 255)
    wanted = (rgb / 255 - np.array(IMAGENET.mean)) / np.array(IMAGENET.std)
    np.testing.assert_allclose(found, wanted.transpose(0, 3, 1, 2), atol=1e-5)
    # black and white, the ends of the recorded range
    low, high = input_contract("holoscan", SIZE).value_range or (None, None)
    ends = run(model, np.array([low, high], np.float32).repeat(SIZE * SIZE * 3 // 2).reshape(
        1, SIZE, SIZE, 3
    ))  # fmt: skip
    assert ends[0, 0].min() == pytest.approx(-0.485 / 0.229, abs=1e-5)
    assert ends[0, 2].max() == pytest.approx((1 - 0.406) / 0.225, abs=1e-5)


def test_every_dimension_is_static_and_as_in_the_contract() -> None:
    contract = input_contract("holoscan", SIZE)
    assert (contract.layout, contract.dtype, contract.color) == ("NHWC", "float32", "RGB")
    assert contract.shape == (1, SIZE, SIZE, 3) and contract.value_range == (0, 1)
    ir = with_input(openvino_room, openvino_core(), "holoscan", IMAGENET, SIZE)
    assert ir.input(0).get_any_name() == contract.name
    assert tuple(ir.input(0).partial_shape.to_shape()) == contract.shape
    assert ir.input(0).element_type == ov.Type.f32
    assert not ir.is_dynamic()
    entry = with_input(onnx_room, onnx_core(), "holoscan", IMAGENET, SIZE).graph.input[0]
    dims = entry.type.tensor_type.shape.dim
    assert entry.name == contract.name
    assert all(dim.HasField("dim_value") for dim in dims)
    assert tuple(dim.dim_value for dim in dims) == contract.shape


def test_a_float16_graph_still_takes_float32() -> None:
    half = with_input(onnx_room, to_half(onnx_core()), "holoscan", IMAGENET, SIZE)
    x = np.full((1, SIZE, SIZE, 3), 0.5, np.float32)
    wanted = (0.5 - np.array(IMAGENET.mean)) / np.array(IMAGENET.std)
    np.testing.assert_allclose(run_onnx(half, x)[0, :, 0, 0], wanted, atol=2e-3)


@pytest.mark.parametrize(
    ("preset", "layout"), [("core", "NCHW"), ("camera", "NHWC"), ("holoscan", "NHWC")]
)
def test_an_ir_says_the_layout_of_its_input_but_not_of_its_output(
    preset: Any, layout: str, tmp_path: Any
) -> None:
    core = openvino_core()
    openvino_room._set_names(core, INPUT, "NCHW")
    model = with_input(openvino_room, core, preset, IMAGENET, SIZE)
    openvino_room.save_openvino(model, tmp_path / "model.xml", {})
    read = ov.Core().read_model(tmp_path / "model.xml")
    assert ov.layout_helpers.get_layout(read.input(0)) == ov.Layout(layout)
    # with both ends known, Triton's OpenVINO backend replaces `max_batch_size: 0`
    assert ov.layout_helpers.get_layout(read.output(0)).empty
