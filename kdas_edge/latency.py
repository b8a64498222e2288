"""Latency: synchronous, batch 1, one request, candidates interleaved in one process (A B C A B C).

A noisy machine then hurts all candidates alike, and the ratio of two candidates, computed over the
same rounds, is far steadier than either latency. Load time and the first inference, which fills
caches and allocates memory, are kept apart from the rest.
"""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdas_edge.errors import UserError

# runs one inference; what it returns is dropped
Run = Callable[[], object]

MINIMUM_ROUNDS = 10
_RESAMPLES = 2000
_SEED = 20231


@dataclass(frozen=True)
class Latency:
    """Timed inferences of one candidate.

    Attributes:
        samples: (N,) seconds, one per round, after warm-up.
        first: seconds of the very first inference.
    """

    samples: NDArray[np.float64]
    first: float

    def percentile(self, percent: float) -> float:
        """A percentile of the samples, in seconds."""
        return float(np.percentile(self.samples, percent))

    def as_json(self) -> dict[str, Any]:
        """Milliseconds: p50, p90, p99, max, min, mean, first, and every sample in order."""
        milliseconds = self.samples * 1e3
        p50, p90, p99 = np.percentile(milliseconds, (50, 90, 99))
        return {
            "unit": "ms",
            "p50": _round(p50),
            "p90": _round(p90),
            "p99": _round(p99),
            "max": _round(milliseconds.max()),
            "min": _round(milliseconds.min()),
            "mean": _round(milliseconds.mean()),
            "first": _round(self.first * 1e3),
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
    warmup: int = 3,
    advance: Callable[[], None] | None = None,
) -> dict[str, Latency | Exception]:
    """Time the candidates in turn, round after round.

    Args:
        candidates: name to a function that runs one inference synchronously.
        iterations: rounds to time, each with one inference per candidate.
        seconds: stop earlier when the timed rounds together took this long, but not before
            `MINIMUM_ROUNDS` rounds.
        warmup: untimed rounds after the first inference.
        advance: called after each timed round, for a progress bar.

    Returns:
        Per candidate its `Latency`, or the exception with which it failed; the others go on.

    Raises:
        UserError: fewer than one iteration.
    """
    if iterations < 1:
        raise UserError(f"--iterations {iterations}: a latency needs at least 1 iteration")
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
    for _ in range(warmup):
        for name in candidates:
            turn(name)

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
        name: failures.get(name) or Latency(np.array(samples[name]), first[name])
        for name in candidates
    }


def speedup(reference: Latency, candidate: Latency, seed: int = _SEED) -> Ratio:
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
    rng = np.random.default_rng(seed)
    count = len(reference.samples)
    rounds = rng.integers(0, count, (_RESAMPLES, count))
    ratios = np.median(reference.samples[rounds], axis=1) / np.median(
        candidate.samples[rounds], axis=1
    )
    low, high = np.percentile(ratios, (2.5, 97.5))
    return Ratio(value, float(low), float(high))


def _round(milliseconds: float) -> float:
    """To 0.1 µs: the clock knows no more, and the file stays small."""
    return round(float(milliseconds), 4)
