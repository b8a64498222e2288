import time

import numpy as np
import pytest

from kdas_edge import latency
from kdas_edge.errors import UserError


class Clock:
    """A clock that only a candidate's work moves: a busy machine decides no test."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def work(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(latency, "time", clock)
    return clock


def test_candidates_take_turns():
    order = []
    candidates = {name: (lambda name=name: order.append(name)) for name in "ABC"}
    latency.measure(candidates, iterations=4, warmup=2)
    assert order == list("ABC") * (1 + 2 + 4)


def test_the_first_inference_is_kept_apart_from_the_samples(clock):
    calls = []

    def slow_start():
        calls.append(1)
        clock.work(0.05 if len(calls) == 1 else 0.002)

    result = latency.measure({"a": slow_start}, iterations=5, warmup=0)["a"]
    assert result.first == pytest.approx(0.05)
    assert result.samples == pytest.approx([0.002] * 5)


def test_a_candidate_that_fails_says_why_and_the_others_go_on():
    def broken():
        raise RuntimeError("out of memory")

    results = latency.measure({"bad": broken, "good": lambda: None}, iterations=3)
    assert str(results["bad"]) == "out of memory"
    assert len(results["good"].samples) == 3


def test_the_time_limit_ends_the_measurement_but_not_before_ten_rounds():
    result = latency.measure({"a": lambda: time.sleep(0.002)}, iterations=1000, seconds=0.0)["a"]
    assert len(result.samples) == latency.MINIMUM_ROUNDS


def test_percentiles_are_those_of_the_samples_in_milliseconds():
    result = latency.Latency(np.arange(1, 101) / 1000, first=0.5).as_json()
    assert result["p50"] == pytest.approx(50.5)
    assert result["p90"] == pytest.approx(90.1)
    assert result["max"] == 100
    assert result["first"] == 500
    assert len(result["samples"]) == 100


def test_noise_that_hits_a_whole_round_does_not_widen_the_ratio():
    rng = np.random.default_rng(0)
    burst = 1 + 3 * (rng.random(200) > 0.6)
    reference = latency.Latency(0.100 * burst, 0.1)
    candidate = latency.Latency(0.020 * burst * rng.normal(1, 0.01, 200), 0.02)
    ratio = latency.speedup(reference, candidate)
    assert ratio.low <= ratio.value <= ratio.high
    assert ratio.value == pytest.approx(5, rel=0.02)
    assert ratio.high - ratio.low < 0.2


def test_a_model_is_exactly_once_as_fast_as_itself():
    samples = latency.Latency(np.array([0.1, 0.2, 0.15]), 0.3)
    assert latency.speedup(samples, samples).as_json() == {"value": 1, "low": 1, "high": 1}


def test_zero_iterations_are_refused():
    with pytest.raises(UserError, match="at least 1"):
        latency.measure({"a": lambda: None}, iterations=0)


def test_deadline_misses_are_the_fraction_of_samples_longer_than_a_frame():
    samples = latency.Latency(np.array([0.010, 0.018, 0.030, 0.035, 0.050]), 0.1)
    misses = samples.as_json()["deadline_misses"]
    # 40, 33.3, 20 and 16.7 ms a frame
    assert misses == {"25": 0.2, "30": 0.4, "50": 0.6, "60": 0.8}


def test_p95_lies_between_p90_and_p99():
    result = latency.Latency(np.arange(1, 101) / 1000, first=0.5).as_json()
    assert result["p95"] == pytest.approx(95.05)


def falling(rounds, clock):
    """A candidate that takes 4 ms less each call until it takes 2 ms."""
    calls = []

    def run():
        calls.append(1)
        clock.work(0.002 + 0.004 * max(0, rounds - len(calls)))

    return run


def test_timing_begins_when_the_slowest_to_settle_has_settled(clock):
    plan = latency.Warmup(minimum=2, maximum=60, tolerance=0.25, window=3)
    candidates = {"steady": lambda: clock.work(0.002), "falling": falling(10, clock)}
    results = latency.measure(candidates, 4, warmup=plan)
    warmed = results["falling"].warmup
    # the first inference takes 38 ms, eight rounds fall from 34 to 6; the medians of three and of
    # the three before are equal when both lie in the steady rounds but for one
    assert warmed == latency.Warmed(rounds=13, change=pytest.approx(0), settled=True)
    assert results["steady"].warmup.rounds == warmed.rounds
    assert results["falling"].samples == pytest.approx([0.002] * 4)
    assert results["falling"].as_json()["warmup"]["rounds"] == warmed.rounds


def test_a_candidate_that_never_settles_is_timed_after_the_maximum_and_it_is_said(clock):
    calls = []

    def rising():
        calls.append(1)
        clock.work(0.0005 * len(calls))

    plan = latency.Warmup(minimum=2, maximum=8, tolerance=0.05, window=2)
    warmed = latency.measure({"a": rising}, 2, warmup=plan)["a"].warmup
    # calls 8 and 9 beside 6 and 7
    assert warmed == latency.Warmed(rounds=8, change=pytest.approx(8.5 / 6.5 - 1), settled=False)


def test_a_fixed_warm_up_says_that_nothing_is_known_about_stability():
    warmed = latency.measure({"a": lambda: None}, 3, warmup=2)["a"].warmup
    assert warmed == latency.Warmed(rounds=2, change=None, settled=False)


def test_the_time_limit_ends_a_warm_up_that_does_not_settle_but_not_before_its_minimum():
    plan = latency.Warmup(minimum=4, maximum=1000, tolerance=0.0, window=2)
    result = latency.measure({"a": lambda: time.sleep(0.001)}, 1, seconds=0.0, warmup=plan)["a"]
    assert result.warmup.rounds == 4


def test_a_warm_up_with_its_maximum_below_its_minimum_is_refused():
    with pytest.raises(UserError, match="raise the first"):
        latency.measure({"a": lambda: None}, 3, warmup=latency.Warmup(minimum=5, maximum=4))


def test_a_candidate_that_fails_while_warming_up_does_not_keep_the_others_waiting():
    calls = []

    def broken():
        calls.append(1)
        if len(calls) > 2:
            raise RuntimeError("lost the device")

    plan = latency.Warmup(minimum=2, maximum=40, tolerance=1.0, window=2)
    results = latency.measure({"bad": broken, "good": lambda: time.sleep(0.001)}, 3, warmup=plan)
    assert str(results["bad"]) == "lost the device"
    assert results["good"].warmup.settled
