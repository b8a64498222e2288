"""The latency of a target's rows, measured in turns: the model alone, and frame in, mask out."""

import itertools
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge import latency
from kdas_edge.bench.candidates import BenchCandidate, Settings, TimedFrame, timed_frames
from kdas_edge.bench.measurement_results import EndToEnd, LatencyRecord, Percentiles, ProfileRecord
from kdas_edge.bench.models import NOT_FINITE
from kdas_edge.bench.pipeline import Pipeline
from kdas_edge.bench.profiling import profile_row
from kdas_edge.bench.result_base import Unavailable
from kdas_edge.console import progress
from kdas_edge.data.layout import ImageSet
from kdas_edge.errors import UserError, last_line
from kdas_edge.image_files import read_image

_PROFILED_INFERENCES = 20
_DECODE = "decode"


class WholeFrame:
    """Frame in, mask out: a candidate of `latency.measure` that keeps how long each stage took."""

    def __init__(self, pipeline: Pipeline, frames: Sequence[TimedFrame]) -> None:
        self._segment = pipeline.segment
        self._frames: Iterator[NDArray[np.uint8]] = itertools.cycle(
            np.ascontiguousarray(frame.image[..., ::-1]) for frame in frames
        )
        self._stages: list[dict[str, float]] = []

    def __call__(self) -> None:
        """Segment the next frame."""
        self._stages.append(self._segment(next(self._frames)).milliseconds)

    def stages(self, timed: int) -> dict[str, float]:
        """Median milliseconds of each stage over the last `timed` calls."""
        last = self._stages[-timed:]
        return {
            name: round(float(np.median([stages[name] for stages in last])), 4)
            for name in (last[0] if last else {})
        }


def model_only(candidate: BenchCandidate, frames: Sequence[TimedFrame]) -> latency.Run:
    """One inference: the input is ready, as it is when a host prepares the next frame meanwhile."""
    assert candidate.backend is not None
    infer, inputs = candidate.backend.infer, itertools.cycle(candidate.inputs(frames))
    return lambda: infer(next(inputs))


def measure_latencies(
    group: Sequence[BenchCandidate], sets: dict[str, ImageSet], settings: Settings
) -> None:
    """Time the loaded models of one target in turns; ratios refer to the teacher's fp32."""
    alive = {str(index): one for index, one in enumerate(group) if one.backend is not None}
    if not alive:
        return
    frames = timed_frames(sets)
    runs = {key: model_only(one, frames) for key, one in alive.items()}
    whole: dict[str, WholeFrame] = {}
    if settings.end_to_end:
        whole = {
            key: WholeFrame(one.pipeline, frames)
            for key, one in alive.items()
            if one.target.batch == 1
        }
        runs |= {_whole(key): run for key, run in whole.items()}
        if frames[0].file is not None:
            runs[_DECODE] = _decode(frames)
    with progress(settings.iterations, f"timing {group[0].target}") as advance:
        timings = latency.measure(
            runs, settings.iterations, settings.seconds, settings.warmup, advance
        )
    reference = next((key for key, one in alive.items() if one.row.is_reference), "")
    for key, one in alive.items():
        timing, row = timings[key], one.row
        if not isinstance(timing, latency.Latency):
            one.fail(timing)
            continue
        problem = _not_finite(one, frames)
        if problem is not None:
            one.fail(problem)
            continue
        row.latency = LatencyRecord.model_validate(timing.as_json())
        row.speedup = _ratio(timings.get(reference), timing)
        if one.target.batch > 1:
            row.ms_per_frame = round(1e3 * timing.percentile(50) / one.target.batch, 4)
        if settings.end_to_end:
            row.end_to_end = _end_to_end(one, key, whole.get(key), timings, reference, frames)


def profile(group: Sequence[BenchCandidate], sets: dict[str, ImageSet]) -> None:
    """Where the time goes; a runtime that cannot tell does not fail the row."""
    frames = timed_frames(sets)
    alive = [candidate for candidate in group if not candidate.failed]
    with progress(len(alive), f"profiling {group[0].target}") as advance:
        for one in alive:
            try:
                if one.target.batch > 1:
                    raise UserError("a profile is of batch 1; remove the option batch")
                found = profile_row(
                    one.bundle,
                    one.row.precision,
                    one.target,
                    one.inputs(frames),
                    _PROFILED_INFERENCES,
                )
                one.row.profile = ProfileRecord.model_validate(found.as_json())
            except UserError as error:
                one.row.profile = Unavailable(unavailable=last_line(error))
            advance()


def _end_to_end(
    one: BenchCandidate,
    key: str,
    run: WholeFrame | None,
    timings: dict[str, latency.Latency | Exception],
    reference: str,
    frames: Sequence[TimedFrame],
) -> EndToEnd | Unavailable:
    if run is None:
        reason = f"batch={one.target.batch}: a camera gives one frame at a time"
        return Unavailable(unavailable=reason)
    timing = timings[_whole(key)]
    if not isinstance(timing, latency.Latency):
        return Unavailable(unavailable=last_line(timing))
    decode = timings.get(_DECODE)
    return EndToEnd(
        **timing.as_json(),
        speedup=_ratio(timings.get(_whole(reference)), timing),
        stages=run.stages(len(timing.samples)),
        decode=_short(decode) if isinstance(decode, latency.Latency) else None,
        frames=_sizes(frames),
    )


def _not_finite(one: BenchCandidate, frames: Sequence[TimedFrame]) -> str | None:
    """Why the output is no result; a latency of a network that computes NaN says nothing."""
    assert one.backend is not None
    try:
        output = one.backend.infer(one.inputs(frames)[0])
    except Exception as error:  # it ran a moment ago, and the other rows go on
        return last_line(error)
    return None if np.isfinite(output).all() else NOT_FINITE


def _ratio(
    reference: latency.Latency | Exception | None, timing: latency.Latency
) -> latency.Ratio | None:
    if not isinstance(reference, latency.Latency):
        return None
    return latency.speedup(reference, timing)


def _decode(frames: Sequence[TimedFrame]) -> latency.Run:
    """From a file that lies in the system's cache to a BGR frame."""
    files = itertools.cycle(frame.file for frame in frames if frame.file is not None)
    return lambda: cv2.cvtColor(read_image(next(files)), cv2.COLOR_RGB2BGR)


def _whole(key: str) -> str:
    return f"{key} end to end"


def _short(timing: latency.Latency) -> Percentiles:
    p50, p90, p99 = (round(1e3 * timing.percentile(p), 4) for p in (50, 90, 99))
    return Percentiles(p50=p50, p90=p90, p99=p99)


def _sizes(frames: Sequence[TimedFrame]) -> list[str]:
    """Width × height of the timed frames, each once."""
    return list(dict.fromkeys(f"{f.image.shape[1]}×{f.image.shape[0]}" for f in frames))
