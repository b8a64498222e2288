"""torch to OpenVINO: the same numbers, static shapes, metadata, the same bytes."""

from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch
from tiny_student import SIZE, TinyStudent
from torch import nn

from kdas_edge.bundle.manifest import Normalisation
from kdas_edge.bundle.metadata import model_metadata
from kdas_edge.data.layout import resize_image
from kdas_edge.data.synthetic import scene
from kdas_edge.export import openvino as exporter
from kdas_edge.export.graph import DeployGraph


def run(model: ov.Model, x: np.ndarray) -> np.ndarray:
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled(x)[0]


def torch_output(network: nn.Module, x: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return DeployGraph(network).eval()(x).numpy()


def test_the_float_ir_gives_torchs_probabilities_with_static_shapes(tiny: TinyStudent) -> None:
    model = exporter.to_openvino(tiny.network, SIZE)
    assert model.input(0).partial_shape.to_shape() == [1, 3, SIZE, SIZE]
    assert model.output(0).partial_shape.to_shape() == [1, 2, SIZE, SIZE]
    assert model.output(0).get_any_name() == "probabilities"
    x = tiny.inputs(tiny.frames[:1])[0]
    assert np.abs(run(model, x.numpy()) - torch_output(tiny.network, x)).max() < 1e-4


def test_the_int8_ir_gives_the_masks_of_the_fake_quantised_network(
    tiny: TinyStudent, tiny_int8: nn.Module
) -> None:
    model = exporter.to_openvino(tiny_int8, SIZE)
    assert exporter.fake_quantize_operators(model) > 10
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    parts = []
    for x in tiny.inputs(tiny.frames[:8]):
        ours, theirs = compiled(x.numpy())[0][0, 1], torch_output(tiny_int8, x)[0, 1]
        parts.append(((ours > 0.5) != (theirs > 0.5)).mean())
    assert np.mean(parts) < 0.005


def test_two_exports_of_one_network_are_one_file_without_local_paths(
    tiny: TinyStudent, tmp_path: Path
) -> None:
    texts = []
    for name in ("a", "b"):
        model = exporter.to_openvino(tiny.network, SIZE)
        exporter.save_openvino(model, tmp_path / f"{name}.xml", {"labels": "background polyp"})
        texts.append((tmp_path / f"{name}.xml").read_bytes())
        texts.append((tmp_path / f"{name}.bin").read_bytes())
    assert texts[:2] == texts[2:]
    assert str(tmp_path).encode() not in texts[0] and b"site-packages" not in texts[0]


def test_the_metadata_can_be_read_from_the_ir(tiny: TinyStudent, tmp_path: Path) -> None:
    normalisation = Normalisation(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    metadata = model_metadata("core", "fp32", normalisation, 0.5, SIZE)
    exporter.save_openvino(
        exporter.to_openvino(tiny.network, SIZE), tmp_path / "model.xml", metadata
    )
    info = ov.Core().read_model(tmp_path / "model.xml").get_rt_info(["model_info"]).value
    assert {key: str(value) for key, value in info.items()} == metadata


@pytest.mark.parametrize("size", [SIZE, 83])  # whole bands of output lines, and a part of one
@pytest.mark.parametrize(("height", "width"), [(90, 120), (50, 40), (SIZE, SIZE), (1, 160)])
def test_the_camera_ir_resizes_as_pil_does_at_any_frame_size(
    height: int, width: int, size: int
) -> None:
    plain = Normalisation(mean=(0, 0, 0), std=(1 / 255, 1 / 255, 1 / 255))
    parameter = ov.opset13.parameter([1, 3, size, size], np.float32, name="image")
    identity = ov.Model([ov.opset13.relu(parameter)], [parameter])
    model = exporter.with_camera_input(identity, plain, size)
    assert model.input(0).get_partial_shape() == ov.PartialShape([1, -1, -1, 3])
    frame = scene(3, 160)[0][:height, :width]
    levels = run(model, np.ascontiguousarray(frame[None, ..., ::-1]))[0].transpose(1, 2, 0)
    wanted = resize_image(frame, size, size).astype(np.float32)
    assert np.abs(levels - wanted).max() <= 1.01
    assert (np.abs(levels - wanted) > 0.5).mean() < 0.02


def test_the_camera_graph_keeps_a_static_output_and_leaves_the_core_alone(
    tiny: TinyStudent,
) -> None:
    core = exporter.to_openvino(tiny.network, SIZE)
    normalisation = Normalisation(mean=tiny.architecture.mean, std=tiny.architecture.std)
    camera = exporter.with_camera_input(core, normalisation, SIZE)
    assert camera.output(0).partial_shape.to_shape() == [1, 2, SIZE, SIZE]
    assert core.input(0).partial_shape.to_shape() == [1, 3, SIZE, SIZE]
    frame = tiny.frames[0]
    x = tiny.inputs([frame])[0]
    found = run(camera, np.ascontiguousarray(frame[None, ..., ::-1]))
    # a frame of the network's size is not resized, so that nothing may differ
    assert np.abs(found - torch_output(tiny.network, x)).max() < 1e-4
