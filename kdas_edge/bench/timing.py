"""The latency of a target's rows, measured in turns, and where the time of each goes."""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kdas_edge import latency
from kdas_edge.bench.models import one_line
from kdas_edge.bench.profile.rows import profile_row
from kdas_edge.bench.rows import Row, Settings, core_inputs, timed_frames
from kdas_edge.console import progress
from kdas_edge.data.layout import ImageSet
from kdas_edge.errors import UserError

_PROFILED_INFERENCES = 20


def time_rows(group: Sequence[Row], sets: dict[str, ImageSet], settings: Settings) -> None:
    """Time the loaded rows of one target round by round; ratios refer to the teacher's fp32."""
    alive = {str(index): row for index, row in enumerate(group) if row.backend is not None}
    if not alive:
        return
    frames = timed_frames(sets)
    runs = {key: _inference(row, frames) for key, row in alive.items()}
    with progress(settings.iterations, f"timing {group[0].target}") as advance:
        timings = latency.measure(
            runs, settings.iterations, settings.seconds, settings.warmup, advance
        )
    good: dict[str, latency.Latency] = {}
    for key, timing in timings.items():
        if isinstance(timing, latency.Latency):
            good[key] = timing
            alive[key].values["latency"] = timing.as_json()
        else:
            alive[key].fail(timing)
    reference = next(
        (
            good[key]
            for key, row in alive.items()
            if row.role == "teacher" and row.precision == "fp32" and key in good
        ),
        None,
    )
    for key, timing in good.items():
        if reference is not None:
            alive[key].values["speedup"] = latency.speedup(reference, timing).as_json()


def profile_rows(group: Sequence[Row], sets: dict[str, ImageSet]) -> None:
    """Where the time goes; a runtime that cannot tell does not fail the row."""
    frames = timed_frames(sets)
    alive = [row for row in group if row.reason is None]
    with progress(len(alive), f"profiling {group[0].target}") as advance:
        for row in alive:
            inputs = core_inputs(frames, row.bundle.manifest)
            try:
                found = profile_row(
                    row.bundle, row.precision, row.target, inputs, _PROFILED_INFERENCES
                )
                row.values["profile"] = found.as_json()
            except UserError as error:
                row.values["profile"] = {"unavailable": one_line(error)}
            advance()


def _inference(row: Row, frames: Sequence[NDArray[np.uint8]]) -> latency.Run:
    """Model only: the input is ready, as it is when a host prepares the next frame meanwhile."""
    backend, manifest = row.backend, row.bundle.manifest
    assert backend is not None
    inputs = itertools.cycle(core_inputs(frames, manifest))
    return lambda: backend.infer(next(inputs))
