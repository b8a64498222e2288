import numpy as np
import pytest

from kdas_edge.runtime.components import find_components
from kdas_edge.runtime.frames import Roi
from kdas_edge.runtime.result import Result


def two_regions():
    mask = np.zeros((40, 60), bool)
    mask[2:5, 3:9] = True
    mask[20:30, 40:52] = True
    mask[30, 52] = True  # touches the second at a corner
    return mask


def test_regions_come_largest_first_with_box_area_centre_and_probability():
    probability = np.full((40, 60), 0.9, np.float32)
    probability[:10] = 0.6
    large, small = find_components(two_regions(), probability)
    assert large.box == (40, 20, 13, 11) and large.area == 121
    assert large.probability == pytest.approx(0.9)
    assert small.box == (3, 2, 6, 3) and small.area == 18
    assert small.centroid == (5.5, 3.0) and small.probability == pytest.approx(0.6)


def test_small_regions_are_left_out_when_asked_for():
    probability = np.ones((40, 60), np.float32)
    assert [c.area for c in find_components(two_regions(), probability, minimum_area=19)] == [121]
    assert find_components(np.zeros((5, 5), bool), probability[:5, :5]) == ()


def test_the_components_of_a_result_are_in_pixels_of_the_frame_whatever_its_region():
    mask = two_regions()
    whole = Result(mask, mask.astype(np.float32), 0.5, {})
    frame = np.zeros((100, 200), bool)
    region = Roi(70, 30, 60, 40)
    frame[region.slices] = mask
    part = Result(frame, mask.astype(np.float32), 0.5, {}, region=region)
    assert whole.boxes == ((40, 20, 13, 11), (3, 2, 6, 3)) and whole.areas == (121, 18)
    assert part.boxes == ((110, 50, 13, 11), (73, 32, 6, 3)) and part.areas == whole.areas
    assert part.components[0].centroid == pytest.approx(
        np.add(whole.components[0].centroid, (70, 30))
    )
