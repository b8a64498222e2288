import numpy as np
import pytest

from kdas_edge.metrics import deploy


def test_scores_are_those_counted_by_hand():
    mask = np.zeros((4, 5), bool)
    mask[1, 1:4] = True
    probability = np.zeros((4, 5), np.float32)
    probability[1, 2:5] = 0.9  # two hits, one false positive, one miss
    values = deploy.score(probability, mask)
    assert values["Dice"] == pytest.approx(4 / 6)
    assert values["IoU"] == pytest.approx(2 / 4)
    assert values["sensitivity"] == pytest.approx(2 / 3)
    assert values["precision"] == pytest.approx(2 / 3)
    assert values["specificity"] == pytest.approx(16 / 17)
    assert values["missed_frame"] == 0
    assert values["false_positive_frame"] is None


def test_a_polyp_free_frame_has_no_dice_and_counts_as_marked_or_not():
    mask = np.zeros((3, 3), bool)
    quiet = deploy.score(np.full((3, 3), 0.4), mask)
    assert (quiet["Dice"], quiet["IoU"], quiet["false_positive_frame"]) == (None, None, 0)
    assert quiet["sensitivity"] is None and quiet["precision"] is None
    noisy = np.full((3, 3), 0.4)
    noisy[0, 0] = 0.6
    marked = deploy.score(noisy, mask)
    assert (marked["Dice"], marked["IoU"], marked["false_positive_frame"]) == (None, None, 1)
    assert marked["specificity"] == pytest.approx(8 / 9)


def test_the_threshold_is_fixed_and_nothing_is_stretched():
    mask = np.ones((2, 2), bool)
    faint = np.full((2, 2), 0.3)
    assert deploy.score(faint, mask)["missed_frame"] == 1
    assert deploy.score(faint, mask, threshold=0.2)["Dice"] == 1


def test_a_pixel_exactly_on_the_threshold_is_background():
    mask = np.zeros((1, 1), bool)
    assert deploy.score(np.full((1, 1), 0.5), mask)["false_positive_frame"] == 0


def test_eight_bit_maps_give_the_scores_of_their_probabilities():
    rng = np.random.default_rng(1)
    grey = rng.integers(0, 256, (20, 20)).astype(np.uint8)
    mask = rng.random((20, 20)) > 0.5
    assert deploy.score(grey, mask) == deploy.score(grey / 255, mask)


def test_a_map_of_another_size_is_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        deploy.score(np.zeros((4, 5)), np.zeros((4, 4), bool))
