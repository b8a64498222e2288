"""Latency: synchronous, batch 1, one request, candidates interleaved in one process (A B C A B C).

A busy machine then slows all candidates alike, and the ratio of two candidates, computed over the
same rounds, is far steadier than either latency. Load time and the first inference, which fills
caches and allocates memory, are kept apart from the rest. Timing begins when the latencies of all
candidates have settled, not after a fixed count.
"""

import gc
import operator
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdas_edge.errors import UserError
from kdas_edge.metrics.bootstrap import SEED, interval, resampled

# runs one inference; what it returns is dropped
Run = Callable[[], object]

MINIMUM_ROUNDS = 10
# frames per second of endoscopy processors and of displays; a frame that takes longer is late
DEADLINES = (25, 30, 50, 60)


@dataclass(frozen=True)
class Warmup:
    """When timing may begin: after untimed rounds in which every candidate has settled.

    A candidate has settled when the median of its last `window` rounds differs from the median of
    the `window` rounds before by at most `tolerance`.

    Attributes:
        minimum: rounds in any case, at least 0.
        maximum: rounds after which timing begins even so; equal to `minimum` for a fixed count.
        tolerance: largest relative change of the median, e.g. 0.05 for 5 %.
        window: rounds of one median, at least 1.
    """

    minimum: int = 3
    maximum: int = 50
    tolerance: float = 0.05
    window: int = 8

    def change(self, samples: Sequence[float]) -> float | None:
        """Relative change of the running median; None before two windows are full."""
        if len(samples) < 2 * self.window:
            return None
        before = float(np.median(samples[-2 * self.window : -self.window]))
        # a clock that is coarser than the candidate sees nothing change
        return abs(float(np.median(samples[-self.window :])) / before - 1) if before else 0.0


@dataclass(frozen=True)
class Warmed:
    """How the warm-up of one candidate went.

    Attributes:
        rounds: untimed rounds, the first inference not counted.
        change: relative change of the median at the end; None if there were too few rounds.
        settled: True if the change was within the tolerance; a machine that is busy with
            something else may never settle.
    """

    rounds: int
    change: float | None
    settled: bool

    def as_json(self) -> dict[str, Any]:
        """A JSON object; the change in per cent."""
        percent = None if self.change is None else round(100 * self.change, 2)
        return {"rounds": self.rounds, "change_percent": percent, "settled": self.settled}


@dataclass(frozen=True)
class Latency:
    """Timed inferences of one candidate.

    Attributes:
        samples: (N,) seconds, one per round, after warm-up.
        first: seconds of the very first inference.
        warmup: what came between the two; None for samples from elsewhere.
    """

    samples: NDArray[np.float64]
    first: float
    warmup: Warmed | None = None

    def percentile(self, percent: float) -> float:
        """A percentile of the samples, in seconds."""
        return float(np.percentile(self.samples, percent))

    def deadline_misses(self) -> dict[str, float]:
        """Fraction of samples, 0–1, that take longer than one frame at 25, 30, 50 and 60 fps."""
        return {str(fps): round(float((self.samples > 1 / fps).mean()), 6) for fps in DEADLINES}

    def as_json(self) -> dict[str, Any]:
        """Milliseconds: p50, p90, p95, p99, max, min, mean, first, and every sample in order.

        `deadline_misses` has the frames per second as keys; `warmup` is there where it is known.
        """
        milliseconds = self.samples * 1e3
        percentiles = {f"p{p}": float(np.percentile(milliseconds, p)) for p in (50, 90, 95, 99)}
        return {
            "unit": "ms",
            **{name: _round(value) for name, value in percentiles.items()},
            "max": _round(milliseconds.max()),
            "min": _round(milliseconds.min()),
            "mean": _round(milliseconds.mean()),
            "first": _round(self.first * 1e3),
            "deadline_misses": self.deadline_misses(),
            **({"warmup": self.warmup.as_json()} if self.warmup is not None else {}),
            "samples": [_round(value) for value in milliseconds],
        }


@dataclass(frozen=True)
class Ratio:
    """How many times faster a candidate is than the reference: median over median.

    Attributes:
        value: reference median / candidate median; above 1 is faster.
        low, high: 95 % bootstrap interval, resampling whole rounds.
    """

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """A JSON object with the three numbers."""
        return {"value": self.value, "low": self.low, "high": self.high}


