import time

import numpy as np
import pytest

from kdas_edge import latency
from kdas_edge.errors import UserError


def test_candidates_take_turns():
    order = []
    candidates = {name: (lambda name=name: order.append(name)) for name in "ABC"}
    latency.measure(candidates, iterations=4, warmup=2)
    assert order == list("ABC") * (1 + 2 + 4)


def test_the_first_inference_is_kept_apart_from_the_samples():
    calls = []

    def slow_start():
        calls.append(1)
        if len(calls) == 1:
            time.sleep(0.05)

    result = latency.measure({"a": slow_start}, iterations=5, warmup=0)["a"]
    assert result.first > 0.04
    assert len(result.samples) == 5
    assert result.percentile(99) < 0.04


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
