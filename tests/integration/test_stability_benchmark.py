"""The clips are what they say, and the figures are right on masks drawn by hand."""

import json
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_bundle import make_tiny_bundle, scene

from kdas_edge.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "stability.py"


@pytest.fixture(scope="module")
def scripts():
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        import moving_clips
        import stability

        yield stability, moving_clips
    finally:
        sys.path.remove(str(SCRIPT.parent))


def masks(*rows: str) -> list[np.ndarray]:
    """One frame per word; a letter is a region of four pixels, a point is none."""
    return [
        np.kron(np.array([[letter != "." for letter in row]]), np.ones((2, 2))).astype(bool)
        for row in rows
    ]


def test_a_region_that_comes_or_goes_is_one_change(scripts):
    stability, _ = scripts
    assert stability.changes(masks(".....", "..x..", "..x..", ".....")) == 2
    # one stays, one comes, then both go
    assert stability.changes(masks("x....", "x..x.", ".....")) == 3
    # a jump is one that goes and one that comes; a slow step is neither
    assert stability.changes(masks("x....", "....x")) == 2
    assert stability.changes(masks("xx...", ".xx..", "..xx.")) == 0


def test_episodes_are_runs_of_marked_frames(scripts):
    stability, _ = scripts
    assert stability.episodes(masks("x", "x", ".", "x", ".", ".")) == 2
    assert stability.episodes(masks(".", ".")) == 0


def test_the_delay_counts_from_the_polyp_in_view_to_a_tenth_of_it(scripts):
    stability, _ = scripts
    truth = masks(".....", "xxxx.", "xxxx.", "xxxx.")
    assert stability.delay(masks(".....", ".....", "....x", "x...."), truth, 1) == 2
    assert stability.delay(masks(".....", "x....", ".....", "....."), truth, 1) == 0
    assert stability.delay(masks("x....", ".....", ".....", "....."), truth, 1) is None


def test_a_summary_compares_with_the_same_clips_without_any_measure(scripts):
    stability, _ = scripts
    plain = [
        {"frames": 50, "changes": 10, "delay": 2, "dice": 0.8},
        {"frames": 50, "changes": 0, "delay": None, "dice": 0.0},
        {"frames": 100, "episodes": 4, "marked": 20},
    ]
    steadied = [
        {"frames": 50, "changes": 2, "delay": 5, "dice": 0.7},
        {"frames": 50, "changes": 0, "delay": 1, "dice": 0.1},
        {"frames": 100, "episodes": 1, "marked": 10},
    ]
    found = stability.summarise(steadied, plain, fps=25)
    assert found["changes_per_second"] == 0.5
    assert found["false_episodes_per_minute"] == 15
    assert found["false_frames"] == 0.1
    assert (found["found"], found["delay_ms"], found["added_delay_ms"]) == (2, 120, 120)
    assert found["dice"] == pytest.approx(0.4)


def test_a_polyp_clip_begins_without_and_ends_with_the_polyp_and_a_free_one_never_sees_it(scripts):
    _, clips = scripts
    made = {}
    for polyp in (True, False):
        for picture in islice(clips.scenes(polyp, seed=0, side=96), 6):
            clip = clips.make_clip(picture, polyp, 40, 12.5, 96, seed=0)
            if clip is not None:
                made[polyp] = clip
                break
    assert made[False].visible_from is None
    assert not any(mask.any() for mask in made[False].truth)
    visible = made[True].visible_from
    # it rests for a second, and the pan ends after two
    assert 12 <= visible <= 25 and not made[True].truth[0].any()
    assert all(mask.mean() > clips.VISIBLE for mask in made[True].truth[26:])
    for clip in made.values():
        assert len(clip.frames) == 40 and clip.frames[0].shape == (96, 96, 3)
    again = clips.make_clip(picture, False, 40, 12.5, 96, seed=0)
    np.testing.assert_array_equal(again.frames, made[False].frames)
    other = clips.make_clip(picture, False, 40, 12.5, 96, seed=1)
    assert other is None or not np.array_equal(other.frames, made[False].frames)


def test_the_truth_moves_with_the_picture(scripts):
    _, clips = scripts
    # a picture that shows its mask: what is bright in a frame is what its truth says
    mask = np.zeros((300, 400), bool)
    mask[200:260, 290:360] = True
    image = np.where(mask[..., None], 200, 60).astype(np.uint8).repeat(3, axis=2)
    clip = clips.make_clip(clips.Picture("square", image, mask), True, 40, 12.5, 120, seed=2)
    wrong = [
        ((frame.mean(axis=2) > 130) != truth).mean()
        for frame, truth in zip(clip.frames, clip.truth, strict=True)
    ]
    # frames that are corrupted by a burst are not as clear
    assert np.median(wrong) < 0.02 and clip.truth[-1].any()


def write_corners(root: Path) -> Path:
    """Two pictures with a pale square in a corner, and their masks."""
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for index in range(2):
        image, mask = scene(200, 260, seed=index, polyp=False), np.zeros((200, 260), bool)
        mask[140:185, 190:240] = True
        image[mask] += np.array([40, 100, 90], np.uint8)
        Image.fromarray(image).save(root / f"images/{index}.png")
        Image.fromarray(mask).save(root / f"masks/{index}.png")
    return root


def run(scripts, monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["stability.py", *map(str, arguments)])
    scripts[0].main()


@pytest.mark.parametrize("real", [False, True])
def test_the_script_measures_every_setting_on_the_same_clips(
    scripts, tmp_path, monkeypatch, capsys, real
):
    bundle = make_tiny_bundle(tmp_path / "tiny", presets=("core",))
    result = tmp_path / "out.json"
    images = ["--images", write_corners(tmp_path / "corners")] if real else []
    run(
        scripts, monkeypatch, bundle, "--clips", 1, "--seconds", 2.5, "--fps", 10, "--side", 64,
        "--target", "openvino:CPU:threads=1", "--json", result, *images,
    )  # fmt: skip
    values = json.loads(result.read_text())
    assert values["clips"] == {"polyp": 1, "polyp_free": 1}
    assert values["source"] == ("corners" if real else "synthetic scenes")
    assert list(values["settings"]) == [
        "none", "smooth 0.6", "hysteresis 0.3", "persist 3/5", "all three",
    ]  # fmt: skip
    assert {len(rows) for rows in values["rows"].values()} == {2}
    none, persist = values["settings"]["none"], values["settings"]["persist 3/5"]
    assert none["added_delay_ms"] in (0, None)
    assert persist["told_ms"]["persist"]["appear_ms"] == 200
    assert "flicker" in capsys.readouterr().out and str(tmp_path) not in result.read_text()
    if real:
        # a network that tells the square by its colour
        assert none["dice"] > 0.5 and none["found"] == 1
        assert persist["false_episodes_per_minute"] <= none["false_episodes_per_minute"]


def test_options_that_make_no_clip_are_refused(scripts, tmp_path, monkeypatch):
    for options, word in (
        (["--seconds", 1], "the pan ends after 2"),
        (["--clips", 0], "at least 1 clip"),
        (["--fps", "nan"], "frame rate above 0"),
        (["--persist", "5"], "k/n"),
        ([], "does not exist"),
    ):
        with pytest.raises(UserError, match=word):
            run(scripts, monkeypatch, tmp_path / "nothing", *options)