def measure(
    candidates: Mapping[str, Run],
    iterations: int = 100,
    seconds: float = 60.0,
    warmup: int | Warmup = 3,
    advance: Callable[[], None] | None = None,
) -> dict[str, Latency | Exception]:
    """Time the candidates in turn, round after round.

    Args:
        candidates: name to a function that runs one inference synchronously.
        iterations: rounds to time, each with one inference per candidate.
        seconds: stop earlier when the timed rounds together took this long, but not before
            `MINIMUM_ROUNDS` rounds.
        warmup: untimed rounds after the first inference: so many, or until all candidates have
            settled; these too end after `seconds`.
        advance: called after each timed round, for a progress bar.

    Returns:
        Per candidate its `Latency`, or the exception with which it failed; the others go on.

    Raises:
        UserError: fewer than one iteration, or a warm-up whose maximum is below its minimum.
    """
    if iterations < 1:
        raise UserError(f"--iterations {iterations}: a latency needs at least 1 iteration")
    plan = Warmup(warmup, warmup) if isinstance(warmup, int) else warmup
    if plan.maximum < plan.minimum:
        raise UserError(
            f"a warm-up of at most {plan.maximum} rounds and at least {plan.minimum}; "
            "raise the first or lower the second"
        )
    failures: dict[str, Exception] = {}
    first: dict[str, float] = {}
    samples: dict[str, list[float]] = {name: [] for name in candidates}

    def turn(name: str) -> float | None:
        if name in failures:
            return None
        try:
            start = time.perf_counter()
            candidates[name]()
            return time.perf_counter() - start
        except Exception as error:  # a runtime's failure must not end the other rows
            failures[name] = error
            return None

    for name in candidates:
        taken = turn(name)
        if taken is not None:
            first[name] = taken
    warming: dict[str, list[float]] = {name: [] for name in candidates}
    begun = time.perf_counter()
    for done in range(plan.maximum):
        late = time.perf_counter() - begun > seconds
        running = [name for name in candidates if name not in failures]
        settled = all(_settled(plan, warming[name]) for name in running)
        if done >= plan.minimum and (settled or late):
            break
        for name in running:
            taken = turn(name)
            if taken is not None:
                warming[name].append(taken)

    # a collection in the middle of an inference would look like a slow inference
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        begun = time.perf_counter()
        for done in range(1, iterations + 1):
            for name in candidates:
                taken = turn(name)
                if taken is not None:
                    samples[name].append(taken)
            if advance is not None:
                advance()
            late = time.perf_counter() - begun > seconds
            if (late and done >= min(MINIMUM_ROUNDS, iterations)) or len(failures) == len(
                candidates
            ):
                break
    finally:
        if collecting:
            gc.enable()
    return {
        name: failures.get(name)
        or Latency(np.array(samples[name]), first[name], _warmed(plan, warming[name]))
        for name in candidates
    }


def _settled(plan: Warmup, samples: Sequence[float]) -> bool:
    change = plan.change(samples)
    return change is not None and change <= plan.tolerance


def _warmed(plan: Warmup, samples: Sequence[float]) -> Warmed:
    return Warmed(len(samples), plan.change(samples), _settled(plan, samples))


def speedup(reference: Latency, candidate: Latency, seed: int = SEED) -> Ratio:
    """How many times faster `candidate` is than `reference`, with a bootstrap interval.

    Both come from one `measure`, so that sample i of both belongs to round i: rounds are resampled
    and a burst of noise stays with both.

    Raises:
        ValueError: another number of rounds.
    """
    if len(reference.samples) != len(candidate.samples):
        raise ValueError("a ratio needs two latencies of the same rounds")
    value = float(np.median(reference.samples) / np.median(candidate.samples))
    if reference is candidate:
        return Ratio(1.0, 1.0, 1.0)
    rounds = resampled(len(reference.samples), seed)
    medians = (np.median(one.samples[rounds], axis=1) for one in (reference, candidate))
    return Ratio(value, *interval(operator.truediv(*medians)))


def _round(milliseconds: float) -> float:
    """To 0.1 µs, the resolution of the clock; the file stays small."""
    return round(float(milliseconds), 4)
