import json
import os
import signal
import time

import cv2
import numpy as np
import pytest
from own_process import passed_alone
from tiny_bundle import make_tiny_bundle
from video_files import clip

from kdas_edge.errors import UserError
from kdas_edge.runtime.segmenter import Segmenter
from kdas_edge.video.outputs import OutputOptions, Outputs
from kdas_edge.video.pipeline import VideoJob, run_video
from kdas_edge.video.readers import Frame
from kdas_edge.video.stabiliser import StabilityOptions


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_tiny_bundle(tmp_path_factory.mktemp("pipeline") / "tiny", presets=("core",))


@pytest.fixture(scope="module")
def segmenter(bundle):
    with Segmenter.load(bundle, "openvino:CPU:threads=1") as loaded:
        yield loaded


class Memory:
    """A reader of frames in memory: a file, or a camera of a given pace."""

    def __init__(self, images, live: bool = False, pause: float = 0.0, error=None) -> None:
        self.images, self.pause, self.error = images, pause, error
        self.name, self.live, self.fps, self.size = "memory", live, 25.0, None
        self.expected, self.skipped, self.problem, self.closed = len(images), 0, None, False
        self.undecodable = 0

    def frames(self, stop):
        for index, image in enumerate(self.images):
            if stop.wait(self.pause):
                return
            yield Frame(index, index / self.fps, image, time.perf_counter(), 0.1)
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.closed = True


class SlowOutputs(Outputs):
    """Outputs that take their time."""

    pause = 0.0

    def add(self, finding) -> None:
        time.sleep(self.pause)
        super().add(finding)


def outputs(folder, pause: float = 0.0, **options) -> SlowOutputs:
    made = SlowOutputs(OutputOptions(jsonl=folder / "a.jsonl", **options), fps=25)
    made.pause = pause
    return made


def lines(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "a.jsonl").read_text().splitlines()]


