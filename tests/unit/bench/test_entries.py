import numpy as np
import pytest

from kdas_edge.bench.entries import accuracy_entry
from kdas_edge.bench.result_base import AccuracyKey
from kdas_edge.bench.scores import ImageScore, SetScores
from kdas_edge.metrics import deploy

# share of the frame that is polyp, one row of pixels per hundredth
FRACTIONS = (0.01, 0.02, 0.05, 0.2, 0.3, 0.0, 0.0)


def entry_json(scores, references=None):
    """The entry as the result file holds it."""
    key = AccuracyKey("m", "int8", "openvino:CPU")
    return accuracy_entry(scores, key, references).model_dump(mode="json", exclude_none=True)


def scored(name, hits_by_frame, false_pixels=0):
    """Scores of masks of 10,000 pixels, of which a share of the polyp is hit."""
    rows = []
    for index, (fraction, share) in enumerate(zip(FRACTIONS, hits_by_frame, strict=True)):
        mask = np.zeros(10_000, bool)
        mask[: round(fraction * 10_000)] = True
        predicted = np.zeros(10_000, bool)
        predicted[: round(share * fraction * 10_000)] = True
        if not fraction and share:
            predicted[-false_pixels:] = True
        values = deploy.score_masks(predicted[None], mask[None])
        rows.append(ImageScore(f"f{index}", values, fraction))
    return SetScores(name, "deploy", tuple(rows))


@pytest.fixture
def student():
    # one small polyp missed, one found by a third, one polyp-free frame marked
    return scored("clinic", (0.0, 0.3, 0.8, 0.9, 1.0, 1.0, 0.0), false_pixels=7)


@pytest.fixture
def teacher():
    return scored("clinic", (0.5, 0.5, 0.8, 0.9, 1.0, 0.0, 0.0))


def test_scores_are_told_by_size_of_polyp(student):
    groups = entry_json(student)["by_size"]
    assert {name: group["images"] for name, group in groups.items()} == {
        "small": 2,
        "medium": 1,
        "large": 2,
        "polyp-free": 2,
    }
    assert groups["small"]["metrics"]["Dice"]["mean"] == pytest.approx((0 + 0.6 / 1.3) / 2)
    assert groups["small"]["what"] == "below 3% of the frame"
    assert groups["polyp-free"]["metrics"]["false_positive_frame"]["mean"] == 0.5


def test_frames_are_counted_as_missed_found_and_falsely_marked(student):
    frames = entry_json(student)["frames"]
    assert (frames["polyp_frames"], frames["polyp_free_frames"]) == (5, 2)
    assert frames["sensitivity"]["mean"] == pytest.approx(4 / 5)
    # a third of a polyp is an overlap but no detection at IoU 0.5
    assert frames["sensitivity_iou50"]["mean"] == pytest.approx(3 / 5)
    assert frames["false_positive_frames"]["mean"] == pytest.approx(1 / 2)
    for name in ("sensitivity", "sensitivity_iou50", "false_positive_frames"):
        assert 0 <= frames[name]["low"] < frames[name]["high"] <= 1


def test_a_set_without_polyp_free_frames_has_no_share_of_them(student):
    with_polyps = SetScores("clinic", "deploy", student.rows[:5])
    frames = entry_json(with_polyps)["frames"]
    assert frames["polyp_free_frames"] == 0 and "false_positive_frames" not in frames


def test_differences_are_paired_and_stand_in_every_size_group(student, teacher):
    entry = entry_json(student, {"teacher": teacher, "fp32": student})
    assert "difference_to_fp32" not in entry  # it is the fp32 entry itself
    expected = np.mean(
        [
            s.metrics["Dice"] - t.metrics["Dice"]
            for s, t in zip(student.rows[:5], teacher.rows[:5], strict=True)
        ]
    )
    assert entry["difference_to_teacher"]["mean"] == pytest.approx(expected)
    by_size = entry["by_size"]
    assert by_size["large"]["difference_to_teacher"]["mean"] == 0
    assert by_size["small"]["difference_to_teacher"]["high"] < 0
    alarms = by_size["polyp-free"]["difference_to_teacher"]
    assert (alarms["metric"], alarms["mean"]) == ("false_positive_frame", 0.5)


def test_the_worst_images_come_first_with_their_size(student):
    worst = entry_json(student)["worst"]
    assert [image["name"] for image in worst] == ["f0", "f1", "f2", "f3", "f4"]
    assert worst[0] == {"name": "f0", "score": 0.0, "polyp_fraction": 0.01, "size": "small"}


def test_the_paper_protocol_has_sizes_and_worst_cases_but_counts_no_frames():
    rows = [ImageScore(f"f{i}", {"mDice": 0.1 * i}, 0.05) for i in range(3)]
    entry = entry_json(SetScores("clinic", "paper", tuple(rows)))
    assert "frames" not in entry
    assert entry["by_size"]["medium"]["metrics"]["mDice"]["mean"] == pytest.approx(0.1)
    assert entry["worst"][0]["name"] == "f0"
