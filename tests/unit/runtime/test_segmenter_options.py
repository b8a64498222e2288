"""Colours, regions, defaults and what a result tells."""

import cv2
import numpy as np
import pytest
import tiny_bundle
from tiny_bundle import make_tiny_bundle, rewrite_manifest, scene

from kdas_edge.bench.models import predictor
from kdas_edge.bundle import shipped
from kdas_edge.bundle.reader import open_bundle
from kdas_edge.data.layout import find_pairs
from kdas_edge.errors import UserError
from kdas_edge.image_files import read_image
from kdas_edge.runtime import Segmenter
from kdas_edge.runtime.backends import open_backend
from kdas_edge.runtime.failures import TargetError
from kdas_edge.runtime.masks import mask_at_size
from kdas_edge.runtime.targets import parse_target

TARGET = "openvino:CPU:threads=1"
FRAME = np.ascontiguousarray(scene(200, 240)[..., ::-1])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_tiny_bundle(tmp_path_factory.mktemp("options") / "tiny")


@pytest.fixture(scope="module", params=["core", "camera"])
def segmenter(path, request):
    with Segmenter.load(path, TARGET, preset=request.param) as loaded:
        yield loaded


def test_every_order_of_the_channels_gives_the_same_mask(segmenter):
    wanted = segmenter.segment(FRAME).probability
    rgb = segmenter.segment(np.ascontiguousarray(FRAME[..., ::-1]), color="rgb")
    np.testing.assert_array_equal(rgb.probability, wanted)
    bgra = segmenter.segment(cv2.cvtColor(FRAME, cv2.COLOR_BGR2BGRA), color="bgra")
    np.testing.assert_array_equal(bgra.probability, wanted)
    assert not np.array_equal(segmenter.segment(FRAME, color="rgb").probability, wanted)


def test_a_grey_frame_is_the_colour_frame_of_three_equal_channels(segmenter):
    grey = FRAME[..., 1]
    wanted = segmenter.segment(np.dstack([grey] * 3)).probability
    for given in (grey, np.ascontiguousarray(grey)[..., None]):
        found = segmenter.segment(given, color="gray")
        np.testing.assert_array_equal(found.probability, wanted)
    with pytest.raises(UserError, match='say color="gray"'):
        segmenter.segment(grey)


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (64, 64), (63, 65), (300, 430)])
def test_any_size_of_frame_has_a_mask_of_its_size(segmenter, size):
    assert segmenter.segment(np.ascontiguousarray(scene(*size))).mask.shape == size


@pytest.mark.parametrize("preset", ["core", "camera"])
def test_a_region_gives_the_mask_of_its_part_and_nothing_outside(path, preset):
    big = np.zeros((300, 400, 3), np.uint8)
    big[50:250, 100:340] = FRAME
    with Segmenter.load(path, TARGET, preset=preset, roi=(100, 50, 240, 200)) as segmenter:
        result = segmenter.segment(big)
        with pytest.raises(UserError, match="leaves the frame"):
            segmenter.segment(FRAME)
    with Segmenter.load(path, TARGET, preset=preset) as segmenter:
        alone = segmenter.segment(FRAME)
    np.testing.assert_array_equal(result.mask[50:250, 100:340], alone.mask)
    assert result.mask.sum() == alone.mask.sum() > 0
    assert tuple(result.region) == (100, 50, 240, 200) and alone.region is None
    x, y, width, height = alone.boxes[0]
    assert result.boxes[0] == (x + 100, y + 50, width, height)


def test_the_picture_within_a_black_border_is_found(path):
    big = np.zeros((300, 400, 3), np.uint8)
    big[50:250, 100:340] = FRAME
    with Segmenter.load(path, TARGET, roi="auto") as segmenter:
        region = segmenter.segment(big).region
        assert 90 <= region.x <= 100 and 240 <= region.width <= 260
        assert segmenter.segment(np.zeros_like(big)).region == region
        segmenter.forget_region()
        assert segmenter.segment(np.zeros_like(big)).region is None


def test_an_unknown_region_is_refused_before_anything_is_loaded():
    with pytest.raises(UserError, match='give "auto"'):
        Segmenter.load("no/such/bundle", TARGET, roi="circle")


