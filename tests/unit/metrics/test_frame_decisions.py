"""Frame decisions against definitions written as loops."""

import numpy as np
import pytest

from kdas_edge.metrics.frames import area_under_roc, at_threshold, keeping, longest_runs, roc


def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    # rounded, so that there are ties
    return np.round(rng.normal(1, 1, 83), 1), np.round(rng.normal(0, 1, 41), 1)


@pytest.mark.parametrize("seed", range(5))
def test_the_area_is_the_share_of_ordered_pairs(seed: int) -> None:
    positive, negative = draw(seed)
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert area_under_roc(positive, negative) == pytest.approx(np.mean(pairs), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_area_is_that_below_the_curve(seed: int) -> None:
    positive, negative = draw(seed)
    points = roc(positive, negative)
    area = np.trapezoid([p.sensitivity for p in points], [p.false_frames for p in points])
    assert area == pytest.approx(area_under_roc(positive, negative), abs=1e-12)
    assert points[-1].sensitivity == points[-1].false_frames == 1.0


@pytest.mark.parametrize("share", [1.0, 0.97, 0.9, 0.5, 1 / 83])
def test_the_threshold_is_the_highest_that_keeps_the_share(share: float) -> None:
    positive, negative = draw(7)
    point = keeping(positive, negative, share)
    assert point.sensitivity >= share - 1e-9
    higher = positive[positive > point.threshold]
    if len(higher):
        assert at_threshold(positive, negative, higher.min()).sensitivity < share
    assert point.false_frames == np.mean([score >= point.threshold for score in negative])


def test_runs_do_not_cross_from_one_sequence_into_the_next() -> None:
    marked = np.array([1, 1, 1, 1, 0, 1, 1, 1, 1, 1], bool)
    sequences = ["a"] * 2 + ["b"] * 3 + ["c"] * 5
    assert longest_runs(marked, sequences) == {3: 1, 5: 1}
    assert longest_runs(marked, ["a"] * 10) == {3: 2, 5: 1}


def test_an_empty_side_a_nan_and_an_impossible_share_are_refused() -> None:
    some = np.array([0.5])
    with pytest.raises(ValueError, match="0 polyp-free"):
        area_under_roc(some, np.array([]))
    with pytest.raises(ValueError, match="NaN"):
        area_under_roc(some, np.array([np.nan]))
    with pytest.raises(ValueError, match="cannot be kept"):
        keeping(some, some, 0.0)
