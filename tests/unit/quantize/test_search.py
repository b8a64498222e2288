"""Which settings are tried, and which one is kept."""

import pytest
from tiny_student import TinyStudent
from torch import nn

from kdas_edge.quantize.attempts import Attempt, Ranges
from kdas_edge.quantize.search import choose, describe, is_transformer, settings_to_try
from kdas_edge.recipe import PtqRecipe


def attempt(dice: float, ranges: Ranges = "tensor", agreement: float = 0.9) -> Attempt:
    label = f"{dice} {ranges} {agreement}"
    return Attempt("ptq", label, dice, 0.9 - dice, agreement, 1.0, "passed", ranges)


def test_a_convolutional_network_gets_at_most_ten_settings_all_different(
    student: TinyStudent,
) -> None:
    settings = settings_to_try(PtqRecipe(overflow_fix="disable"), student.network)
    assert 5 <= len(settings) <= 10
    assert len({describe(setting) for setting in settings}) == len(settings)
    assert {s.activation_ranges for s in settings} == {"tensor", "channel"}
    assert {s.preset for s in settings} == {"mixed", "performance"}
    assert {s.fast_bias_correction for s in settings} == {True, False}
    assert len({s.range_estimator for s in settings}) > 3
    assert all(s.smooth_quant is None for s in settings)
    # what is not searched is the recipe's
    assert all(s.overflow_fix == "disable" for s in settings)


def test_a_transformer_gets_smooth_quant() -> None:
    network = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4))
    assert is_transformer(network)
    settings = settings_to_try(PtqRecipe(), network)
    assert len(settings) <= 10
    assert {s.smooth_quant for s in settings} == {None, 0.5, 0.95}


@pytest.mark.parametrize("ranges", ["tensor", "channel"])
def test_ranges_that_the_recipe_fixes_are_not_searched(
    ranges: Ranges, student: TinyStudent
) -> None:
    settings = settings_to_try(PtqRecipe(activation_ranges=ranges), student.network)
    assert {setting.activation_ranges for setting in settings} == {ranges}


def test_the_higher_dice_is_kept() -> None:
    rows = [attempt(0.85), attempt(0.88), attempt(0.86)]
    assert choose(rows) is choose(rows[::-1]) is rows[1]


def test_what_no_one_can_tell_apart_is_decided_by_agreement_with_the_float_student() -> None:
    rows = [attempt(0.8815, agreement=0.95), attempt(0.88, agreement=0.97)]
    assert choose(rows) is rows[1] and choose(rows[::-1]) is rows[1]
    apart = [attempt(0.883, agreement=0.95), attempt(0.88, agreement=0.97)]
    assert choose(apart) is choose(apart[::-1]) is apart[0]


def test_one_that_passes_the_gate_comes_before_one_that_agrees_more() -> None:
    rows = [attempt(0.881, agreement=0.95), attempt(0.88, agreement=0.97)]
    rows[1].verdict = "failed"
    assert choose(rows) is choose(rows[::-1]) is rows[0]


def test_more_dice_than_the_float_student_has_counts_as_no_loss() -> None:
    rows = [attempt(0.91, agreement=0.9), attempt(0.905, agreement=0.99)]
    assert choose(rows) is rows[1]


def test_one_range_per_tensor_is_preferred_within_a_thousandth() -> None:
    near = [attempt(0.8795, "tensor"), attempt(0.88, "channel")]
    assert choose(near).ranges == "tensor"
    far = [attempt(0.878, "tensor"), attempt(0.88, "channel")]
    assert choose(far).ranges == "channel"
    assert choose([attempt(0.5, "channel")]).ranges == "channel"
