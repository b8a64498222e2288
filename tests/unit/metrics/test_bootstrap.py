"""The bootstrap behind every interval."""

import numpy as np
import pytest

from kdas_edge.metrics.bootstrap import bootstrap_mean, interval, resampled


def test_the_interval_is_seeded_and_covers_the_true_mean_about_95_times_in_100():
    rng = np.random.default_rng(5)
    draws = [rng.beta(8, 2, 60) for _ in range(150)]
    estimates = [bootstrap_mean(values) for values in draws]
    covered = np.mean([estimate.low <= 0.8 <= estimate.high for estimate in estimates])
    assert 0.9 <= covered <= 0.98
    assert bootstrap_mean(draws[0]) == estimates[0]


def test_resampled_rounds_give_the_interval_of_any_statistic():
    values = np.random.default_rng(1).normal(10, 1, 200)
    low, high = interval(np.median(values[resampled(200)], axis=1))
    assert low < np.median(values) < high and high - low == pytest.approx(0.35, abs=0.15)
    assert (resampled(7, seed=3) == resampled(7, seed=3)).all()
