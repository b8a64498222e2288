"""Which frames stand for all."""

import numpy as np
import pytest

from kdas_edge.quantize.calibration.coverage import coverage, radius
from kdas_edge.quantize.calibration.selection import (
    METHODS,
    feature_matrix,
    k_center,
    quotas,
    select,
)


def _crowd_and_strays(strays: int = 8) -> np.ndarray:
    """Two hundred alike frames and a few far from them and from each other."""
    rng = np.random.default_rng(0)
    crowd = rng.normal(0, 0.1, (200, 7))
    return np.concatenate([crowd, 3 * np.eye(7)[:strays], -3 * np.eye(7)[: max(0, strays - 7)]])


def test_k_center_reaches_what_random_frames_miss() -> None:
    features = _crowd_and_strays()
    count = 12
    strays = set(range(200, len(features)))
    ours = radius(features, k_center(features, count, np.random.default_rng(0)))
    missed, far = [], []
    for seed in range(20):
        random = np.random.default_rng(seed).choice(len(features), count, replace=False)
        missed.append(len(strays - set(random.tolist())))
        far.append(radius(features, random)[1])
    assert strays <= set(k_center(features, count, np.random.default_rng(0)))
    assert ours[1] < 0.5 * min(far)
    assert min(missed) > 0


def test_k_center_is_within_twice_the_best_radius() -> None:
    # six points on a line, two centres: the best choice (1 and 11) has radius 1
    line = np.array([[0.0], [1], [2], [10], [11], [12]])
    for seed in range(6):
        assert radius(line, k_center(line, 2, np.random.default_rng(seed)))[1] <= 2


def test_identical_frames_are_taken_once_each() -> None:
    features = np.zeros((5, 7))
    assert sorted(k_center(features, 5, np.random.default_rng(1))) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_means_one_choice(method: str) -> None:
    rng = np.random.default_rng(5)
    features = rng.normal(size=(120, 7))
    polyps = [None if i % 7 == 0 else 0.0 if i % 5 == 0 else i / 600 for i in range(120)]
    first = select(features, polyps, 20, method, seed=3)
    assert first == select(features, polyps, 20, method, seed=3)
    assert first == sorted(set(first)) and len(first) == 20
    assert first != select(features, polyps, 20, method, seed=4)


@pytest.mark.parametrize("method", METHODS)
def test_a_tenth_is_polyp_free_where_there_are_as_many(method: str) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 7))
    # polyp-free: 3 % of the frames, and of the 40 chosen at least 10 %
    polyps = [0.0 if i < 12 else 0.2 for i in range(400)]
    chosen = select(features, polyps, 40, method, seed=0)
    assert sum(polyps[i] == 0 for i in chosen) == 4
    # half of them: in proportion
    polyps = [0.0 if i % 2 else 0.2 for i in range(400)]
    chosen = select(features, polyps, 40, method, seed=0)
    assert sum(polyps[i] == 0 for i in chosen) == 20


def test_stratified_has_every_size() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 7))
    polyps = [0.01 if i < 5 else 0.05 if i < 30 else 0.0 if i < 33 else 0.3 for i in range(300)]
    chosen = select(features, polyps, 30, "stratified", seed=0)
    sizes = [polyps[i] for i in chosen]
    assert {size: sizes.count(size) for size in (0.0, 0.01, 0.05, 0.3)} == {
        0.0: 3,
        0.01: 3,
        0.05: 3,
        0.3: 21,
    }


def test_quotas_add_up_whatever_is_asked() -> None:
    assert quotas({"a": 90, "b": 9, "c": 1}, 10) == {"a": 8, "b": 1, "c": 1}
    assert quotas({"a": 50, "b": 50}, 1) in ({"a": 1, "b": 0}, {"a": 0, "b": 1})
    for count in range(1, 60):
        given = quotas({"a": 40, "b": 3, "c": 17}, count)
        assert sum(given.values()) == count
        assert given["a"] <= 40 and given["b"] <= 3 and given["c"] <= 17


def test_all_are_taken_where_fewer_are_there() -> None:
    assert select(np.zeros((3, 7)), [None] * 3, 300, "kcenter", seed=0) == [0, 1, 2]


def test_features_are_standardised_clipped_and_unknown_is_the_mean() -> None:
    appearances = [[float(i), 0.5, 2.0, 0.01, 20.0, 30.0] for i in range(50)]
    appearances[7][5] = 1000.0
    polyps = [None if i % 2 else (i / 100) ** 2 for i in range(50)]
    features = feature_matrix(appearances, polyps)
    assert features.shape == (50, 7)
    np.testing.assert_allclose(features[:, 0], (np.arange(50) - 24.5) / np.arange(50).std())
    # what does not vary says nothing; the outlier is held at three standard deviations
    assert (features[:, 1:5] == 0).all() and features[7, 5] == 3
    side = np.arange(0, 50, 2) / 100
    np.testing.assert_allclose(features[::2, 6], (side - side.mean()) / side.std())
    assert (features[1::2, 6] == 0).all()


def test_coverage_counts_tenths_of_the_range() -> None:
    values = [float(i) for i in range(101)] + [None]
    found = coverage(values, [0, 5, 50, 100, 101], [40, 41, 42])
    assert found is not None
    assert found["candidates"] == {
        "frames": 101,
        "min": 0.0,
        "median": 50.0,
        "max": 100.0,
        "tenths": 10,
    }
    assert found["chosen"]["tenths"] == 3 and found["chosen"]["frames"] == 4
    assert found["random"]["tenths"] == 1
    assert coverage([None, None], [0], [1]) is None
