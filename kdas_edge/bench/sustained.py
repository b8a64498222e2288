"""A sustained run: does the machine keep its speed when it is warm?

A small fanless box is fast for a minute and slow for the rest of the examination. The candidate
runs without a pause, as the last of a video would, and its latency is told window by window.
"""

import gc
import time
from collections.abc import Callable

import numpy as np

from kdas_edge.bench.measurement_results import Sustained, SustainedWindow
from kdas_edge.errors import UserError
from kdas_edge.latency import Run

WINDOWS = 30
# shorter windows would hold too few inferences for a p99
_SHORTEST_WINDOW = 1.0


def sustain(
    run: Run,
    seconds: float,
    windows: int = WINDOWS,
    advance: Callable[[], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Sustained:
    """Run a candidate for so long and summarise its latency in windows.

    Args:
        run: one inference, synchronous; it has been warmed up.
        seconds: how long to run.
        windows: into how many parts the time is cut; fewer if they would be under a second.
        advance: called after each window, for a progress bar.
        clock: seconds, rising.

    Raises:
        UserError: no time to run.
    """
    if seconds <= 0:
        raise UserError(
            f"a sustained run of {seconds:g} s measures nothing; give --minutes above 0"
        )
    length = max(seconds / windows, min(_SHORTEST_WINDOW, seconds))
    count = max(1, round(seconds / length))
    summaries: list[SustainedWindow] = []
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        begun = before = clock()
        for index in range(count):
            samples: list[float] = []
            start, end = before - begun, begun + (index + 1) * seconds / count
            # one inference at least: a slow candidate still shows a point in every window
            while not samples or before < end:
                run()
                now = clock()
                samples.append(now - before)
                before = now
            summaries.append(_summary(start, samples))
            if advance is not None:
                advance()
    finally:
        if collecting:
            gc.enable()
    medians = [window.p50 for window in summaries]
    return Sustained(
        seconds=round(before - begun, 3),
        inferences=sum(window.inferences for window in summaries),
        window_seconds=round(seconds / count, 3),
        windows=summaries,
        slowdown=round(medians[-1] / medians[0], 4) if medians[0] else 1.0,
        worst_slowdown=round(max(medians) / medians[0], 4) if medians[0] else 1.0,
    )


def _summary(start: float, samples: list[float]) -> SustainedWindow:
    p50, p99 = np.percentile(samples, (50, 99))
    return SustainedWindow(
        start_s=round(start, 3),
        inferences=len(samples),
        p50=round(1e3 * float(p50), 4),
        p99=round(1e3 * float(p99), 4),
    )
