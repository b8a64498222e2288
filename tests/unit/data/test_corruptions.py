import subprocess
import sys

import cv2
import numpy as np
import pytest

from kdas_edge.data.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from kdas_edge.data.synthetic import scene
from kdas_edge.errors import UserError


@pytest.fixture(scope="module")
def frame():
    return scene(3, 160, polyp=True)[0]


def distance(a, b):
    return float(np.abs(a.astype(float) - b).mean())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_higher_strength_changes_more_and_the_frame_itself_stays(frame, name):
    before = frame.copy()
    changed = [corrupt(frame, name, strength, "a") for strength in (0, *STRENGTHS)]
    assert (frame == before).all()
    assert all(image.shape == frame.shape and image.dtype == np.uint8 for image in changed)
    away = [distance(image, frame) for image in changed]
    assert away[0] == 0
    assert 0.1 < away[1] < away[2] < away[3]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_person_still_sees_the_scene_at_the_highest_strength(frame, name):
    # structure that is left: correlation of the coarse brightness with that of the clean frame
    def coarse(image):
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        return cv2.resize(grey, (12, 12), interpolation=cv2.INTER_AREA).astype(float).ravel()

    corrupted = corrupt(frame, name, 3, "a")
    assert np.corrcoef(coarse(frame), coarse(corrupted))[0, 1] > 0.7


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_same_name_and_seed_give_the_same_pixels(frame, name):
    first = corrupt(frame, name, 2, "case 1", seed=5)
    assert (corrupt(frame, name, 2, "case 1", seed=5) == first).all()


def test_another_image_or_seed_gives_another_corruption(frame):
    for name in ("motion_blur", "specular", "bubbles", "smoke", "noise", "colour_cast"):
        first = corrupt(frame, name, 2, "case 1", seed=5)
        assert (corrupt(frame, name, 2, "case 2", seed=5) != first).any(), name
        assert (corrupt(frame, name, 2, "case 1", seed=6) != first).any(), name


def test_another_process_draws_the_same_pixels(frame, tmp_path):
    np.save(tmp_path / "frame.npy", frame)
    script = (
        "import sys, numpy as np\n"
        "from kdas_edge.data.corruptions import corrupt\n"
        "frame = np.load(sys.argv[1] + '/frame.npy')\n"
        "np.save(sys.argv[1] + '/smoke.npy', corrupt(frame, 'smoke', 2, 'x'))\n"
        "assert not {'torch', 'kdas_edge.models'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    assert (np.load(tmp_path / "smoke.npy") == corrupt(frame, "smoke", 2, "x")).all()


def test_a_strength_looks_alike_at_every_resolution(frame):
    large = cv2.resize(frame, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    for name in ("defocus", "motion_blur", "smoke", "overexposure"):
        small_first = corrupt(frame, name, 3, "x")
        small_last = cv2.resize(
            corrupt(large, name, 3, "x"), frame.shape[1::-1], interpolation=cv2.INTER_AREA
        )
        assert distance(small_first, small_last) < 0.5 * distance(small_first, frame), name


def test_blur_is_as_wide_as_it_says():
    point = np.zeros((201, 201, 3), np.uint8)
    point[100, 100] = 255
    rows, columns = np.nonzero(corrupt(point, "motion_blur", 3)[..., 0])
    length = np.hypot(np.ptp(rows), np.ptp(columns))
    assert length == pytest.approx(0.07 * 201, abs=2.5)
    disc = np.nonzero(corrupt(point, "defocus", 3)[..., 0])[0]
    assert np.ptp(disc) == pytest.approx(2 * 0.02 * 201, abs=2.5)


def test_exposure_goes_the_right_way_and_smoke_takes_contrast(frame):
    assert corrupt(frame, "overexposure", 2).mean() > frame.mean() * 1.1
    assert corrupt(frame, "underexposure", 2).mean() < frame.mean() * 0.7
    assert corrupt(frame, "smoke", 3).std() < frame.std() * 0.8


def test_the_dark_surround_gets_no_highlights_smoke_or_bubbles(frame):
    framed = np.zeros((240, 240, 3), np.uint8)
    framed[40:200, 40:200] = frame
    outside = np.ones((240, 240), bool)
    outside[30:210, 30:210] = False
    for name in ("specular", "bubbles", "smoke"):
        assert corrupt(framed, name, 3, "x")[outside].max() <= 12, name


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (33, 17)])
@pytest.mark.parametrize("value", [0, 255])
def test_any_frame_is_corrupted_without_failing(shape, value):
    plain = np.full((*shape, 3), value, np.uint8)
    for name in CORRUPTIONS:
        for strength in STRENGTHS:
            assert corrupt(plain, name, strength).shape == plain.shape


def test_wrong_arguments_are_told_with_the_choice(frame):
    with pytest.raises(UserError, match=r"no corruption 'fog'.*smoke"):
        corrupt(frame, "fog", 1)
    with pytest.raises(UserError, match="choose 0, 1, 2 or 3"):
        corrupt(frame, "smoke", 4)
    with pytest.raises(UserError, match="uint8 RGB"):
        corrupt(frame.astype(np.float32), "smoke", 1)
