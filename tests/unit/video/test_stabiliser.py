import itertools

import cv2
import numpy as np
import pytest

from kdas_edge.data.corruptions import corrupt
from kdas_edge.data.layout import list_images
from kdas_edge.data.synthetic import scene
from kdas_edge.errors import UserError
from kdas_edge.image_files import read_image
from kdas_edge.video.stabiliser import (
    CUT_LIMIT,
    MOTION_LIMIT,
    Stabiliser,
    StabilityOptions,
    change,
    parse_persist,
    thumbnail_of,
)

SIDE = 48
# a picture that stands still: nothing in it makes the stabiliser forget
STILL = np.ascontiguousarray(scene(3, 96)[0][..., ::-1])


def maps(count: int, seed: int = 0) -> np.ndarray:
    """(count, SIDE, SIDE) float32 smooth random probabilities."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 1, (count, 6, 6)).astype(np.float32)
    return np.stack([cv2.resize(one, (SIDE, SIDE)) for one in coarse])


def square(top: int, left: int, side: int = 8, inside: float = 0.9) -> np.ndarray:
    probability = np.full((SIDE, SIDE), 0.05, np.float32)
    probability[top : top + side, left : left + side] = inside
    return probability


NOTHING = np.full((SIDE, SIDE), 0.05, np.float32)


def run(options: StabilityOptions, series, threshold: float = 0.5, frame=STILL) -> list[np.ndarray]:
    stabiliser = Stabiliser(options, threshold)
    return [stabiliser.update(one, frame) for one in series]


def test_without_options_the_very_map_is_given_back():
    probability = maps(1)[0]
    assert run(StabilityOptions(), [probability])[0] is probability


@pytest.mark.parametrize("weight", [0.3, 0.6, 0.9, 0.99])
def test_the_average_is_the_weighted_sum_of_all_frames_in_float64(weight):
    series = maps(12)
    found = run(StabilityOptions(smooth=weight), series)
    for last in range(len(series)):
        # the closed form: every frame's share of the average, summed in float64
        shares = np.array([(1 - weight) * weight ** (last - i) for i in range(last + 1)])
        shares[0] = weight**last
        assert shares.sum() == pytest.approx(1)
        expected = np.tensordot(shares, series[: last + 1].astype(np.float64), axes=1)
        np.testing.assert_allclose(found[last], expected, atol=1e-6)


def test_hysteresis_keeps_what_is_marked_until_it_falls_below_the_low_threshold():
    series, low, threshold = maps(15, seed=2), 0.35, 0.6
    found = run(StabilityOptions(hysteresis=low), series, threshold)
    marked = np.zeros((SIDE, SIDE), dtype=bool)
    held = 0
    for probability, steadied in zip(series, found, strict=True):
        value = probability.astype(np.float64)
        before = marked
        marked = (value > np.float32(threshold)) | (before & (value > np.float32(low)))
        held += int((marked & (value <= np.float32(threshold))).sum())
        np.testing.assert_array_equal(steadied > np.float32(threshold), marked)
    assert held > 100


def test_a_held_region_keeps_a_smooth_contour():
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    hill = np.clip(1 - np.hypot(x, y) / 20, 0, 1).astype(np.float32)
    small = np.float32(0.45) * hill
    steadied = run(StabilityOptions(hysteresis=0.25), [hill, small])[1]

    # enlarged, its border lies where the map itself crosses the low threshold
    def large(one):
        return cv2.resize(one, (8 * SIDE, 8 * SIDE), interpolation=cv2.INTER_LINEAR)

    wanted, found = large(small) > 0.25, large(steadied) > 0.5
    assert not (small > 0.5).any() and wanted.sum() > 5000
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("k", "n"), [(1, 1), (2, 2), (2, 3), (3, 5), (5, 5)])
def test_a_region_is_shown_once_it_was_there_in_k_of_n_frames(k, n):
    rng = np.random.default_rng(k * 10 + n)
    there = rng.random(60) < 0.75
    series = [square(20, 20) if one else NOTHING for one in there]
    found = run(StabilityOptions(persist=(k, n)), series)
    shown = [bool((one > 0.5).any()) for one in found]
    expected = [
        bool(there[i]) and int(there[max(0, i - n + 1) : i + 1].sum()) >= k
        for i in range(len(there))
    ]
    assert shown == expected and any(expected)


def test_persistence_counts_each_region_for_itself():
    both = np.maximum(square(4, 4), square(30, 30))
    found = run(StabilityOptions(persist=(3, 3)), [square(4, 4), square(4, 4), both, both, both])
    shown = [((one[4:12, 4:12] > 0.5).all(), (one[30:38, 30:38] > 0.5).any()) for one in found]
    assert shown == [(False,) * 2, (False,) * 2, (True, False), (True, False), (True, True)]


def test_a_region_that_wanders_slowly_is_one_region():
    series = [square(10, 4 + step) for step in range(6)]
    found = run(StabilityOptions(persist=(4, 4)), series)
    assert [bool((one > 0.5).any()) for one in found] == [False] * 3 + [True] * 3


def frames_until(series, wanted: bool, options: StabilityOptions, threshold: float) -> int:
    stabiliser = Stabiliser(options, threshold)
    count = 0
    for index, probability in enumerate(series):
        shown = bool((stabiliser.update(probability, STILL) > np.float32(threshold)).any())
        if index >= 40:
            if shown == wanted:
                return count
            count += 1
    raise AssertionError("never")


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
@pytest.mark.parametrize(
    "options",
    [
        StabilityOptions(smooth=0.6),
        StabilityOptions(smooth=0.85),
        StabilityOptions(hysteresis=0.2),
        StabilityOptions(persist=(3, 5)),
        StabilityOptions(smooth=0.7, persist=(4, 6)),
        StabilityOptions(smooth=0.6, hysteresis=0.2, persist=(2, 3)),
    ],
)
def test_the_delays_that_are_told_are_those_of_a_step(options, threshold):
    none, full = np.zeros((SIDE, SIDE), np.float32), np.ones((SIDE, SIDE), np.float32)
    told = options.delays(threshold, fps=25)
    appear = frames_until([none] * 40 + [full] * 60, True, options, threshold)
    disappear = frames_until([full] * 40 + [none] * 60, False, options, threshold)
    assert sum(one["appear_ms"] for one in told.values()) == pytest.approx(40 * appear)
    assert sum(one["disappear_ms"] for one in told.values()) == pytest.approx(40 * disappear)


def test_delays_are_of_the_options_in_use_and_scale_with_the_frame_rate():
    options = StabilityOptions(smooth=0.8, persist=(3, 5))
    slow, fast = options.delays(0.5, 25), options.delays(0.5, 50)
    assert set(slow) == {"smooth", "persist"}
    assert slow["persist"] == {"appear_ms": 80.0, "disappear_ms": 0.0}
    assert fast["smooth"]["appear_ms"] == slow["smooth"]["appear_ms"] / 2 > 0
    assert StabilityOptions().delays(0.5, 25) == {}


@pytest.mark.parametrize(
    "options",
    [
        StabilityOptions(smooth=0.9),
        StabilityOptions(hysteresis=0.1),
    ],
)
def test_a_cut_drops_the_past(options):
    other = np.ascontiguousarray(scene(11, 96)[0][..., ::-1])
    after = np.full((SIDE, SIDE), 0.2, np.float32)
    stabiliser = Stabiliser(options, 0.5)
    for _ in range(5):
        stabiliser.update(square(4, 4), STILL)
    kept = stabiliser.update(after, STILL)
    assert (kept > 0.5).any() and stabiliser.resets == 0
    dropped = stabiliser.update(after, other)
    assert stabiliser.resets == 1
    np.testing.assert_array_equal(dropped, after)


def test_a_cut_makes_persistence_count_anew():
    other = np.ascontiguousarray(scene(11, 96)[0][..., ::-1])
    stabiliser = Stabiliser(StabilityOptions(persist=(2, 3)), 0.5)
    frames = [STILL, STILL, other, other]
    shown = [bool((stabiliser.update(square(4, 4), frame) > 0.5).any()) for frame in frames]
    assert shown == [False, True, False, True]


def test_a_large_movement_drops_the_average_but_persistence_goes_on_counting():
    wide = scene(3, 128)[0][..., ::-1]
    views = [np.ascontiguousarray(wide[:, shift : shift + 96]) for shift in range(32)]
    changed = [change(thumbnail_of(views[0]), thumbnail_of(view)) for view in views]
    moved = next(i for i, one in enumerate(changed) if MOTION_LIMIT < one < CUT_LIMIT)
    stabiliser = Stabiliser(StabilityOptions(smooth=0.9, persist=(2, 2)), 0.5)
    assert not (stabiliser.update(square(4, 4, inside=0.7), views[0]) > 0.5).any()
    now = stabiliser.update(square(4, 4, inside=0.9), views[moved])
    assert stabiliser.resets == 1 and now.max() == np.float32(0.9)


def changes(images, alter) -> list[float]:
    return [change(thumbnail_of(a), thumbnail_of(b)) for a, b in map(alter, images)]


def pan(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two views of an image, shifted by a hundredth of its width."""
    step = max(1, image.shape[1] // 100)
    return image[:, :-step], image[:, step:]


def spoil(kind: str, strength: int):
    return lambda image: (image, corrupt(image, kind, strength))


def check_motion_limit(images: list[np.ndarray]) -> None:
    small = [thumbnail_of(image) for image in images]
    cuts = [change(a, b) for a, b in itertools.pairwise(small)]
    assert min(cuts) > MOTION_LIMIT
    alterations = [pan, spoil("noise", 2), spoil("motion_blur", 3), spoil("underexposure", 2)]
    for alter in alterations:
        assert max(changes(images, alter)) < MOTION_LIMIT


def test_other_scenes_are_a_cut_and_slow_pans_noise_blur_and_light_are_not():
    check_motion_limit([scene(seed, 128)[0] for seed in range(20)])


@pytest.mark.data
def test_so_it_is_on_real_images(real_data):
    files = list_images(real_data / "TestDataset" / "Kvasir" / "images")[:16]
    check_motion_limit([cv2.resize(read_image(path), (320, 256)) for path in files])


def test_a_black_frame_and_a_noisy_black_frame_are_alike():
    rng = np.random.default_rng(0)
    dark = [rng.integers(0, 3, (90, 120, 3)).astype(np.uint8) for _ in range(2)]
    assert change(thumbnail_of(dark[0]), thumbnail_of(dark[1])) < MOTION_LIMIT


def test_a_map_of_another_size_begins_anew():
    options = StabilityOptions(smooth=0.9, hysteresis=0.2, persist=(1, 3))
    stabiliser = Stabiliser(options, 0.5)
    stabiliser.update(np.ones((SIDE, SIDE), np.float32), STILL)
    small = np.full((16, 16), 0.3, np.float32)
    np.testing.assert_array_equal(stabiliser.update(small, STILL), small)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"smooth": 1.0}, r"smooth 1 is not in 0…0\.99"),
        ({"smooth": -0.1}, "smooth -0.1"),
        ({"smooth": float("nan")}, "smooth nan"),
        ({"persist": (0, 3)}, "persist 0/3"),
        ({"persist": (4, 3)}, "persist 4/3"),
        ({"persist": (3, 101)}, "n at most 100"),
        ({"hysteresis": 0.0}, "hysteresis 0 "),
        ({"hysteresis": 1.0}, "hysteresis 1 "),
    ],
)
def test_values_out_of_range_are_refused(values, word):
    with pytest.raises(UserError, match=word):
        StabilityOptions(**values)


def test_a_low_threshold_above_the_threshold_is_refused():
    with pytest.raises(UserError, match=r"below the bundle's threshold 0\.5"):
        Stabiliser(StabilityOptions(hysteresis=0.5), 0.5)


def test_k_of_n_is_read():
    assert parse_persist("3/5") == (3, 5)
    for text in ("3", "3/", "/5", "a/5", "3/5/7", "-1/5", "3 of 5", "٣/٥"):
        with pytest.raises(UserError, match="k/n"):
            parse_persist(text)
