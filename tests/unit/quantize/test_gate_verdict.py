"""The verdict on a quantised network."""

import numpy as np
import pytest

from kdas_edge.quantize.gate import judge

FLOAT = np.array([0.9, 0.8, 0.7, 1.0])


def test_fine_tuning_is_kept_when_it_is_better() -> None:
    gate = judge(FLOAT, FLOAT - 0.03, FLOAT - 0.01, max_drop=0.02)
    assert gate.kept == "qat" and gate.passed
    assert gate.drop == pytest.approx(0.01)


def test_post_training_quantisation_is_kept_when_fine_tuning_ends_worse() -> None:
    gate = judge(FLOAT, FLOAT - 0.01, FLOAT - 0.03, max_drop=0.02)
    assert gate.kept == "ptq" and gate.drop == pytest.approx(0.01)
    assert gate.qat_dice == pytest.approx(FLOAT.mean() - 0.03)


def test_too_large_a_loss_fails() -> None:
    assert not judge(FLOAT, FLOAT - 0.021, None, max_drop=0.02).passed


def test_a_gain_passes_a_gate_of_zero() -> None:
    gate = judge(FLOAT - 0.1, FLOAT, None, max_drop=0.0)
    assert gate.passed and gate.drop < 0


def test_the_interval_is_paired_per_image() -> None:
    # every image loses the same, however different the images are: there is no uncertainty
    gate = judge(FLOAT, FLOAT - 0.01, None, max_drop=0.02)
    assert gate.interval == pytest.approx((0.01, 0.01))
    uneven = judge(FLOAT, FLOAT - [0.0, 0.0, 0.0, 0.04], None, max_drop=0.02)
    assert uneven.interval[0] < uneven.drop < uneven.interval[1]


def test_the_numbers_can_be_written_as_json() -> None:
    values = judge(FLOAT, FLOAT, None, max_drop=0.02).as_json()
    assert values["passed"] is True and values["images"] == 4 and values["qat_dice"] is None
