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


def reference(probability, mask):
    """S-measure, weighted F and MAE by PySODMetrics."""
    from py_sod_metrics import MAE, Smeasure, WeightedFmeasure

    stretched = paper.stretch(probability, mask)
    measures = Smeasure(), WeightedFmeasure(), MAE()
    for one in measures:
        one.step(stretched, mask, normalize=False)
    keys = ("sm", "wfm", "mae")
    return [one.get_results()[key] for one, key in zip(measures, keys, strict=True)]


def structure(probability, mask):
    values = paper.score(probability, mask)
    return [values[name] for name in ("Smeasure", "wFmeasure", "MAE")]


MASKS = {
    "disc": disc(70, 90, 30, 40, 17),
    "at the corner": disc(70, 90, 0, 89, 12),
    "two polyps": disc(70, 90, 15, 15, 8) | disc(70, 90, 50, 70, 11),
    # every tie and every gap of the nearest polyp pixel occurs
    "scattered": np.random.default_rng(5).random((70, 90)) < 0.03,
    "one pixel": disc(70, 90, 33, 44, 1),
    "all but one pixel": ~disc(70, 90, 33, 44, 1),
    "full": np.ones((70, 90), bool),
    "empty": np.zeros((70, 90), bool),
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("kind", [np.float64, np.float32, np.uint8])
def test_the_structure_measures_equal_pysodmetrics(name, kind):
    mask = MASKS[name]
    rng = np.random.default_rng(3)
    probability = soft_map(rng, disc(70, 90, 34, 44, 15))
    probability = (probability * (255 if kind is np.uint8 else 1)).astype(kind)
    assert structure(probability, mask) == pytest.approx(reference(probability, mask), abs=1e-9)


@pytest.mark.parametrize("background", [0.0, 1e-3, 0.3])
def test_far_false_alarms_count_in_a_large_frame(background):
    # larger than the surroundings in which distances are computed first
    mask = disc(420, 500, 60, 70, 20)
    rng = np.random.default_rng(8)
    probability = background * rng.random(mask.shape) + 0.6 * disc(420, 500, 62, 72, 21)
    probability[400:, 480:] = 0.5 * (background > 0)
    assert structure(probability, mask) == pytest.approx(reference(probability, mask), abs=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_random_masks_and_maps_of_any_size_equal_pysodmetrics(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(5, 60, 2)
    mask = rng.random((height, width)) < rng.uniform(0.01, 0.6)
    mask[rng.integers(height), rng.integers(width)] = True
    mask[0, 0] = False
    probability = rng.random((height, width)) ** rng.uniform(0.2, 5)
    assert structure(probability, mask) == pytest.approx(reference(probability, mask), abs=1e-9)


def test_a_binary_map_and_a_quadrant_without_contrast_equal_pysodmetrics():
    mask = np.zeros((40, 40), bool)
    mask[5:8, :] = mask[:, 5:8] = True  # an L leaves the lower right quadrant without polyp
    probability = np.zeros((40, 40), np.float32)
    probability[4:9, :20] = 1
    assert structure(probability, mask) == pytest.approx(reference(probability, mask), abs=1e-9)


def test_sharing_the_geometry_of_a_mask_changes_nothing():
    from kdas_edge.metrics.geometry import MaskGeometry

    rng = np.random.default_rng(2)
    mask = MASKS["two polyps"]
    shared = MaskGeometry(mask)
    for noise in (0.05, 0.4):
        probability = soft_map(rng, mask, noise)
        alone, together = (paper.measure(probability, mask, g) for g in (None, shared))
        assert alone.values == together.values


def test_saturated_and_quantised_maps_fall_on_the_right_side_of_every_threshold():
    rng = np.random.default_rng(4)
    mask = disc(61, 83, 30, 40, 17)
    for levels in (2, 3, 16, 256):
        probability = (np.rint(soft_map(rng, mask) * (levels - 1)) / (levels - 1)).astype("f4")
        values = paper.score(probability, mask)
        got = (values["mDice"], values["mIoU"], values["Dice@0.5"], values["IoU@0.5"])
        assert got == pytest.approx(brute_force(probability, mask), abs=1e-12)


@pytest.mark.parametrize("kind", ["even", "dark", "two plateaus", "8 bits", "narrow", "constant"])
def test_float32_maps_of_any_range_give_exactly_what_256_passes_give(kind):
    rng = np.random.default_rng(12)
    mask = disc(61, 83, 30, 40, 17)
    draw = rng.random(mask.shape, dtype=np.float32)
    probability = {
        "even": draw,
        "dark": draw**6,
        "two plateaus": np.where(draw > 0.5, np.float32(1), draw * np.float32(1e-3)),
        "8 bits": np.rint(draw * 255) / np.float32(255),
        "narrow": np.float32(0.3) + draw * np.float32(1e-4),
        "constant": np.full_like(draw, 1 + 1e-6),
    }[kind].astype(np.float32)
    values = paper.score(probability, mask)
    got = (values["mDice"], values["mIoU"], values["Dice@0.5"], values["IoU@0.5"])
    assert got == pytest.approx(brute_force(probability, mask), abs=1e-12)
