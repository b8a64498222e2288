"""Percentile bootstrap: the one implementation behind every 95 % interval."""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
SEED = 20231
# images up to which resampled sets are kept for the next metric; 6 MB each
_SHARED = 400


@dataclass(frozen=True)
class Estimate:
    """A mean over images with its 95 % bootstrap interval.

    Attributes:
        mean: over the `count` images for which the metric is defined.
        low, high: the 2.5 % and 97.5 % points of the means of resampled image sets. They say how
            much another draw of images from the same source would change the mean, no more.
        count: images that entered.
    """

    mean: float
    low: float
    high: float
    count: int


def bootstrap_mean(values: NDArray[np.float64], seed: int = SEED) -> Estimate:
    """Mean of `values` (N,) with its 95 % percentile bootstrap interval, seeded."""
    if len(values) == 1:
        only = float(values[0])
        return Estimate(only, only, only, 1)
    count = len(values)
    draw = _shared_counts if count <= _SHARED else _counts
    low, high = interval(draw(count, seed) @ values / count)
    return Estimate(float(values.mean()), low, high, count)


def resampled(count: int, seed: int = SEED) -> NDArray[np.int64]:
    """(2000, N) numbers of the items that each resampled set of N items holds."""
    return np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))


def interval(statistics: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % interval of a statistic (2000,) that was computed on every resampled set."""
    low, high = np.percentile(statistics, (2.5, 97.5))
    return float(low), float(high)


def _counts(count: int, seed: int) -> NDArray[np.float64]:
    """(2000, N): how often each of N images occurs in each resampled set."""
    rng = np.random.default_rng(seed)
    # counts instead of indices: N numbers a resample, whatever the size of the set
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return drawn.astype(np.float64)


# every metric of every model on a set is resampled alike, and drawing costs more than averaging
_shared_counts = functools.lru_cache(maxsize=16)(_counts)
