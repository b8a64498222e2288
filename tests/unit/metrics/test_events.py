"""Events on video, against loops that follow the definitions word by word."""

import math

import numpy as np
import pytest

from kdas_edge.metrics.events import VideoScores, count_events, froc, runs

NOTHING = -math.inf


def draw_video(seed: int, frames: int = 90, polyps: int = 2, fps: float = 10.0) -> VideoScores:
    rng = np.random.default_rng(seed)
    visible = np.zeros((frames, polyps), bool)
    hits = np.full((frames, polyps), NOTHING)
    for polyp in range(polyps):
        start = int(rng.integers(0, frames - 30))
        visible[start : start + 25, polyp] = True
        marked = visible[:, polyp] & (rng.random(frames) < 0.7)
        hits[marked, polyp] = rng.normal(size=int(marked.sum()))
    false_marks = np.where(rng.random(frames) < 0.5, rng.normal(size=frames), NOTHING)
    return VideoScores(fps, visible, hits, false_marks)


def slow_counts(video: VideoScores, threshold: float, tau: int, within: float) -> tuple[int, ...]:
    """(found, found in time, false events), frame by frame."""
    found = in_time = false_events = 0
    for polyp in range(video.visible.shape[1]):
        first = next(t for t in range(len(video.visible)) if video.visible[t, polyp])
        streak = 0
        for t in range(len(video.visible)):
            streak = streak + 1 if video.hits[t, polyp] >= threshold else 0
            if streak == tau:
                found += 1
                in_time += (t - first) / video.fps <= within
                break
    streak = 0
    for score in video.false_marks:
        streak = streak + 1 if score >= threshold else 0
        false_events += streak == tau
    return found, in_time, false_events


@pytest.mark.parametrize("tau", [1, 3, 5])
@pytest.mark.parametrize("threshold", [-1.0, 0.0, 0.7])
def test_events_are_those_of_a_frame_by_frame_count(tau: int, threshold: float) -> None:
    for seed in range(20):
        video = draw_video(seed)
        counts = count_events([video], threshold, tau, within=1.0)
        expected = slow_counts(video, threshold, tau, within=1.0)
        assert (counts.found, counts.found_in_time, counts.false_events) == expected
        assert counts.polyps == 2
        assert counts.minutes == pytest.approx(90 / 10 / 60)


def test_counts_of_several_videos_are_sums() -> None:
    videos = [draw_video(seed) for seed in range(5)]
    together = count_events(videos, 0.0)
    single = [count_events([video], 0.0) for video in videos]
    assert together.found_in_time == sum(one.found_in_time for one in single)
    assert together.false_events == sum(one.false_events for one in single)
    assert together.false_per_minute == pytest.approx(together.false_events / together.minutes)


def test_a_polyp_found_too_late_counts_as_found_but_not_in_time() -> None:
    visible = np.ones((60, 1), bool)
    hits = np.full((60, 1), NOTHING)
    hits[40:, 0] = 1.0
    video = VideoScores(10.0, visible, hits, np.full(60, NOTHING))
    counts = count_events([video], 0.5, tau=3, within=3.0)
    assert (counts.found, counts.found_in_time) == (1, 0)
    assert counts.delays == (4.2,)
    assert count_events([video], 0.5, tau=3, within=4.2).recall == 1.0


def test_runs_are_maximal_and_long_enough() -> None:
    positive = np.array([1, 1, 0, 1, 1, 1, 0, 1], bool)
    assert runs(positive, 1) == [(0, 1), (3, 5), (7, 7)]
    assert runs(positive, 3) == [(3, 5)]
    assert runs(np.zeros(4, bool), 1) == []


def test_froc_goes_from_silence_to_every_polyp_that_is_marked() -> None:
    curve = froc([draw_video(seed) for seed in range(4)], tau=1, within=100.0)
    thresholds = [threshold for threshold, _ in curve]
    assert thresholds == sorted(thresholds, reverse=True)
    recalls = [counts.recall for _, counts in curve]
    assert recalls == sorted(recalls)
    assert recalls[-1] == 1.0


@pytest.mark.parametrize(
    ("visible", "hits", "fps"),
    [
        (np.ones((4, 1), bool), np.zeros((3, 1)), 25.0),
        (np.ones((4, 1), bool), np.zeros((4, 1)), 0.0),
        (np.zeros((4, 1), bool), np.zeros((4, 1)), 25.0),
    ],
)
def test_arrays_that_are_no_video_are_refused(
    visible: np.ndarray, hits: np.ndarray, fps: float
) -> None:
    with pytest.raises(ValueError):
        VideoScores(fps, visible, hits, np.zeros(4))
