import numpy as np
import pytest
from tiny_bundle import NORMALISATION, make_tiny_bundle, probability, scene

from kdas_edge.bundle.reader import open_bundle
from kdas_edge.data.layout import resize_image
from kdas_edge.errors import UserError
from kdas_edge.runtime import Segmenter
from kdas_edge.runtime.segmenter import mask_at_size, preprocess

# one thread: threads that wait for each other are slow on a busy machine
TARGET = "openvino:CPU:threads=1"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_tiny_bundle(tmp_path_factory.mktemp("segmenter") / "tiny")


@pytest.mark.parametrize("preset", ["core", "camera"])
@pytest.mark.parametrize("size", [(90, 120), (64, 64), (31, 200), (240, 320)])
def test_a_polyp_is_found_where_it_is_at_the_size_of_the_frame(path, preset, size):
    frame = scene(*size)
    with Segmenter.load(path, TARGET, preset=preset) as segmenter:
        result = segmenter.segment(np.ascontiguousarray(frame[..., ::-1]))
    assert result.mask.shape == size and result.mask.dtype == np.bool_
    assert result.probability.shape == (64, 64) and result.probability.dtype == np.float32
    # the disc is paler than anything else; its edge moves by one pixel of the 64 at most
    truth = frame[..., 1] > 120
    disagreement = (truth != result.mask).mean()
    assert truth.mean() > 0.01 and disagreement < 0.02
    assert result.threshold == 0.5
    assert set(result.milliseconds) == {"preprocess", "inference", "postprocess"}
    assert all(value >= 0 for value in result.milliseconds.values())


def test_the_segmenter_swaps_blue_and_red_exactly_once(path):
    frame = scene()
    with Segmenter.load(path, TARGET, precision="fp32") as segmenter:
        result = segmenter.segment(np.ascontiguousarray(frame[..., ::-1]))
    np.testing.assert_allclose(result.probability, probability(frame, 64, "fp32"), atol=1e-5)


def test_a_view_of_a_larger_array_gives_the_same_mask_as_its_copy(path):
    big = scene(200, 240)[..., ::-1]
    view = big[10:170:2, 20:220]
    for preset in ("core", "camera"):
        with Segmenter.load(path, TARGET, preset=preset) as segmenter:
            copied = segmenter.segment(np.ascontiguousarray(view))
            np.testing.assert_array_equal(segmenter.segment(view).mask, copied.mask)


def test_the_input_tensor_is_bit_for_bit_the_training_normalisation(path):
    manifest = open_bundle(path).manifest
    frame = scene(77, 131)
    x = preprocess(frame, manifest)
    image = resize_image(frame, 64, 64).astype(np.float32) / np.float32(255)
    mean = np.array(NORMALISATION.mean, dtype=np.float32)
    std = np.array(NORMALISATION.std, dtype=np.float32)
    np.testing.assert_array_equal(x, ((image - mean) / std).transpose(2, 0, 1)[np.newaxis])
    assert x.dtype == np.float32 and x.flags.c_contiguous


def test_int8_is_taken_where_the_bundle_has_it(path):
    with Segmenter.load(path, TARGET) as segmenter:
        assert segmenter.precision == "int8"


def test_a_result_is_not_overwritten_by_the_next_frame(path):
    with Segmenter.load(path, TARGET) as segmenter:
        first = segmenter.segment(scene())
        kept = first.probability.copy()
        segmenter.segment(scene(seed=3, polyp=False))
    np.testing.assert_array_equal(first.probability, kept)


def test_one_segmenter_takes_frames_of_changing_size(path):
    with Segmenter.load(path, TARGET, preset="camera") as segmenter:
        for size in ((90, 120), (50, 40), (90, 120)):
            assert segmenter.segment(scene(*size)).mask.shape == size


def test_the_mask_is_the_resized_probability_above_the_threshold():
    values = np.array([[0.0, 1.0], [0.0, 1.0]], dtype=np.float32)
    mask = mask_at_size(values, 0.5, 4, 8)
    np.testing.assert_array_equal(mask, np.tile(np.arange(8) >= 4, (4, 1)))
    np.testing.assert_array_equal(mask_at_size(values, 0.5, 2, 2), values > 0.5)


@pytest.mark.parametrize(
    ("frame", "word"),
    [
        (np.zeros((8, 8, 3), np.float32), "not float32"),
        (np.full((8, 8, 3), np.nan), "not float64"),
        (np.zeros((8, 8), np.uint8), "cv2.cvtColor"),
        (np.zeros((8, 8, 4), np.uint8), "cv2.cvtColor"),
        (np.zeros((8, 8, 1), np.uint8), "cv2.cvtColor"),
        (np.zeros((1, 8, 8, 3), np.uint8), "not (1, 8, 8, 3)"),
        (np.zeros((0, 8, 3), np.uint8), "no pixel"),
        (np.zeros((8, 0, 3), np.uint8), "no pixel"),
        (None, "not NoneType"),
        ([[0]], "not list"),
    ],
)
def test_anything_but_a_uint8_colour_frame_is_refused_in_one_line(path, frame, word):
    with Segmenter.load(path, TARGET) as segmenter:
        with pytest.raises(UserError) as caught:
            segmenter.segment(frame)
        assert word in str(caught.value) and "\n" not in str(caught.value)
        # a bad frame does not spoil the next one
        assert segmenter.segment(scene()).mask.any()


def test_a_closed_segmenter_says_so(path):
    for target in (TARGET, "onnxruntime:CPU:threads=1"):
        segmenter = Segmenter.load(path, target)
        segmenter.close()
        segmenter.close()
        with pytest.raises(UserError, match="closed"):
            segmenter.segment(scene())


def test_a_batch_is_refused_since_frames_come_one_at_a_time(path):
    with pytest.raises(UserError, match="remove the option batch"):
        Segmenter.load(path, TARGET + ":batch=2")
