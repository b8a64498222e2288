"""Arrays of every kind as frames: a mask where it is a frame, one clear line where it is none."""

import warnings

import numpy as np
import pytest
from tiny_bundle import make_tiny_bundle, scene

from kdas_edge.errors import UserError
from kdas_edge.runtime import Segmenter
from kdas_edge.runtime.inputs import preprocess
from kdas_edge.runtime.masks import mask_at_size

SIDES = (0, 1, 2, 3, 4, 7, 31, 63, 64, 65, 101)
DTYPES = ("uint8", "int8", "uint16", "int64", "float16", "float32", "float64", "bool", "complex64")
COLORS = {"bgr": 3, "rgb": 3, "gray": 1, "bgra": 4}
# what is no array at all
STRANGE = (None, 7, "frame.png", b"\x00" * 12, [[[0, 0, 0]]], {}, np.uint8(3), object())


@pytest.fixture(scope="module", params=["core", "camera"])
def segmenter(request, tmp_path_factory):
    path = make_tiny_bundle(tmp_path_factory.mktemp("fuzz") / "tiny")
    with Segmenter.load(
        path, "openvino:CPU:threads=1", precision="fp32", preset=request.param
    ) as loaded:
        yield loaded


def arrays(seed, count):
    """Arrays of random shape, type, values and memory layout, each with a colour."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        color = str(rng.choice(list(COLORS)))
        shape = [int(side) for side in rng.choice(SIDES, rng.choice([0, 1, 2, 3, 4, 5]))]
        if rng.random() < 0.7:  # most are nearly right
            shape = [*(int(side) for side in rng.choice(SIDES[1:], 2)), COLORS[color]]
        dtype = "uint8" if rng.random() < 0.7 else str(rng.choice(DTYPES))
        # five dimensions of a hundred would fill the memory
        array = np.zeros([min(side, 9) for side in shape] if len(shape) > 3 else shape, dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array[...] = rng.integers(0, 256, array.shape)
        if array.dtype.kind in "fc" and array.size and rng.random() < 0.5:
            array.flat[int(rng.integers(array.size))] = rng.choice([np.nan, np.inf, -np.inf])
        yield laid_out(array, int(rng.integers(5))), color


def laid_out(array, how):
    """The same shape, differently in memory."""
    if how == 1 and array.ndim:
        return array[::-1]
    if how == 2:
        return np.asfortranarray(array)
    if how == 3:
        array.flags.writeable = False
    if how == 4 and array.ndim > 1:
        wide = np.zeros((array.shape[0], 2 * array.shape[1], *array.shape[2:]), array.dtype)
        wide[:, ::2] = array
        return wide[:, ::2]
    return array


def is_frame(array, color):
    """What a frame is, in the words of the documentation."""
    channels = COLORS[color]
    shaped = array.ndim == 3 and array.shape[2] == channels
    shaped |= array.ndim == 2 and color == "gray"
    return shaped and array.dtype == np.uint8 and array.size > 0


def test_any_array_gives_a_mask_of_its_size_or_one_clear_line(segmenter):
    segmented = refused = 0
    for array, color in arrays(seed=7, count=300):
        about = f"{array.shape} {array.dtype} {array.strides} {color}"
        if is_frame(array, color):
            result = segmenter.segment(array, color)
            assert result.mask.shape == array.shape[:2], about
            assert result.mask.dtype == np.bool_ and np.isfinite(result.probability).all(), about
            segmented += 1
        else:
            with pytest.raises(UserError) as error:
                segmenter.segment(array, color)
            assert "\n" not in str(error.value), about
            refused += 1
    # neither half may be empty, or the test says nothing
    assert segmented > 50 and refused > 50


def test_what_is_no_array_or_no_colour_is_refused_in_one_line_by_every_call(segmenter):
    frame = np.zeros((8, 8, 3), np.uint8)
    calls = [(strange, "bgr") for strange in STRANGE]
    calls += [(frame, color) for color in ("BGR", "", "yuv", "bgrx")]
    for array, color in calls:
        for call in (segmenter.segment, segmenter.submit):
            with pytest.raises(UserError) as error:
                call(array, color)
            assert "\n" not in str(error.value)
        with pytest.raises(UserError):
            list(segmenter.segment_many([array], color))


def test_refused_frames_do_not_change_the_masks_of_those_after(segmenter):
    frame = scene()[..., ::-1]
    before = segmenter.segment(frame)
    for array, color in arrays(seed=11, count=60):
        if not is_frame(array, color):
            with pytest.raises(UserError):
                segmenter.segment(array, color)
    after = segmenter.segment(frame)
    np.testing.assert_array_equal(before.mask, after.mask)
    np.testing.assert_array_equal(before.probability, after.probability)


@pytest.mark.parametrize("size", [(1, 1), (1, 333), (333, 1), (63, 65), (97, 101), (131, 127)])
def test_a_core_model_gets_bit_for_bit_the_mask_of_the_plain_path(size, tmp_path):
    # frames up to five times the network's pixels: larger ones take the resize of `resample`
    path = make_tiny_bundle(tmp_path / "tiny")
    frame = np.ascontiguousarray(scene(*size, seed=size[1])[..., ::-1])
    with Segmenter.load(
        path, "openvino:CPU:threads=1", precision="fp32", preset="core"
    ) as segmenter:
        result = segmenter.segment(frame)
        manifest = segmenter.bundle.manifest
        x = preprocess(np.ascontiguousarray(frame[..., ::-1]), manifest)
        probability = segmenter.backend.infer(x)[0, 1]
        plain = mask_at_size(probability, manifest.threshold, *size)
    np.testing.assert_array_equal(result.probability, probability)
    np.testing.assert_array_equal(result.mask, plain)


def test_a_read_only_frame_is_segmented_as_any_other_in_both_ways(segmenter):
    frame = np.ascontiguousarray(scene()[..., ::-1])
    read_only = np.frombuffer(frame.tobytes(), np.uint8).reshape(frame.shape)
    wanted = segmenter.segment(frame).mask
    for found in (segmenter.segment(read_only), *segmenter.segment_many([read_only] * 3)):
        np.testing.assert_array_equal(found.mask, wanted)
