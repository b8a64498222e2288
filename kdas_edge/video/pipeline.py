"""Read, segment, draw and write at the same time, each in its thread.

    reader ──(frames)──▶ this thread ──(segmented)──▶ writer

Of a file every frame is processed: who is ahead waits. Of a live source the newest frame wins: at
most one frame waits to be segmented and one to be drawn, so that the latency is bounded whatever
the load; what gives way is counted.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from kdas_edge.console import info, progress
from kdas_edge.errors import UserError
from kdas_edge.process import handle_signals
from kdas_edge.runtime.segmenter import Segmenter
from kdas_edge.video.channel import Channel
from kdas_edge.video.outputs import Outputs
from kdas_edge.video.readers import Frame, Reader
from kdas_edge.video.segmented import SegmentedFrame
from kdas_edge.video.stabiliser import Stabiliser, StabilityOptions, steady
from kdas_edge.video.statistics import Statistics
from kdas_edge.video.window import Window

# frames of a file that may wait between two threads: enough to even out their pace
FILE_CAPACITY = 4
# how long a reader that hangs in a driver is waited for at the end, in seconds
PATIENCE = 2.0


@dataclass
class Outcome:
    """How a video went.

    Attributes:
        statistics: durations.
        dropped: frames of the source that were not segmented because they were late.
        undecodable: frames that could not be decoded, so that nothing is known of them.
        seconds: from the first frame to the end, on the wall.
        resets: how often the stabiliser dropped its past.
        ended: `end`, `limit`, `window closed`, `interrupted`, or `failed`.
        error: what ended it, if anything did.
        notes: what was wrong without ending it, one line each.
    """

    statistics: Statistics
    dropped: int = 0
    undecodable: int = 0
    seconds: float = 0.0
    resets: int = 0
    ended: str = "end"
    error: UserError | None = None
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The figures of a run."""
        frames = self.statistics.frames
        return {
            "frames": frames,
            "dropped": self.dropped,
            "undecodable": self.undecodable,
            "frames_per_second": round(frames / self.seconds, 2) if self.seconds else None,
            "milliseconds": self.statistics.stages(),
            "frame_ms": self.statistics.frame(),
            "latency_ms": self.statistics.latency(),
            "resets": self.resets,
            "ended": self.ended,
            "problems": [*self.notes, *([str(self.error)] if self.error is not None else [])],
        }


@dataclass
class VideoJob:
    """What is done with each frame.

    Attributes:
        segmenter: the model.
        teacher: a second model whose mask is shown beside it, or None.
        stability: what steadies the masks.
        budget_ms: longest time of a frame, or None.
        limit: frames after which to stop, or None.
        window: where overlays are shown, or None.
    """

    segmenter: Segmenter
    teacher: Segmenter | None = None
    stability: StabilityOptions = field(default_factory=StabilityOptions)
    budget_ms: float | None = None
    limit: int | None = None
    window: Window | None = None


def run_video(reader: Reader, job: VideoJob, outputs: Outputs) -> Outcome:
    """Process a source to its end, or until Ctrl-C, SIGTERM, or the window is closed.

    Whatever ends it, the outputs are finished and hold every frame up to there.

    Returns:
        The outcome; its `error` is for the caller to raise when it has said what was done.
    """
    outcome = Outcome(Statistics(job.budget_ms))
    stop = threading.Event()
    frames: Channel[Frame] = Channel(1 if reader.live else FILE_CAPACITY, newest_wins=reader.live)
    segmented: Channel[SegmentedFrame] = Channel(1 if reader.live else FILE_CAPACITY)
    writer = _Writer(segmented, outputs, outcome.statistics, reader.live)
    reading = threading.Thread(target=_read, args=(reader, frames, stop), daemon=True)
    begun = time.perf_counter()
    try:
        with (
            _interruptible(stop, frames) as interrupt,
            progress(_expected(reader, job), reader.name) as advance,
        ):
            _warm_up(job, reader)
            reading.start()
            writer.start()
            begun = time.perf_counter()
            try:
                for shown in _segment(reader, frames, job, outcome):
                    note = _note(shown)  # before the writer adds its stages
                    if not segmented.put(shown):
                        break  # the writer failed; its error is raised below
                    advance(note=note)
                    if job.window is not None and not job.window.show(outputs.newest):
                        outcome.ended = "window closed"
                        break
            finally:
                stop.set()
                frames.abandon()
                segmented.close()
                writer.join()
                reading.join(PATIENCE)
        if writer.error is not None:
            raise writer.error
        if interrupt.happened:
            outcome.ended = "interrupted"
    except UserError as error:
        outcome.ended = "failed"
        outcome.error = error
    except BaseException:
        # Ctrl-C for the second time, or a defect: the writer may still be at work, so that nothing
        # can be finished
        outputs.abandon()
        raise
    outcome.seconds = time.perf_counter() - begun
    outcome.dropped = reader.skipped + frames.dropped
    outcome.undecodable = reader.undecodable
    try:
        outputs.finish()
    except UserError as error:
        outcome.error = outcome.error or error
    for problem in (reader.problem, outputs.problem):
        if problem is not None:
            outcome.notes.append(problem)
    return outcome


