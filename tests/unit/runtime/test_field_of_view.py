import cv2
import numpy as np
import pytest
from tiny_bundle import scene

from kdas_edge.data.layout import find_pairs, read_pair
from kdas_edge.errors import UserError
from kdas_edge.runtime.field_of_view import SETTLED_AFTER, FieldOfView, find_picture
from kdas_edge.runtime.frames import Roi


def octagon(height=540, width=960, box=(250, 40, 460, 460), corner=110, seed=0):
    """A frame whose picture is an octagon; the border is noisy black with text in it."""
    rng = np.random.default_rng(seed)
    frame = rng.integers(0, 20, (height, width, 3), dtype=np.uint8)
    x, y, w, h = box
    c, right, bottom = corner, w - 1, h - 1
    across = [c, right - c, right, right, right - c, c, 0, 0]
    down = [0, 0, c, bottom - c, bottom, bottom, bottom - c, c]
    points = np.column_stack([across, down])
    inside = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(inside, points + np.array([x, y]), 1)
    picture = scene(height, width, seed)
    frame[inside > 0] = picture[inside > 0]
    cv2.putText(frame, "PATIENT 0000", (5, 100), cv2.FONT_HERSHEY_SIMPLEX, 1, (250,) * 3, 2)
    return frame


def assert_close(found, wanted):
    x, y, width, height = wanted
    # all of the picture, and a little more
    assert found.x <= x and found.y <= y
    assert found.x + found.width >= x + width and found.y + found.height >= y + height
    assert found.width < 1.08 * width and found.height < 1.08 * height


@pytest.mark.parametrize("scale", [1, 2])
def test_an_octagon_is_found_and_text_beside_it_does_not_count(scale):
    box = (250 * scale, 40 * scale, 460 * scale, 460 * scale)
    frame = octagon(540 * scale, 960 * scale, box, 110 * scale)
    assert_close(find_picture(frame), box)
    assert_close(find_picture(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)), box)


def test_a_frame_without_a_border_is_taken_whole():
    assert find_picture(scene(480, 640)) == Roi(0, 0, 640, 480)


@pytest.mark.parametrize("size", [(1, 1), (3, 1000), (480, 640)])
def test_a_dark_frame_tells_nothing(size):
    assert find_picture(np.full((*size, 3), 9, np.uint8)) is None


def test_a_small_bright_thing_is_no_picture():
    frame = np.zeros((480, 640, 3), np.uint8)
    frame[:60, :100] = 200
    assert find_picture(frame) is None


def test_the_region_grows_over_the_first_frames_and_then_stays():
    regions = FieldOfView("auto")
    dark_at_the_left = octagon()
    dark_at_the_left[:, :400] = 0
    assert regions.of(np.zeros((540, 960, 3), np.uint8)) is None
    first = regions.of(dark_at_the_left)
    assert first.x > 350
    frame = octagon()
    for _ in range(SETTLED_AFTER - 1):
        grown = regions.of(frame)
    assert_close(grown, (250, 40, 460, 460))
    # from now on nothing changes it
    assert regions.of(scene(540, 960)) == grown
    # another size is another source
    assert regions.of(scene(480, 640)) is None
    regions.forget()
    assert regions.of(scene(540, 960)) is None


def test_an_unknown_word_and_a_box_outside_are_refused():
    with pytest.raises(UserError, match='give "auto"'):
        FieldOfView("octagon")
    with pytest.raises(UserError, match="leaves the frame"):
        FieldOfView((0, 0, 100, 100)).of(scene(90, 120))
    assert FieldOfView((0, 0, 120, 90)).of(scene(90, 120)) is None


@pytest.mark.data
@pytest.mark.parametrize("name", ["CVC-ClinicDB", "CVC-300", "Kvasir"])
def test_no_polyp_of_the_real_sets_is_cut(real_data, name):
    for pair in find_pairs(real_data / "TestDataset" / name).pairs[:25]:
        image, mask = read_pair(pair)
        found = find_picture(image)
        assert found is not None and mask[found.slices].sum() == mask.sum(), pair.name