def test_a_result_tells_its_model_and_when_each_stage_was_done(segmenter):
    result = segmenter.segment(FRAME)
    assert result.model == f"tiny int8 {segmenter.preset} on {TARGET}"
    stamps = result.timestamps
    assert list(stamps) == ["received", "prepared", "inferred", "finished"]
    assert list(stamps.values()) == sorted(stamps.values())
    whole = 1e3 * (stamps["finished"] - stamps["received"])
    assert sum(result.milliseconds.values()) == pytest.approx(whole)
    assert len(result.components) == 1 and result.areas == (int(result.mask.sum()),)


def test_a_large_frame_gets_the_mask_of_the_evaluation_but_for_the_contour(path):
    # the evaluation resizes with PIL, the segmenter quicker
    bundle = open_bundle(path)
    predict = predictor(bundle, open_backend(bundle, "fp32", parse_target(TARGET)))
    with Segmenter.load(path, TARGET, precision="fp32", preset="core") as segmenter:
        for seed in range(3):
            frame = scene(540, 960, seed)
            found = segmenter.segment(frame, color="rgb")
            wanted = predict(frame)
            assert np.abs(found.probability - wanted).max() < 0.02
            mask = mask_at_size(wanted, bundle.manifest.threshold, 540, 960)
            assert (mask != found.mask).mean() < 1e-4
            # a frame of usual size is resized by PIL itself
            small = scene(90, 120, seed)
            np.testing.assert_array_equal(
                segmenter.segment(small, color="rgb").probability, predict(small)
            )


@pytest.mark.data
def test_real_frames_get_the_masks_of_the_evaluation(path, real_data):
    bundle = open_bundle(path)
    predict = predictor(bundle, open_backend(bundle, "fp32", parse_target(TARGET)))
    with Segmenter.load(path, TARGET, precision="fp32") as segmenter:
        for pair in find_pairs(real_data / "TestDataset/Kvasir").pairs[:10]:
            frame = read_image(pair.image)
            mask = mask_at_size(predict(frame), bundle.manifest.threshold, *frame.shape[:2])
            assert (segmenter.segment(frame, color="rgb").mask != mask).mean() < 2e-3, pair.name


def test_without_a_bundle_the_shipped_student_is_loaded(path, monkeypatch, tmp_path):
    monkeypatch.setattr(shipped, "STUDENT", path)
    with Segmenter.load(target=TARGET) as segmenter:
        assert segmenter.bundle.name == "tiny"
    monkeypatch.setattr(shipped, "STUDENT", tmp_path / "none")
    with pytest.raises(UserError, match="name a bundle"):
        Segmenter.load(target=TARGET)


def test_the_preset_is_core_and_camera_where_there_is_no_core(path, tmp_path):
    with Segmenter.load(path, TARGET) as segmenter:
        assert segmenter.preset == "core"
    camera = make_tiny_bundle(tmp_path / "camera", presets=("camera",))
    with Segmenter.load(camera, TARGET) as segmenter:
        assert (segmenter.preset, segmenter.precision) == ("camera", "int8")
        assert segmenter.segment(FRAME).mask.any()


def test_the_holoscan_preset_is_refused_with_those_that_take_a_frame(tmp_path):
    bundle = make_tiny_bundle(tmp_path / "tiny", presets=("core", "holoscan"))
    with pytest.raises(UserError, match="choose core or camera"):
        Segmenter.load(bundle, TARGET, preset="holoscan")


@pytest.mark.parametrize("target", [TARGET, "onnxruntime:CPU:threads=1"])
def test_a_network_that_gives_no_numbers_is_a_failure_and_not_a_frame_without_polyps(
    monkeypatch, tmp_path, target
):
    monkeypatch.setattr(tiny_bundle, "BIAS", np.float32("nan"))
    bundle = make_tiny_bundle(tmp_path / "nan")
    segmenter = Segmenter.load(bundle, target)
    with segmenter, pytest.raises(TargetError, match="no numbers") as caught:
        segmenter.segment(FRAME)
    assert caught.value.kind == "inference failed"


def test_a_tampered_bundle_and_one_of_a_newer_schema_are_refused_before_any_inference(tmp_path):
    tampered = make_tiny_bundle(tmp_path / "tampered")
    weights = tampered / "int8/core.bin"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match="does not match its hash"):
        Segmenter.load(tampered, TARGET)
    newer = make_tiny_bundle(tmp_path / "newer")
    rewrite_manifest(newer, lambda values: values.update(schema_version="9.0", later="?"))
    with pytest.raises(UserError, match=r"schema version '9.0'.*install kdas-edge '0.1.0'"):
        Segmenter.load(newer, TARGET)
