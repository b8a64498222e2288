import numpy as np
import pytest

from kdas_edge.errors import UserError
from kdas_edge.runtime.frames import Roi, check_frame, check_roi, to_three_channels


@pytest.mark.parametrize(
    ("shape", "color", "word"),
    [
        ((8, 8, 3), "bgra", 'say color="bgr" or "rgb"'),
        ((8, 8, 4), "bgr", 'say color="bgra"'),
        ((8, 8), "rgb", 'say color="gray"'),
        ((8, 8, 1), "bgr", 'say color="gray"'),
        ((8, 8, 3), "gray", "not (8, 8, 3)"),
        ((2, 8, 8, 3), "bgr", "one frame at a time"),
        ((8,), "bgr", "one frame at a time"),
        ((), "gray", "one frame at a time"),
        ((0, 8), "gray", "no pixel"),
        ((8, 8, 3), "yuv", "color 'yuv' is unknown"),
        ((8, 8, 3), None, "is unknown"),
    ],
)
def test_a_frame_that_is_not_of_its_colour_is_refused_with_the_remedy(shape, color, word):
    with pytest.raises(UserError) as caught:
        check_frame(np.zeros(shape, np.uint8), color)
    assert word in str(caught.value) and "\n" not in str(caught.value)


def test_grey_and_bgra_become_bgr_and_bgr_is_not_copied():
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for given in (grey, grey[..., None]):
        check_frame(given, "gray")
        np.testing.assert_array_equal(to_three_channels(given, "gray"), np.dstack([grey] * 3))
    bgra = np.random.default_rng(0).integers(0, 255, (8, 8, 4), dtype=np.uint8)
    check_frame(bgra, "bgra")
    np.testing.assert_array_equal(to_three_channels(bgra, "bgra"), bgra[..., :3])
    frame = np.ascontiguousarray(bgra[..., :3])
    assert to_three_channels(frame, "bgr") is frame and to_three_channels(frame, "rgb") is frame


@pytest.mark.parametrize(
    ("roi", "word"),
    [
        ((0, 0, 10), "four numbers"),
        ((0, 0, 10.5, 10), "whole pixels"),
        ((0, 0, float("nan"), 10), "whole pixels"),
        ((0, 0, float("inf"), 10), "whole pixels"),
        (("a", 0, 10, 10), "whole pixels"),
        (7, "four numbers"),
        ((0, 0, 7, 10), "smaller than 8×8"),
        ((-1, 0, 10, 10), "leaves the frame of 30×20"),
        ((0, 0, 31, 10), "leaves the frame of 30×20"),
        ((0, 11, 10, 10), "leaves the frame of 30×20"),
    ],
)
def test_a_region_that_is_none_is_refused_in_one_line(roi, word):
    with pytest.raises(UserError) as caught:
        check_roi(roi, 20, 30)
    assert word in str(caught.value) and "\n" not in str(caught.value)


def test_a_region_may_be_any_four_whole_numbers():
    assert check_roi(np.array([1.0, 2, 10, 8]), 20, 30) == Roi(1, 2, 10, 8)
    frame = np.arange(600).reshape(20, 30)
    assert frame[Roi(1, 2, 10, 8).slices].shape == (8, 10)
    assert frame[Roi(1, 2, 10, 8).slices][0, 0] == frame[2, 1]
