"""Many threads, frames under way in the background, and a model that is swapped meanwhile."""

import gc
import shutil
import threading
import time

import numpy as np
import pytest
from tiny_bundle import make_tiny_bundle, rewrite_manifest, scene

from kdas_edge.errors import UserError
from kdas_edge.runtime import Segmenter

TARGET = "openvino:CPU:threads=1"
TARGETS = (TARGET, "onnxruntime:CPU:threads=1")
# large and small frames: both ways of resizing
FRAMES = [scene(*size, seed)[..., ::-1] for seed, size in enumerate([(90, 120), (360, 480)] * 4)]
THREADS = 8


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_tiny_bundle(tmp_path_factory.mktemp("threads") / "tiny")


@pytest.fixture(scope="module", params=TARGETS)
def segmenter(path, request):
    with Segmenter.load(path, request.param) as loaded:
        yield loaded


def in_threads(work, count=THREADS):
    """Run `work(index)` in threads; the first exception is raised here."""
    errors = []

    def guarded(index):
        try:
            work(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("preset", ["core", "camera"])
@pytest.mark.parametrize("target", TARGETS)
def test_eight_threads_get_what_one_gets(path, target, preset):
    with Segmenter.load(path, target, preset=preset) as segmenter:
        wanted = [segmenter.segment(frame) for frame in FRAMES]

        def work(index):
            for turn in range(12):
                which = (index + turn) % len(FRAMES)
                result = segmenter.segment(FRAMES[which])
                np.testing.assert_array_equal(result.probability, wanted[which].probability)
                np.testing.assert_array_equal(result.mask, wanted[which].mask)

        in_threads(work)


def test_results_come_in_the_order_of_the_frames_and_are_those_of_one_at_a_time(segmenter):
    wanted = [segmenter.segment(frame).probability for frame in FRAMES]
    for depth in (1, 2, 3, 100):
        found = list(segmenter.segment_many(iter(FRAMES), depth=depth))
        assert len(found) == len(FRAMES)
        for result, probability in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(result.probability, probability)


def test_a_result_comes_when_two_frames_have_been_taken(segmenter):
    taken = []

    def source():
        for index, frame in enumerate(FRAMES):
            taken.append(index)
            yield frame

    results = segmenter.segment_many(source())
    next(results)
    assert taken == [0, 1]
    next(results)
    assert taken == [0, 1, 2]


def test_what_was_under_way_comes_before_the_error_of_a_bad_frame(segmenter):
    results = segmenter.segment_many([FRAMES[0], FRAMES[1], np.zeros((0, 5, 3), np.uint8)])
    assert next(results).mask.shape == (90, 120)
    assert next(results).mask.shape == (360, 480)
    with pytest.raises(UserError, match="no pixel"):
        next(results)
    with pytest.raises(UserError, match="at least 1"):
        next(segmenter.segment_many(FRAMES, depth=0))


def test_a_series_that_is_left_early_harms_nothing(segmenter):
    wanted = segmenter.segment(FRAMES[0]).probability
    for _ in range(5):
        results = segmenter.segment_many(frame.copy() for frame in FRAMES)
        next(results)
        results.close()
        segmenter.submit(FRAMES[1].copy())  # nobody asks for it
        gc.collect()
    np.testing.assert_array_equal(segmenter.segment(FRAMES[0]).probability, wanted)


def test_a_pending_frame_gives_the_same_result_each_time(segmenter):
    pending = segmenter.submit(FRAMES[0])
    assert pending.result() is pending.result()
    assert pending.result().mask.any()


def test_a_closed_segmenter_takes_no_frame_in_the_background_either(path):
    for target in TARGETS:
        segmenter = Segmenter.load(path, target)
        segmenter.close()
        with pytest.raises(UserError, match="closed"):
            segmenter.submit(FRAMES[0])
        with pytest.raises(UserError, match="closed"):
            segmenter.swap(target=TARGET)


@pytest.fixture
def second(path, tmp_path):
    copy = shutil.copytree(path, tmp_path / "second")
    rewrite_manifest(copy, lambda values: values.update(name="second", threshold=1.0))
    return copy


def test_no_frame_is_lost_or_wrong_while_models_are_swapped(path, second):
    stop = threading.Event()
    seen, counts = set(), [0] * 4
    with Segmenter.load(path, TARGET) as segmenter:

        def work(index):
            if index == 0:
                try:
                    for bundle in (second, path, second):
                        segmenter.swap(bundle)
                        time.sleep(0.05)
                finally:
                    stop.set()
                return
            while not stop.is_set():
                result = (
                    segmenter.submit(FRAMES[1]).result()
                    if index == 1
                    else segmenter.segment(FRAMES[0])
                )
                counts[index] += 1
                # the mask is of the model that the result names
                assert result.mask.any() == result.model.startswith("tiny ")
                seen.add(result.model)

        in_threads(work, len(counts))
        assert segmenter.bundle.name == "second"
    assert seen == {f"{name} int8 core on {TARGET}" for name in ("tiny", "second")}
    assert all(count > 0 for count in counts[1:])


def test_a_swap_to_a_damaged_bundle_leaves_the_old_model(path, second):
    (second / "int8/core.xml").write_text("<net/>")
    with Segmenter.load(path, TARGET) as segmenter:
        segmenter.segment(FRAMES[0])
        with pytest.raises(UserError, match="does not match its hash"):
            segmenter.swap(second)
        with pytest.raises(UserError, match="no device"):
            segmenter.swap(path, target="openvino:TPU")
        assert segmenter.segment(FRAMES[0]).model == f"tiny int8 core on {TARGET}"


def test_another_precision_or_target_of_the_same_bundle_is_a_swap_too(path):
    with Segmenter.load(path, TARGET) as segmenter:
        segmenter.warm_up(90, 120)
        segmenter.swap(precision="fp32", target=TARGETS[1])
        assert segmenter.segment(FRAMES[0]).model == f"tiny fp32 core on {TARGETS[1]}"
        assert str(segmenter.target) == TARGETS[1] and segmenter.precision == "fp32"
