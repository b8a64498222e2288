"""The metadata object: what a host must do with a BGR frame of 0…255 before each preset."""

import numpy as np
import pytest
from tiny_bundle import NORMALISATION, scene

from kdas_edge.bundle.manifest import PRESETS
from kdas_edge.bundle.metadata import VALUE_RANGES, model_metadata

MEAN, STD = np.asarray(NORMALISATION.mean), np.asarray(NORMALISATION.std)


def as_a_host_does(metadata: dict[str, str], frame_bgr: np.ndarray) -> np.ndarray:
    """Follow the keys as OpenVINO Model API and DL Streamer do."""
    mean, scale = (
        np.array([float(word) for word in metadata[key].split()])
        for key in ("mean_values", "scale_values")
    )
    swapped = metadata["reverse_input_channels"] == "True"
    return ((frame_bgr[..., ::-1] if swapped else frame_bgr).astype(float) - mean) / scale


def test_a_host_that_follows_the_keys_makes_the_input_of_each_preset() -> None:
    rgb = scene()
    made = {
        preset: as_a_host_does(
            model_metadata(preset, "fp32", NORMALISATION, 0.5, 64), rgb[..., ::-1]
        )
        for preset in PRESETS
    }
    np.testing.assert_allclose(made["core"], (rgb / 255 - MEAN) / STD, atol=1e-5)
    np.testing.assert_array_equal(made["camera"], rgb[..., ::-1])
    np.testing.assert_allclose(made["holoscan"], rgb / 255)


@pytest.mark.parametrize("preset", ["camera", "holoscan"])
def test_the_recorded_range_is_that_of_the_prepared_input(preset: str) -> None:
    metadata = model_metadata(preset, "fp32", NORMALISATION, 0.5, 64)
    black_and_white = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    made = as_a_host_does(metadata, black_and_white)
    assert VALUE_RANGES[preset] == (made.min(), made.max())
    assert metadata["kdas_edge_value_range"] == f"{made.min():g} {made.max():g}"


def test_only_a_camera_file_tells_model_api_to_leave_the_frame_alone() -> None:
    told = {
        preset: model_metadata(preset, "int8", NORMALISATION, 0.5, 64)["embedded_processing"]
        for preset in PRESETS
    }
    assert told == {"core": "False", "camera": "True", "holoscan": "False"}


def test_an_older_schema_has_the_keys_that_its_files_hold() -> None:
    new = model_metadata("camera", "fp32", NORMALISATION, 0.5, 64)
    old = model_metadata("camera", "fp32", NORMALISATION, 0.5, 64, schema="1.1")
    assert new.keys() - old.keys() == {"embedded_processing", "kdas_edge_value_range"}
    assert {key: new[key] for key in old if key != "kdas_edge_schema"} == {
        key: value for key, value in old.items() if key != "kdas_edge_schema"
    }


def test_every_key_that_dl_streamer_reads_is_there() -> None:
    # DL Streamer does not run here (it is a set of GStreamer plugins for Intel systems): the keys
    # and values are those that its source (model_api_converters.cpp, 2026) looks for
    metadata = model_metadata("core", "fp32", NORMALISATION, 0.5, 64)
    # its converter semantic_segmentation: arg-max over the channels of a float map
    assert metadata["model_type"] == "Segmentation"
    assert metadata["labels"].split() == ["background", "polyp"]
    # resize without keeping the aspect ratio, as in training
    assert metadata["resize_type"] == "standard"
    assert metadata["reverse_input_channels"].lower() == "true"
    # exactly three numbers each, or it refuses the model
    assert len(metadata["mean_values"].split()) == len(metadata["scale_values"].split()) == 3
