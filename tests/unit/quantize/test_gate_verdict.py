"""The verdict on a quantised network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from kdas_edge.data.dataset import load_training_data
from kdas_edge.models.zoo import build
from kdas_edge.quantize.evaluation import Evaluation, evaluate, polyp_fractions
from kdas_edge.quantize.gate import Gate, Phase, judge, paired_interval
from kdas_edge.recipe import DataRecipe, ModelRecipe

FLOAT = np.array([0.9, 0.8, 0.7, 1.0])
# one small, one medium, one large polyp, one frame without
FRACTIONS = np.array([0.01, 0.05, 0.3, 0.0])


def seen(dice: NDArray[np.float64], marked: NDArray[np.bool_] | None = None) -> Evaluation:
    """An evaluation with this Dice, whose masks have a pixel where `marked` is true."""
    marked = dice < 1 if marked is None else marked
    return Evaluation(dice, np.broadcast_to(marked[:, None, None], (len(dice), 2, 2)))


def verdict(
    ptq: NDArray[np.float64],
    qat: NDArray[np.float64] | None = None,
    max_drop: float = 0.02,
    max_group_drop: float | None = None,
) -> Gate:
    candidates: dict[Phase, Evaluation] = {"ptq": seen(ptq)}
    if qat is not None:
        candidates["qat"] = seen(qat)
    return judge(seen(FLOAT), candidates, FRACTIONS, max_drop, max_group_drop)


def test_fine_tuning_is_kept_when_it_is_better() -> None:
    gate = verdict(FLOAT - 0.03, FLOAT - 0.01)
    assert gate.kept == "qat" and gate.passed
    assert gate.drop == pytest.approx(0.01)


def test_post_training_quantisation_is_kept_when_fine_tuning_ends_worse_or_equal() -> None:
    gate = verdict(FLOAT - 0.01, FLOAT - 0.03)
    assert gate.kept == "ptq" and gate.drop == pytest.approx(0.01)
    assert gate.qat_dice == pytest.approx(FLOAT.mean() - 0.03)
    assert verdict(FLOAT - 0.01, FLOAT - 0.01).kept == "ptq"


def test_a_difference_that_may_be_luck_is_decided_by_whose_masks_stayed_the_same() -> None:
    marked, other = np.ones((2, 4, 2, 2), dtype=bool)
    other[:, 0] = False
    reference = Evaluation(FLOAT, marked)
    faithful = Evaluation(FLOAT - [0.0, 0.02, 0.0, 0.0], marked)
    lucky = Evaluation(FLOAT + np.array([0.03, -0.01, 0.0, 0.0]), other)  # more Dice, by one image
    for candidates, kept in (
        ({"ptq": faithful, "qat": lucky}, "ptq"),
        ({"ptq": lucky, "qat": faithful}, "qat"),
        # better on every image: that is no luck
        ({"ptq": faithful, "qat": Evaluation(FLOAT + 0.01, other)}, "qat"),
        ({"ptq": faithful, "qat": Evaluation(FLOAT - 0.03, marked)}, "ptq"),
    ):
        assert judge(reference, candidates, FRACTIONS, 0.02).kept == kept  # type: ignore[arg-type]


def test_too_large_a_loss_fails() -> None:
    assert verdict(FLOAT - 0.021).verdict == "failed"


def test_the_interval_decides_and_too_few_images_leave_it_undecided() -> None:
    lost = np.array([0.0, 0.0, 0.0, 0.04])
    low, high = verdict(FLOAT - lost).interval
    assert low < 0.01 < high
    assert verdict(FLOAT - lost, max_drop=high).verdict == "passed"
    undecided = verdict(FLOAT - lost, max_drop=high - 1e-6)
    assert undecided.verdict == "undecided" and not undecided.passed
    # the estimate is above the allowance, and yet nothing is decided
    assert verdict(FLOAT - lost, max_drop=0.009).verdict == "undecided"
    assert verdict(FLOAT - lost - 0.01, max_drop=low + 0.009).verdict == "failed"


@pytest.mark.parametrize("broken", ["reference", "candidate", "score"])
def test_nan_or_infinity_fails_whatever_the_means_say(broken: str) -> None:
    finite = np.array([True, True, False, True])
    perfect, masks = np.ones(4), np.ones((4, 2, 2), bool)
    reference = Evaluation(perfect, masks, finite if broken == "reference" else np.True_)
    score = np.where(finite, 1.0, np.nan) if broken == "score" else perfect
    candidate = Evaluation(score, masks, finite if broken == "candidate" else np.True_)
    gate = judge(reference, {"ptq": candidate}, FRACTIONS, 1.0)
    assert gate.verdict == "failed" and gate.not_finite == 1
    assert np.isfinite(gate.as_json()["drop"])


def test_a_network_full_of_nan_is_not_a_network_without_a_loss(scenes: Path) -> None:
    network = build(ModelRecipe(backbone="mobilenetv2_100", width=16), 64)
    data = load_training_data(DataRecipe(root=str(scenes), size=64, validation=0.25), 64).validation
    reference = evaluate(network, data)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(float("nan"))
    found = evaluate(network, data)
    assert reference.finite.all() and not found.finite.any() and found.mean == 0
    gate = judge(reference, {"ptq": found}, polyp_fractions(data), 1.0)
    assert gate.verdict == "failed" and gate.not_finite == len(data.images)


def test_a_gain_passes_a_gate_of_zero() -> None:
    gate = judge(seen(FLOAT - 0.1), {"ptq": seen(FLOAT)}, FRACTIONS, 0.0)
    assert gate.passed and gate.drop < 0


def test_the_interval_is_paired_per_image() -> None:
    # every image loses the same, however different the images are: there is no uncertainty
    assert verdict(FLOAT - 0.01).interval == pytest.approx((0.01, 0.01))
    uneven = verdict(FLOAT - [0.0, 0.0, 0.0, 0.04])
    assert uneven.interval[0] < uneven.drop < uneven.interval[1]


def test_the_interval_is_that_of_the_normal_approximation_for_many_images() -> None:
    lost = np.random.default_rng(1).normal(0.01, 0.05, 400)
    low, high = paired_interval(lost)
    half = 1.96 * lost.std() / np.sqrt(400)
    assert low == pytest.approx(lost.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(lost.mean() + half, abs=0.1 * half)


def test_the_numbers_can_be_written_as_json() -> None:
    values = verdict(FLOAT).as_json()
    assert values["passed"] is True and values["verdict"] == "passed"
    assert values["images"] == 4 and values["qat_dice"] is None


def test_groups_are_those_computed_by_hand() -> None:
    fractions = np.array([0.01, 0.0299, 0.03, 0.10, 0.2, 0.0, 0.0, 0.0])
    before = np.array([0.8, 0.6, 0.9, 0.7, 0.95, 1.0, 0.0, 1.0])
    after = np.array([0.5, 0.7, 0.9, 0.6, 0.95, 0.0, 0.0, 1.0])
    alarms_before = np.array([1, 1, 1, 1, 1, 0, 1, 0], bool)
    alarms_after = np.array([1, 1, 1, 1, 1, 1, 1, 0], bool)
    gate = judge(
        seen(before, alarms_before), {"ptq": seen(after, alarms_after)}, fractions, max_drop=0.5
    )
    small, medium, large, empty = gate.groups
    assert [g.name for g in gate.groups] == ["small", "medium", "large", "polyp-free"]
    assert [g.images for g in gate.groups] == [2, 2, 1, 3]
    assert (small.float_dice, small.int8_dice) == (pytest.approx(0.7), pytest.approx(0.6))
    assert small.drop == pytest.approx(0.1)
    # of two images the bootstrap draws each one twice a quarter of the time
    assert small.interval == (pytest.approx(-0.1), pytest.approx(0.3))
    assert medium.drop == pytest.approx(0.05) and large.drop == pytest.approx(0)
    assert large.interval == (0, 0)
    assert empty.drop == pytest.approx(1 / 3)
    assert (empty.float_alarms, empty.int8_alarms) == (1, 2)
    assert small.float_alarms is None and small.int8_alarms is None


def test_a_group_without_an_image_is_left_out() -> None:
    gate = judge(seen(FLOAT), {"ptq": seen(FLOAT)}, np.full(4, 0.2), 0.0)
    assert [group.name for group in gate.groups] == ["large"]


def test_a_lost_small_polyp_is_warned_of_although_the_mean_passes() -> None:
    gate = verdict(FLOAT - [0.06, 0.0, 0.0, 0.0], max_drop=0.02)
    assert gate.drop < gate.max_drop
    [line] = gate.warnings()
    assert "small" in line and "0.0600" in line and "1 images" in line
    assert verdict(FLOAT - 0.015).warnings() == []


def test_a_group_can_fail_the_gate_when_asked() -> None:
    lost = FLOAT - [0.06, 0.0, 0.0, 0.0]
    gate = verdict(lost, max_drop=0.06, max_group_drop=0.05)
    assert gate.verdict == "failed" and gate.failed_groups == ["small"]
    assert verdict(lost, max_drop=0.06, max_group_drop=0.07).passed
    # then one that passes is kept, even if its mean is lower
    even = verdict(lost, FLOAT - 0.018, max_group_drop=0.05)
    assert even.kept == "qat" and even.passed


def test_agreement_compares_masks_and_not_scores() -> None:
    half = np.zeros((2, 2, 2), bool)
    half[0, 0] = True  # of the first frame the upper half; nothing of the second
    full = np.zeros((2, 2, 2), bool)
    full[0] = True
    dice = np.ones(2)
    assert Evaluation(dice, half).agreement(Evaluation(dice, half)) == 1
    assert Evaluation(dice, half).agreement(Evaluation(dice, full)) == pytest.approx(
        (2 * 2 / (2 + 4) + 1) / 2
    )
