"""The quick resize is the one that trained, but for values half-way between two grey levels."""

import threading

import cv2
import numpy as np
import pytest
from tiny_bundle import scene

from kdas_edge.data.layout import find_pairs, resize_image
from kdas_edge.image_files import read_image
from kdas_edge.runtime.resample import FrameResampler, worth_it

SIZES = [(1080, 1920, 352), (576, 720, 256), (301, 517, 64), (64, 900, 64), (480, 640, 97)]


def noisy(height, width):
    """Every value everywhere: the hardest case for ties."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def differences(frame, size, planes):
    wanted = resize_image(frame, size, size).astype(int)
    return np.abs(wanted - np.stack(planes, axis=-1))


@pytest.mark.parametrize(("height", "width", "size"), SIZES)
@pytest.mark.parametrize("make", [noisy, scene])
def test_a_value_differs_from_pil_by_one_level_at_most_and_rarely(height, width, size, make):
    frame = make(height, width)
    found = differences(frame, size, FrameResampler(height, width, size).planes(frame))
    assert found.max() <= 1 and (found > 0).mean() < 0.015


@pytest.mark.data
def test_on_real_frames_one_value_in_two_hundred_differs_at_most(real_data):
    pairs = find_pairs(real_data / "TestDataset/Kvasir").pairs[:4]
    shares = []
    for pair in pairs:
        frame = cv2.resize(read_image(pair.image), (1920, 1080))
        found = differences(frame, 352, FrameResampler(1080, 1920, 352).planes(frame))
        assert found.max() <= 1
        shares.append((found > 0).mean())
    assert max(shares) < 0.005


def test_with_a_helper_thread_it_is_the_same_to_the_last_bit():
    frame = noisy(720, 1280)
    resampler = FrameResampler(720, 1280, 256)
    alone = [plane.copy() for plane in resampler.planes(frame)]
    for _ in range(3):
        np.testing.assert_array_equal(resampler.planes(frame, both_cores=True), alone)


def test_threads_that_want_the_helper_at_the_same_time_do_not_disturb_each_other():
    frames = [noisy(360, 640) // (index + 1) for index in range(4)]
    wanted = [
        [plane.copy() for plane in FrameResampler(360, 640, 128).planes(frame)] for frame in frames
    ]
    wrong = []

    def work(frame, expected):
        resampler = FrameResampler(360, 640, 128)
        for _ in range(10):
            if not np.array_equal(resampler.planes(frame, both_cores=True), expected):
                wrong.append(frame)

    threads = [
        threading.Thread(target=work, args=pair) for pair in zip(frames, wanted, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_frame_before_leaves_no_trace():
    resampler = FrameResampler(400, 600, 128)
    resampler.planes(np.full((400, 600, 3), 255, np.uint8))
    assert not np.any(resampler.planes(np.zeros((400, 600, 3), np.uint8)))


def test_views_with_strides_of_any_sign_are_read_right():
    big = noisy(500, 800)
    for view in (big[20:420, 100:700], big[::-1][:400, :600], big[:400, :600, ::-1]):
        found = differences(
            np.ascontiguousarray(view), 128, FrameResampler(400, 600, 128).planes(view)
        )
        assert found.max() <= 1 and (found > 0).mean() < 0.015


def test_it_is_for_large_frames_only():
    assert worth_it(1080, 1920, 352) and worth_it(576, 720, 256)
    assert not worth_it(288, 384, 352) and not worth_it(100, 4000, 352)
