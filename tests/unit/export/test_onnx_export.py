"""torch to ONNX: the same numbers in ONNX Runtime, in standard operators, in the same bytes."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from tiny_student import SIZE, TinyStudent, train_tiny_student
from torch import nn

from kdas_edge.bundle.manifest import Normalisation
from kdas_edge.data.layout import resize_image
from kdas_edge.data.synthetic import scene
from kdas_edge.export.graph import DeployGraph
from kdas_edge.export.onnx import export as exporter
from kdas_edge.quantize.ptq import post_training_quantize
from kdas_edge.recipe import PtqRecipe


def run(model: onnx.ModelProto, x: np.ndarray, optimise: bool = True) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def torch_output(network: nn.Module, x: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return DeployGraph(network).eval()(x).numpy()


def disagreement(model: onnx.ModelProto, network: nn.Module, tiny: TinyStudent) -> float:
    parts = []
    for x in tiny.inputs(tiny.frames[:8]):
        ours, theirs = run(model, x.numpy())[0, 1], torch_output(network, x)[0, 1]
        parts.append(((ours > 0.5) != (theirs > 0.5)).mean())
    return float(np.mean(parts))


def test_the_float_graph_gives_torchs_probabilities_in_two_channels(tiny: TinyStudent) -> None:
    model = exporter.to_onnx(tiny.network, SIZE)
    for x in tiny.inputs(tiny.frames[:3]):
        found = run(model, x.numpy())
        assert found.shape == (1, 2, SIZE, SIZE)
        np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
        assert np.abs(found - torch_output(tiny.network, x)).max() < 1e-4


def test_the_int8_graph_gives_the_masks_of_the_fake_quantised_network(
    tiny: TinyStudent, tiny_int8: nn.Module
) -> None:
    assert disagreement(exporter.to_onnx(tiny_int8, SIZE), tiny_int8, tiny) < 0.005


def test_rearranging_the_int8_graph_changes_no_value_beyond_rounding_edges(
    tiny: TinyStudent, tiny_int8: nn.Module
) -> None:
    # without ONNX Runtime's kernels only our rewriting differs from torch
    model = exporter.to_onnx(tiny_int8, SIZE)
    x = tiny.inputs(tiny.frames[:1])[0]
    found = run(model, x.numpy(), optimise=False)
    assert np.abs(found - torch_output(tiny_int8, x)).mean() < 1e-3


def test_the_int8_file_holds_int8_weights_and_standard_operators_only(
    tiny_int8: nn.Module,
) -> None:
    model = exporter.to_onnx(tiny_int8, SIZE)
    assert {node.domain for node in model.graph.node} == {""}
    kinds = [node.op_type for node in model.graph.node]
    assert "FakeQuantize" not in kinds and "Identity" not in kinds and "Shape" not in kinds
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    producers = {node.output[0]: node for node in model.graph.node}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    quantised = [
        constants[producers[node.input[1]].input[0]].dtype
        for node in convolutions
        if node.input[1] in producers
    ]
    # NNCF leaves the four tiny convolutions of the channel attention in float
    assert len(quantised) >= len(convolutions) - 4
    assert set(quantised) == {np.dtype(np.int8)}
    # folded into scales and biases
    assert "BatchNormalization" not in kinds


@pytest.mark.parametrize("overflow", ["enable", "first_layer"])
def test_weights_of_half_range_are_exported_too(tiny: TinyStudent, overflow: str) -> None:
    recipe = PtqRecipe(overflow_fix=overflow)
    network = post_training_quantize(tiny.network, tiny.inputs(tiny.frames[:4]), recipe)
    model = exporter.to_onnx(network, SIZE)
    assert disagreement(model, network, tiny) < 0.005
    weights = [numpy_helper.to_array(t) for t in model.graph.initializer]
    grids = [w for w in weights if w.dtype == np.int8 and w.ndim == 4]
    assert any(np.abs(grid.astype(int)).max() <= 64 for grid in grids)
    if overflow == "enable":
        # two neighbouring channels with activations of 255 fit into 16 bits
        shared = [grid.astype(int) for grid in grids if grid.shape[1] > 1]
        assert shared
        for sign in (1, -1):
            one_sign = [(sign * grid).clip(min=0) for grid in shared]
            assert all((grid[:, :-1] + grid[:, 1:]).max() <= 128 for grid in one_sign)


@pytest.mark.slow
def test_convolutions_with_relu6_meet_their_quantiser_and_run_in_int8(tmp_path: Path) -> None:
    tiny = train_tiny_student("mobilenetv2_050", steps=60)
    samples = tiny.inputs(tiny.frames[:4])
    network = post_training_quantize(tiny.network, samples, PtqRecipe(), ranges="tensor")
    model = exporter.to_onnx(network, SIZE)
    # saturation does what the clip did
    assert "Clip" not in {node.op_type for node in model.graph.node}
    x = tiny.inputs(tiny.frames[:1])[0]
    found = run(model, x.numpy(), optimise=False)
    assert np.abs(found - torch_output(network, x)).mean() < 2e-2
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    fused = [node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node]
    assert fused.count("QLinearConv") > 30


@pytest.mark.slow
def test_a_transformer_is_exported_to_int8_as_well() -> None:
    tiny = train_tiny_student("pvt_v2_b0", steps=8)
    network = post_training_quantize(tiny.network, tiny.inputs(tiny.frames[:4]), PtqRecipe())
    model = exporter.to_onnx(network, SIZE)
    assert "FakeQuantize" not in {node.op_type for node in model.graph.node}
    x = tiny.inputs(tiny.frames[:1])[0]
    found = run(model, x.numpy(), optimise=False)
    assert np.abs(found - torch_output(network, x)).mean() < 5e-3
    # fc1 meets the range per channel of the depthwise convolution without an activation between,
    # which ONNX Runtime fuses into a convolution that cannot run, unless the range is moved
    assert np.abs(run(model, x.numpy()) - torch_output(network, x)).mean() < 1e-2


def test_two_exports_of_one_network_are_one_file_without_local_paths(
    tiny: TinyStudent, tiny_int8: nn.Module, tmp_path: Path
) -> None:
    for network in (tiny.network, tiny_int8):
        files = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
        for file in files:
            exporter.save_onnx(exporter.to_onnx(network, SIZE), file, {"b": "2", "a": "1"})
        first, second = (file.read_bytes() for file in files)
        assert first == second
        assert b"site-packages" not in first and str(Path.cwd()).encode() not in first
        assert b".py" not in first


def test_exporting_leaves_the_quantised_network_as_it_was(
    tiny: TinyStudent, tiny_int8: nn.Module
) -> None:
    x = tiny.inputs(tiny.frames[:1])[0]
    before = torch_output(tiny_int8, x)
    exporter.to_onnx(tiny_int8, SIZE)
    np.testing.assert_array_equal(before, torch_output(tiny_int8, x))


def test_the_metadata_can_be_read_from_the_file(tiny: TinyStudent, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    exporter.save_onnx(exporter.to_onnx(tiny.network, SIZE), file, {"labels": "background polyp"})
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == {"labels": "background polyp"}


@pytest.mark.parametrize(("height", "width"), [(90, 120), (50, 40), (SIZE, SIZE)])
def test_the_camera_graph_resizes_as_pil_does(tiny: TinyStudent, height: int, width: int) -> None:
    # the mean is 0 and the standard deviation 1/255, so that grey levels come out as they are
    plain = Normalisation(mean=(0, 0, 0), std=(1 / 255, 1 / 255, 1 / 255))
    model = exporter.with_camera_input(exporter.to_onnx(tiny.network, SIZE), plain, SIZE)
    del model.graph.output[:]
    model.graph.output.append(
        onnx.helper.make_tensor_value_info(
            exporter.INPUT, onnx.TensorProto.FLOAT, [1, 3, SIZE, SIZE]
        )
    )
    frame = scene(3, 160)[0][:height, :width]
    levels = run(model, np.ascontiguousarray(frame[None, ..., ::-1]))[0].transpose(1, 2, 0)
    wanted = resize_image(frame, SIZE, SIZE).astype(np.float32)
    # ONNX Runtime computes in fixed point, with an edge pixel off by more than one grey level
    assert np.abs(levels - wanted).max() <= 3.01
    assert (np.abs(levels - wanted) > 0.5).mean() < 0.02
