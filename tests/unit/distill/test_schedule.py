"""What is known of a step before it happens."""

import pytest

from kdas_edge.distill.schedule import derive_seed, learning_rate
from kdas_edge.recipe import ScheduleRecipe


def test_the_learning_rate_warms_up_and_ends_near_zero() -> None:
    schedule = ScheduleRecipe(epochs=1, learning_rate=1.0, warmup=0.1)
    rates = [learning_rate(schedule, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates == sorted(rates[:10]) + sorted(rates[10:], reverse=True)
    assert rates[-1] < 1e-3


def test_seeds_of_neighbouring_steps_share_nothing() -> None:
    seeds = {derive_seed(a, b) for a in range(30) for b in range(30)}
    assert len(seeds) == 900
    assert all(0 <= seed < 2**63 for seed in seeds)
