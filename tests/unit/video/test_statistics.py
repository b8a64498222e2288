import numpy as np
import pytest

from kdas_edge.video.statistics import Series, Statistics


def test_percentiles_are_of_the_newest_samples_and_the_largest_of_all():
    series = Series(capacity=100)
    values = np.random.default_rng(0).exponential(10, 350)
    for value in values:
        series.add(float(value))
    summary = series.summary()
    for percent in (50, 90, 99):
        assert summary[f"p{percent}"] == pytest.approx(
            np.percentile(values[-100:], percent), abs=1e-3
        )
    assert summary["max"] == pytest.approx(values.max(), abs=1e-3) and series.count == 350


def test_nothing_has_no_percentiles():
    assert Series().summary() == {}
    assert Statistics().frame() == {} and Statistics().stages() == {}


def test_late_frames_are_those_above_the_budget():
    statistics = Statistics(budget_ms=10)
    for value in (9, 10, 10.1, 30):
        statistics.add({"inference": value - 2, "draw": 1}, value)
    assert statistics.late == 2 and statistics.frames == 4
    assert statistics.stages()["draw"]["p50"] == 1 and statistics.latency() == {}
    statistics.add({"inference": 1}, 1, latency_ms=7)
    assert statistics.latency()["max"] == 7
