"""Hosts that read the metadata of an IR: OpenVINO Model API itself, and DL Streamer's steps.

DL Streamer is a set of GStreamer plugins for Intel systems and does not run here. What its OpenVINO
backend does with the keys (configure_image_input and SemanticSegmentationConverter, 2026) is a few
calls of OpenVINO, made here.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openvino as ov
import pytest
from openvino.preprocess import ColorFormat, PrePostProcessor, ResizeAlgorithm
from tiny_bundle import NORMALISATION, make_tiny_bundle, scene

from kdas_edge.runtime import Segmenter
from kdas_edge.runtime.segmenter import Result

SIZE = 64
# the sum of channels in the BGR frame differs, so that swapped channels would change the mask
AT_NETWORK_SIZE = scene(SIZE, SIZE, seed=3)[..., ::-1].copy()
FULL_FRAME = scene(360, 480, seed=6)[..., ::-1].copy()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("hosts") / "tiny", SIZE)


def segment(bundle: Path, frame: np.ndarray, precision: str, preset: str = "core") -> Result:
    with Segmenter.load(bundle, "openvino:CPU:threads=1", precision, preset) as segmenter:
        result = segmenter.segment(frame)
    assert 0.02 < result.mask.mean() < 0.5
    return result


def open_in_model_api(path: Path) -> Any:
    models = pytest.importorskip(
        "model_api.models", reason="needs OpenVINO Model API (pip install openvino-model-api)"
    )
    from model_api.adapters import OpenvinoAdapter, create_core

    # as the guide says: bf16 would be the default where the processor has it
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    adapter = OpenvinoAdapter(create_core(), str(path), device="CPU", plugin_config=exact)
    model = models.Model.create_model(adapter)
    assert type(model) is models.SegmentationModel
    return model


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_model_api_makes_the_same_mask_of_a_camera_frame(bundle: Path, precision: str) -> None:
    model = open_in_model_api(bundle / precision / "camera.xml")
    assert model.params.labels == ["background", "polyp"]
    found = model(FULL_FRAME)
    expected = segment(bundle, FULL_FRAME, precision, "camera")
    height, width = FULL_FRAME.shape[:2]
    assert found.resultImage.shape == (height, width)
    # Model API enlarges without interpolation: in the middle of each block is the network's value
    rows, columns = (
        ((np.arange(SIZE) + 0.5) * side / SIZE).astype(int) for side in (height, width)
    )
    probability = found.soft_prediction[np.ix_(rows, columns, [1])][..., 0]
    np.testing.assert_allclose(probability, expected.probability, atol=1e-5)
    # so that only the contour differs from the segmenter's, which interpolates
    reach = width // SIZE + 1
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    contour = cv2.morphologyEx(expected.mask.astype(np.uint8), cv2.MORPH_GRADIENT, kernel) > 0
    assert not ((found.resultImage > 0) != expected.mask)[~contour].any()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_model_api_prepares_the_input_of_a_core_file_as_in_training(
    bundle: Path, precision: str
) -> None:
    model = open_in_model_api(bundle / precision / "core.xml")
    assert model.params.labels == ["background", "polyp"]
    assert model.params.reverse_input_channels is True
    np.testing.assert_allclose(model.params.mean_values, 255 * np.array(NORMALISATION.mean))
    np.testing.assert_allclose(model.params.scale_values, 255 * np.array(NORMALISATION.std))
    # at the network's size nothing is resized; Model API's own resize has no antialiasing
    found = model(AT_NETWORK_SIZE).resultImage > 0
    np.testing.assert_array_equal(found, segment(bundle, AT_NETWORK_SIZE, precision).mask)
    # the whole frame becomes the square, its sides are not kept in proportion
    assert model.params.resize_type == "standard"
    wide = cv2.resize(AT_NETWORK_SIZE, (3 * SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    found = model(wide).resultImage > 0
    assert (found != segment(bundle, wide, precision).mask).mean() < 0.02


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_steps_of_dl_streamer_give_the_same_mask(bundle: Path, precision: str) -> None:
    model = ov.Core().read_model(bundle / precision / "core.xml")
    keys = {
        key: model.get_rt_info(["model_info", key]).astype(str)
        for key in ("labels", "mean_values", "scale_values", "reverse_input_channels")
    }
    steps = PrePostProcessor(model)
    image = steps.input()
    image.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    image.tensor().set_color_format(ColorFormat.BGR).set_spatial_static_shape(SIZE, SIZE)
    if keys["reverse_input_channels"].lower() == "true":
        image.preprocess().convert_color(ColorFormat.RGB)
    image.preprocess().resize(ResizeAlgorithm.RESIZE_LINEAR).convert_element_type(ov.Type.f32)
    image.preprocess().mean([float(word) for word in keys["mean_values"].split()])
    image.preprocess().scale([float(word) for word in keys["scale_values"].split()])
    # exported files say their layout themselves (see test_holoscan.py)
    image.model().set_layout(ov.Layout("NCHW"))
    compiled = ov.Core().compile_model(steps.build(), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    scores = compiled(AT_NETWORK_SIZE[np.newaxis])[0]
    labels = keys["labels"].split()
    found = scores[0].argmax(axis=0) == labels.index("polyp")
    np.testing.assert_array_equal(found, segment(bundle, AT_NETWORK_SIZE, precision).mask)
