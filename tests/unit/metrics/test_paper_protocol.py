import numpy as np
import pytest

from kdas_edge.metrics import paper


def disc(height, width, row, column, radius):
    rows, columns = np.mgrid[:height, :width]
    return (rows - row) ** 2 + (columns - column) ** 2 < radius**2


def soft_map(rng, mask, noise=0.25):
    return np.clip(mask * 0.7 + 0.1 + noise * rng.standard_normal(mask.shape), 0, 1)


def brute_force(probability, mask):
    """256 passes, as the MATLAB code does them."""
    stretched = paper.stretch(probability, mask)
    dice, iou = [], []
    for t in range(256):
        predicted = stretched >= t / 255
        hits = (predicted & mask).sum()
        dice.append(2 * hits / max(predicted.sum() + mask.sum(), 1))
        iou.append(hits / max((predicted | mask).sum(), 1))
    return np.mean(dice), np.mean(iou), dice[128], iou[128]


@pytest.mark.parametrize("kind", ["float64", "float32", "uint8", "on thresholds", "constant"])
def test_the_histogram_gives_exactly_what_256_passes_give(kind):
    rng = np.random.default_rng(7)
    mask = disc(61, 83, 30, 40, 17)
    probability = soft_map(rng, mask)
    if kind == "float32":
        probability = probability.astype(np.float32)
    elif kind == "uint8":
        probability = (probability * 255).astype(np.uint8)
    elif kind == "on thresholds":
        probability = rng.integers(0, 256, mask.shape) / 255
    elif kind == "constant":
        probability = np.full(mask.shape, 0.3)
    values = paper.score(probability, mask)
    got = (values["mDice"], values["mIoU"], values["Dice@0.5"], values["IoU@0.5"])
    assert got == pytest.approx(brute_force(probability, mask), abs=1e-12)


@pytest.mark.parametrize("mask_kind", ["disc", "empty", "full"])
def test_the_e_measure_equals_pysodmetrics_at_every_threshold(mask_kind):
    from py_sod_metrics import Emeasure

    rng = np.random.default_rng(3)
    mask = {
        "disc": disc(40, 50, 20, 20, 11),
        "empty": np.zeros((40, 50), bool),
        "full": np.ones((40, 50), bool),
    }[mask_kind]
    probability = soft_map(rng, disc(40, 50, 22, 24, 10))
    reference = Emeasure()
    reference.gt_fg_numel, reference.gt_size = int(mask.sum()), mask.size
    stretched = paper.stretch(probability, mask)
    expected = [reference.cal_em_with_threshold(stretched, mask, t / 255) for t in range(256)]
    result = paper.measure(probability, mask)
    np.testing.assert_allclose(result.e_curve, expected, atol=1e-12)
    assert result.values["Emeasure"] == pytest.approx(np.mean(expected))


def test_a_perfect_map_has_perfect_scores_except_at_threshold_zero():
    mask = disc(64, 64, 32, 32, 20)
    values = paper.score(mask.astype(np.float32), mask)
    # at t = 0 the whole image is predicted: the protocol's own blemish, 1 of 256 thresholds
    share = mask.mean()
    assert values["mDice"] == pytest.approx((255 + 2 * share / (1 + share)) / 256)
    assert values["MAE"] == 0
    assert values["Smeasure"] == pytest.approx(1, abs=1e-6)
    assert values["wFmeasure"] == pytest.approx(1, abs=1e-6)
    assert values["Dice@0.5"] == 1


def test_stretching_makes_scale_and_offset_of_a_map_irrelevant():
    rng = np.random.default_rng(0)
    mask = disc(32, 32, 16, 16, 9)
    probability = soft_map(rng, mask)
    faint = 0.2 + probability / 4
    first, second = paper.score(probability, mask), paper.score(faint, mask)
    assert first == pytest.approx(second, abs=1e-3)


def test_the_published_e_measure_is_the_maximum_of_the_mean_curve():
    first, second = np.zeros(256), np.zeros(256)
    first[10], second[200] = 1, 1
    assert paper.max_e_measure([first, second]) == 0.5


def test_a_map_of_another_size_or_range_is_refused():
    mask = np.zeros((4, 4), bool)
    with pytest.raises(ValueError, match="differ in shape"):
        paper.score(np.zeros((4, 5)), mask)
    with pytest.raises(ValueError, match=r"lie in 0…1"):
        paper.score(np.full((4, 4), 1.5), mask)
    with pytest.raises(ValueError, match=r"lie in 0…1"):
        paper.score(np.full((4, 4), np.nan), mask)


def test_a_probability_that_rounding_lifts_over_one_is_accepted() -> None:
    # OpenVINO on AVX-512 gives 1 + 2^-23 for a sure pixel
    mask = np.array([[True, False], [True, False]])
    values = np.array([[1 + 2**-23, 0.0], [0.9, 0.1]], np.float32)
    clipped = np.minimum(values, np.float32(1))
    assert paper.score(values, mask) == pytest.approx(paper.score(clipped, mask), abs=1e-6)
