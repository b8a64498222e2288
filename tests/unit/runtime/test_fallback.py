"""A device that disappears: the next target in the list takes over, or one line says what happened.

A backend that breaks after some frames stands between the segmenter and the real one: no device can
be pulled out of a test machine.
"""

import threading

import numpy as np
import pytest
from tiny_bundle import make_tiny_bundle, scene

from kdas_edge.errors import UserError
from kdas_edge.runtime import Segmenter
from kdas_edge.runtime.backends import runtime_devices
from kdas_edge.runtime.failures import TargetError, inference_failed

FIRST, SECOND = "openvino:CPU:threads=1", "onnxruntime:CPU:threads=1"
FRAME = scene()[..., ::-1]


class Vanishing:
    """A real backend until `left` inferences were made, then a device that is gone."""

    def __init__(self, backend, left, target=FIRST):
        self.backend, self.left, self.target = backend, left, target
        self.effective, self.load_seconds = backend.effective, backend.load_seconds
        self.closed = False

    def infer(self, x):
        self.left -= 1
        if self.left < 0:
            raise inference_failed(self.target, "OpenVINO", RuntimeError("device lost"))
        return self.backend.infer(x)

    def start(self, x):
        return lambda: self.infer(x)

    def close(self):
        self.closed = True
        self.backend.close()


def break_after(segmenter, frames):
    engine = segmenter._engine
    engine.backend = Vanishing(engine.backend, frames, engine.target)
    return engine.backend


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_tiny_bundle(tmp_path_factory.mktemp("fallback") / "tiny")


def test_the_next_target_takes_over_within_the_frame(path):
    with Segmenter.load(path, [FIRST, SECOND], precision="fp32") as segmenter:
        wanted = segmenter.segment(FRAME)
        broken = break_after(segmenter, 2)
        results = [segmenter.segment(FRAME) for _ in range(4)]
        assert [result.model.rpartition(" ")[2] for result in results] == [FIRST] * 2 + [SECOND] * 2
        assert str(segmenter.target) == SECOND and broken.closed
        assert "device lost" in segmenter.failures[0] and len(segmenter.failures) == 1
        for result in results:
            np.testing.assert_array_equal(result.mask, wanted.mask)


def test_frames_under_way_are_not_lost(path):
    with Segmenter.load(path, [FIRST, SECOND]) as segmenter:
        break_after(segmenter, 3)
        results = list(segmenter.segment_many([FRAME] * 8))
    assert len(results) == 8 and all(result.mask.any() for result in results)
    assert len({result.model for result in results}) == 2


def test_of_many_threads_one_loads_the_next_target_and_all_go_on(path):
    with Segmenter.load(path, [FIRST, SECOND]) as segmenter:
        break_after(segmenter, 10)
        results = []

        def work():
            results.extend(segmenter.segment(FRAME) for _ in range(10))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 80 and len(segmenter.failures) == 1


def test_without_a_list_nothing_is_replaced(path):
    with Segmenter.load(path, FIRST) as segmenter:
        break_after(segmenter, 1)
        segmenter.segment(FRAME)
        for attempt in (segmenter.segment, lambda frame: segmenter.submit(frame).result()):
            with pytest.raises(TargetError, match=r"device lost.*another target") as caught:
                attempt(FRAME)
            assert "\n" not in str(caught.value)
        assert str(segmenter.target) == FIRST


def test_when_all_targets_are_gone_the_line_names_the_reasons(path):
    with Segmenter.load(path, [FIRST, "openvino:GPU.7"]) as segmenter:
        break_after(segmenter, 0)
        with pytest.raises(TargetError) as caught:
            segmenter.segment(FRAME)
    assert "device lost" in str(caught.value) and "finds no GPU.7" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_frame_is_no_reason_to_leave_a_device(path):
    with Segmenter.load(path, [FIRST, SECOND]) as segmenter:
        with pytest.raises(UserError, match="no pixel"):
            segmenter.segment(np.zeros((0, 3, 3), np.uint8))
        assert str(segmenter.target) == FIRST and segmenter.failures == []


def test_a_target_that_is_absent_from_the_beginning_is_passed_over_and_noted(path):
    absent = next(
        f"openvino:{name}" for name in ("NPU", "GPU.7") if name not in runtime_devices("openvino")
    )
    with Segmenter.load(path, [absent, FIRST]) as segmenter:
        assert str(segmenter.target) == FIRST
        assert "present: openvino:CPU" in segmenter.failures[0]
    with pytest.raises(UserError, match="none of 2 targets works") as caught:
        Segmenter.load(path, [absent, "onnxruntime:CoreML"])
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no target given"):
        Segmenter.load(path, [])
    # alone it is refused as ever
    with pytest.raises(TargetError, match="present: openvino:CPU"):
        Segmenter.load(path, absent)
