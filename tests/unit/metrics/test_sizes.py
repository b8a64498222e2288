import numpy as np
import pytest

from kdas_edge.metrics import sizes


@pytest.mark.parametrize(
    ("fraction", "group"),
    [
        (0.0, "polyp-free"),
        (1e-6, "small"),
        (0.0299, "small"),
        (0.03, "medium"),
        (0.10, "medium"),
        (0.1001, "large"),
        (1.0, "large"),
    ],
)
def test_a_frame_belongs_to_the_group_of_its_polyp(fraction, group):
    assert sizes.size_group(fraction) == group


def test_every_frame_is_in_one_group_and_groups_without_frames_are_left_out():
    fractions = np.array([0, 0.2, 0.01, 0.5, 0])
    found = sizes.members(fractions)
    assert list(found) == ["small", "large", "polyp-free"]
    assert (sum(chosen.astype(int) for chosen in found.values()) == 1).all()
    assert found["large"].tolist() == [False, True, False, True, False]