def test_every_frame_of_a_file_is_segmented_in_order_and_its_line_is_that_of_its_mask(
    segmenter, tmp_path
):
    images = clip(12) + clip(3, polyp=False)
    reader = Memory(images)
    outcome = run_video(reader, VideoJob(segmenter), outputs(tmp_path, frames=tmp_path))
    assert outcome.error is None and outcome.ended == "end" and outcome.dropped == 0
    assert reader.closed and outcome.statistics.frames == 15
    found = lines(tmp_path)
    assert [line["index"] for line in found] == list(range(15))
    for image, line in zip(images, found, strict=True):
        mask = segmenter.segment(image).mask
        written = cv2.imread(str(tmp_path / f"masks/{line['index']:06d}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(written, mask * np.uint8(255))
        count, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        expected = sorted(stats[1:count].tolist(), key=lambda one: -one[4])
        assert line["boxes"] == [one[:4] for one in expected]
        assert line["areas"] == [one[4] for one in expected]
        assert line["polyp_fraction"] == pytest.approx(mask.mean(), abs=1e-6)
        assert {"decode", "preprocess", "inference", "postprocess"} <= set(line["milliseconds"])
        assert "latency_ms" not in line
    assert found[0]["boxes"] and not found[14]["boxes"]


def test_reading_segmenting_and_drawing_overlap(segmenter, tmp_path):
    reader = Memory(clip(12), pause=0.05)
    begun = time.perf_counter()
    outcome = run_video(reader, VideoJob(segmenter), outputs(tmp_path, pause=0.05))
    took = time.perf_counter() - begun
    assert outcome.statistics.frames == 12
    # one after the other, waiting alone would take 1.2 s
    assert took < 1.1


def test_of_a_camera_late_frames_are_dropped_counted_and_never_queued(segmenter, tmp_path):
    count, pause = 60, 0.06
    reader = Memory(clip(count), live=True, pause=0.01)
    outcome = run_video(reader, VideoJob(segmenter), outputs(tmp_path, pause=pause))
    found = lines(tmp_path)
    assert outcome.dropped > count / 2
    assert len(found) + outcome.dropped == count
    assert [line["index"] for line in found] == sorted(line["index"] for line in found)
    # the frame in work, one that waits to be drawn, one that waits to be segmented: no more
    assert max(line["latency_ms"] for line in found) < 1e3 * (4 * pause + 0.8)
    assert found[-1]["index"] == count - 1 and found[-1]["dropped"] <= outcome.dropped
    assert outcome.as_json()["latency_ms"]["p50"] >= 1e3 * pause


def test_a_steadied_mask_is_what_is_written_and_resets_are_told(segmenter, tmp_path):
    images = clip(2) + clip(4, polyp=False)
    stability = StabilityOptions(smooth=0.9, persist=(2, 2))
    outcome = run_video(
        Memory(images), VideoJob(segmenter, stability=stability), outputs(tmp_path, frames=tmp_path)
    )
    found = lines(tmp_path)
    # the polyp appears in the second frame, and lingers until the other scene drops the past
    assert [bool(line["boxes"]) for line in found[:2]] == [False, True]
    assert not cv2.imread(str(tmp_path / "masks/000000.png")).any()
    assert cv2.imread(str(tmp_path / "masks/000001.png")).any()
    assert outcome.resets == sum(line.get("reset", False) for line in found)
    assert all("stabilise" in line["milliseconds"] for line in found)


def test_a_teacher_stands_beside_the_student(segmenter, tmp_path):
    job = VideoJob(segmenter, teacher=segmenter)
    run_video(Memory(clip(3)), job, outputs(tmp_path, frames=tmp_path))
    found = lines(tmp_path)
    assert all(line["teacher"]["dice"] == 1 for line in found)
    assert found[0]["teacher"]["boxes"] == found[0]["boxes"]
    assert cv2.imread(str(tmp_path / "overlays/000000.png")).shape == (48, 128, 3)


def test_a_region_limits_the_mask_and_the_stabiliser_knows_it(bundle, tmp_path):
    images = clip(4)
    with Segmenter.load(bundle, "openvino:CPU:threads=1", roi=(0, 0, 32, 48)) as half:
        job = VideoJob(half, stability=StabilityOptions(smooth=0.5))
        run_video(Memory(images), job, outputs(tmp_path, frames=tmp_path))
    masks = [cv2.imread(str(path), 0) for path in sorted((tmp_path / "masks").iterdir())]
    assert len(masks) == 4 and all(mask.shape == (48, 64) for mask in masks)
    assert all(mask[:, :32].any() and not mask[:, 32:].any() for mask in masks)


def test_a_source_that_fails_leaves_what_was_done_and_its_error(segmenter, tmp_path):
    reader = Memory(clip(5), error=UserError("the cable is out"))
    written = outputs(tmp_path, record=tmp_path / "a.mp4")
    outcome = run_video(reader, VideoJob(segmenter), written)
    assert outcome.ended == "failed" and str(outcome.error) == "the cable is out"
    assert len(lines(tmp_path)) == 5 and set(written.written) == {"jsonl", "record"}
    assert outcome.as_json()["problems"] == ["the cable is out"]


def test_an_output_that_fails_ends_the_video(segmenter, tmp_path):
    class Full(SlowOutputs):
        def add(self, finding) -> None:
            if finding.frame.index == 3:
                raise UserError("the disk is full")
            super().add(finding)

    reader = Memory(clip(500))
    outcome = run_video(
        reader, VideoJob(segmenter), Full(OutputOptions(jsonl=tmp_path / "a.jsonl"), 25)
    )
    assert outcome.ended == "failed" and str(outcome.error) == "the disk is full"
    assert len(lines(tmp_path)) == 3 and reader.closed


def test_a_defect_is_no_error_of_a_person_and_leaves_no_half_recording(segmenter, tmp_path):
    reader = Memory(clip(3), error=ZeroDivisionError("a defect"))
    with pytest.raises(ZeroDivisionError):
        run_video(reader, VideoJob(segmenter), outputs(tmp_path, record=tmp_path / "a.mp4"))
    assert not list(tmp_path.glob("*.mp4")) and not list(tmp_path.glob(".*.mp4"))


def test_the_limit_ends_the_video(segmenter, tmp_path):
    outcome = run_video(Memory(clip(50)), VideoJob(segmenter, limit=7), outputs(tmp_path))
    assert outcome.ended == "limit" and len(lines(tmp_path)) == 7


def test_a_closed_window_ends_the_video(segmenter, tmp_path):
    class Window:
        shown = 0

        def show(self, picture) -> bool:
            self.shown += 1
            return self.shown < 4

    outcome = run_video(
        Memory(clip(50)), VideoJob(segmenter, window=Window()), outputs(tmp_path, show=True)
    )
    assert outcome.ended == "window closed" and len(lines(tmp_path)) == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_video_with_everything_up_to_there(segmenter, tmp_path, number, request):
    if passed_alone(request):
        return
    before = signal.getsignal(number)

    # a camera that has stopped giving frames: nobody but the signal wakes the main thread
    class Silent(Memory):
        def frames(self, stop):
            yield from super().frames(stop)
            time.sleep(0.1)
            os.kill(os.getpid(), number)
            stop.wait(60)

    begun = time.perf_counter()
    written = outputs(tmp_path, record=tmp_path / "a.mp4")
    outcome = run_video(Silent(clip(4), live=True, pause=0.02), VideoJob(segmenter), written)
    assert time.perf_counter() - begun < 10
    assert outcome.ended == "interrupted" and outcome.error is None
    assert len(lines(tmp_path)) + outcome.dropped == 4 and (tmp_path / "a.mp4").exists()
    assert signal.getsignal(number) == before


def test_late_frames_of_a_budget_are_counted(segmenter, tmp_path):
    outcome = run_video(Memory(clip(5)), VideoJob(segmenter, budget_ms=1e-3), outputs(tmp_path))
    assert outcome.statistics.late == 5
    outcome = run_video(
        Memory(clip(5)), VideoJob(segmenter, budget_ms=1e5), outputs(tmp_path, overwrite=True)
    )
    assert outcome.statistics.late == 0
