import cv2
import numpy as np
import pytest

from kdas_edge.runtime.masks import mask_at_size, probability_at_size


def bump(size, radius):
    y, x = np.mgrid[:size, :size] - size / 2
    return (1 / (1 + np.exp(np.hypot(x, y) - radius))).astype(np.float32)


@pytest.mark.parametrize("radius", [-20, 3, 20, 100])
@pytest.mark.parametrize("size", [(90, 120), (64, 64), (31, 7), (1, 1)])
def test_the_mask_is_the_resized_probability_above_the_threshold(radius, size):
    probability = bump(64, radius)
    height, width = size
    wanted = cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
    np.testing.assert_array_equal(mask_at_size(probability, 0.5, height, width), wanted)


def test_buffers_are_used_and_what_they_held_does_not_matter():
    probability = bump(64, 20)
    scratch = np.full((90, 120), 1.0, np.float32)
    large = np.zeros((200, 200), bool)
    part = large[10:100, 20:140]
    found = mask_at_size(probability, 0.5, 90, 120, scratch, part)
    assert found.base is large
    np.testing.assert_array_equal(large[10:100, 20:140], mask_at_size(probability, 0.5, 90, 120))
    assert large.sum() == part.sum() > 0
    np.testing.assert_array_equal(scratch, probability_at_size(probability, 90, 120))


def test_a_value_at_the_threshold_is_no_polyp():
    assert not mask_at_size(np.full((4, 4), 0.5, np.float32), 0.5, 8, 8).any()
    assert mask_at_size(np.full((4, 4), 0.5, np.float32), 0.4999, 8, 8).all()
