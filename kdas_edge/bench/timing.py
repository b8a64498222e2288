"""The latency of a target's rows, measured in turns: the model alone, and frame in, mask out."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge import latency
from kdas_edge.bench.pipeline import Pipeline
from kdas_edge.bench.profiling import profile_row
from kdas_edge.bench.rows import Row, Settings, TimedFrame, timed_frames
from kdas_edge.console import progress
from kdas_edge.data.layout import ImageSet
from kdas_edge.errors import UserError, last_line
from kdas_edge.image_files import read_image

_PROFILED_INFERENCES = 20
_DECODE = "decode"


class EndToEnd:
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


def model_only(row: Row, frames: Sequence[TimedFrame]) -> latency.Run:
    """One inference: the input is ready, as it is when a host prepares the next frame meanwhile."""
    assert row.backend is not None
    infer, inputs = row.backend.infer, itertools.cycle(row.inputs(frames))
    return lambda: infer(next(inputs))


def time_rows(group: Sequence[Row], sets: dict[str, ImageSet], settings: Settings) -> None:
    """Time the loaded rows of one target round by round; ratios refer to the teacher's fp32."""
    alive = {str(index): row for index, row in enumerate(group) if row.backend is not None}
    if not alive:
        return
    frames = timed_frames(sets)
    runs = {key: model_only(row, frames) for key, row in alive.items()}
    whole: dict[str, EndToEnd] = {}
    if settings.end_to_end:
        whole = {
            key: EndToEnd(row.pipeline, frames)
            for key, row in alive.items()
            if row.target.batch == 1
        }
        runs |= {_whole(key): candidate for key, candidate in whole.items()}
        if frames[0].file is not None:
            runs[_DECODE] = _decode(frames)
    with progress(settings.iterations, f"timing {group[0].target}") as advance:
        timings = latency.measure(
            runs, settings.iterations, settings.seconds, settings.warmup, advance
        )
    reference = next(
        (k for k, row in alive.items() if row.role == "teacher" and row.precision == "fp32"), None
    )
    for key, row in alive.items():
        timing = timings[key]
        if not isinstance(timing, latency.Latency):
            row.fail(timing)
            continue
        row.values["latency"] = timing.as_json()
        row.values |= _ratio(timings.get(reference or ""), timing)
        if row.target.batch > 1:
            row.values["ms_per_frame"] = round(1e3 * timing.percentile(50) / row.target.batch, 4)
        if settings.end_to_end:
            row.values["end_to_end"] = _end_to_end(row, key, whole.get(key), timings, reference)
            row.values["end_to_end"]["frames"] = _sizes(frames)


def profile_rows(group: Sequence[Row], sets: dict[str, ImageSet]) -> None:
    """Where the time goes; a runtime that cannot tell does not fail the row."""
    frames = timed_frames(sets)
    alive = [row for row in group if row.reason is None]
    with progress(len(alive), f"profiling {group[0].target}") as advance:
        for row in alive:
            try:
                if row.target.batch > 1:
                    raise UserError("a profile is of batch 1; remove the option batch")
                found = profile_row(
                    row.bundle,
                    row.precision,
                    row.target,
                    row.inputs(frames),
                    _PROFILED_INFERENCES,
                )
                row.values["profile"] = found.as_json()
            except UserError as error:
                row.values["profile"] = {"unavailable": last_line(error)}
            advance()


def _end_to_end(
    row: Row,
    key: str,
    candidate: EndToEnd | None,
    timings: dict[str, latency.Latency | Exception],
    reference: str | None,
) -> dict[str, Any]:
    if candidate is None:
        return {"unavailable": f"batch={row.target.batch}: a camera gives one frame at a time"}
    timing = timings[_whole(key)]
    if not isinstance(timing, latency.Latency):
        return {"unavailable": last_line(timing)}
    decode = timings.get(_DECODE)
    return {
        **timing.as_json(),
        **_ratio(timings.get(_whole(reference or "")), timing),
        "stages": candidate.stages(len(timing.samples)),
        "decode": _short(decode) if isinstance(decode, latency.Latency) else None,
    }


def _ratio(
    reference: latency.Latency | Exception | None, timing: latency.Latency
) -> dict[str, dict[str, float]]:
    if not isinstance(reference, latency.Latency):
        return {}
    return {"speedup": latency.speedup(reference, timing).as_json()}


def _decode(frames: Sequence[TimedFrame]) -> latency.Run:
    """From a file that lies in the system's cache to a BGR frame."""
    files = itertools.cycle(frame.file for frame in frames if frame.file is not None)
    return lambda: cv2.cvtColor(read_image(next(files)), cv2.COLOR_RGB2BGR)


def _whole(key: str) -> str:
    return f"{key} end to end"


def _short(timing: latency.Latency) -> dict[str, float]:
    return {f"p{p}": round(1e3 * timing.percentile(p), 4) for p in (50, 90, 99)}


def _sizes(frames: Sequence[TimedFrame]) -> list[str]:
    """Width × height of the timed frames, each once."""
    return list(dict.fromkeys(f"{f.image.shape[1]}×{f.image.shape[0]}" for f in frames))