def _segment(
    reader: Reader, frames: Channel[Frame], job: VideoJob, outcome: Outcome
) -> Iterator[SegmentedFrame]:
    segmenter = job.segmenter
    stabiliser = Stabiliser(job.stability, segmenter.bundle.manifest.threshold)
    failures, region = len(segmenter.failures), None
    for number, frame in enumerate(frames, start=1):
        result = segmenter.segment(frame.image)
        for failure in segmenter.failures[failures:]:
            info(f"{failure}; going on with {segmenter.target}")
        failures = len(segmenter.failures)
        milliseconds = {"decode": frame.decode_ms, **result.milliseconds}
        resets = stabiliser.resets
        if job.stability.active:
            begun = time.perf_counter()
            if result.region != region:
                stabiliser.forget()
                region = result.region
            result = steady(stabiliser, result, frame.image)
            milliseconds["stabilise"] = 1e3 * (time.perf_counter() - begun)
        begun = time.perf_counter()
        _ = result.components  # found here, so that its time is counted
        milliseconds["postprocess"] += 1e3 * (time.perf_counter() - begun)
        dropped = reader.skipped + frames.dropped
        shown = SegmentedFrame(frame, result, milliseconds, dropped, live=reader.live)
        shown.reset = stabiliser.resets > resets
        outcome.resets = stabiliser.resets
        if job.teacher is not None:
            shown.teacher = job.teacher.segment(frame.image)
        yield shown
        if number == job.limit:
            outcome.ended = "limit"
            return


def _warm_up(job: VideoJob, reader: Reader) -> None:
    # the first inference allocates memory; it would be the p99 of a short video
    for segmenter in (job.segmenter, job.teacher):
        if segmenter is not None:
            side = segmenter.bundle.manifest.size
            segmenter.warm_up(*(reader.size or (side, side)))


def _read(reader: Reader, frames: Channel[Frame], stop: threading.Event) -> None:
    error: BaseException | None = None
    try:
        for frame in reader.frames(stop):
            if not frames.put(frame):
                break
    except BaseException as caught:
        error = caught
    finally:
        # here and not in the main thread: OpenCV does not bear a release during a read
        reader.close()
        frames.close(error)


class _Writer(threading.Thread):
    """Hands segmented frames to the outputs and counts their times.

    Attributes:
        error: why it ended early, or None.
    """

    def __init__(
        self,
        segmented: Channel[SegmentedFrame],
        outputs: Outputs,
        statistics: Statistics,
        live: bool,
    ) -> None:
        super().__init__(daemon=True)
        self.error: BaseException | None = None
        self._segmented = segmented
        self._outputs = outputs
        self._statistics = statistics
        self._live = live

    def run(self) -> None:
        try:
            for shown in self._segmented:
                times = shown.milliseconds
                frame_ms = sum(times.values()) - times["decode"]
                self._outputs.add(shown)
                latency = shown.latency_ms if self._live else None
                self._statistics.add(times, frame_ms if latency is None else latency, latency)
        except BaseException as caught:
            self.error = caught
            self._segmented.abandon()


class _Interrupt:
    """Whether a signal asked for the end; the first one lets the current frame finish."""

    def __init__(self) -> None:
        self.happened = False
        # the one thing of `threading` and `queue` that may be used in a signal handler
        self.wake: queue.SimpleQueue[bool] = queue.SimpleQueue()


@contextlib.contextmanager
def _interruptible(stop: threading.Event, frames: Channel[Frame]) -> Iterator[_Interrupt]:
    """Let a signal end the video after the current frame; a second one ends it at once."""
    interrupt = _Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt  # signals belong to the main thread
        return

    def handle(number: int) -> None:
        if interrupt.happened:
            raise KeyboardInterrupt
        interrupt.happened = True
        interrupt.wake.put(True)

    def watch() -> None:
        # the main thread may be waiting for a frame that never comes
        if interrupt.wake.get():
            stop.set()
            frames.abandon()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        with handle_signals(handle):
            yield interrupt
    finally:
        interrupt.wake.put(False)
        watcher.join()


def _expected(reader: Reader, job: VideoJob) -> int | None:
    known = [count for count in (reader.expected, job.limit) if count is not None]
    return min(known, default=None)


def _note(shown: SegmentedFrame) -> str:
    took = sum(shown.milliseconds.values()) - shown.milliseconds["decode"]
    lost = f", {shown.dropped} dropped" if shown.dropped else ""
    return f"{took:.1f} ms a frame{lost}"
