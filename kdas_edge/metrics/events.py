"""Events on video: recall per polyp within seconds, false alarms a minute, FROC.

An event is a run of at least `tau` consecutive positive frames, so that a flicker of one frame is
neither a find nor an alarm. A polyp counts as found by the first event on it; a run of frames whose
marks hit no polyp is a false-positive event. These are the definitions of the evaluation code that
comes with the REAL-Colon data set (Biffi et al., Scientific Data 2024, and Cherubini et al. 2024).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class VideoScores:
    """What a detector gave on one video, beside what is there.

    Attributes:
        fps: frames a second.
        visible: (T, K) bool, which of K polyps is in view in each of T frames.
        hits: (T, K) float, the largest score of a mark on that polyp; -inf where nothing marks it.
        false_marks: (T,) float, the largest score of a mark on no polyp; -inf where there is none.
    """

    fps: float
    visible: NDArray[np.bool_]
    hits: NDArray[np.float64]
    false_marks: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong to one video."""
        frames, polyps = self.visible.shape
        if self.hits.shape != (frames, polyps) or self.false_marks.shape != (frames,):
            raise ValueError(
                f"{frames} frames and {polyps} polyps, but hits {self.hits.shape} and "
                f"false marks {self.false_marks.shape}"
            )
        if not self.fps > 0:
            raise ValueError(f"{self.fps} frames a second")
        if not self.visible.any(axis=0).all():
            raise ValueError("a polyp that is in view in no frame")

    @property
    def minutes(self) -> float:
        """Length of the video."""
        return len(self.false_marks) / self.fps / 60


@dataclass(frozen=True)
class EventCounts:
    """Events of one or several videos at one threshold.

    Attributes:
        polyps: polyps that come into view.
        found: of these, how many an event marks at some time.
        found_in_time: of these, how many within the allowed seconds of their first appearance.
        delays: seconds from first appearance to the frame that completes the event, found ones.
        false_events: runs of at least `tau` frames whose marks hit no polyp.
        minutes: of video.
    """

    polyps: int
    found: int
    found_in_time: int
    delays: tuple[float, ...]
    false_events: int
    minutes: float

    @property
    def recall(self) -> float:
        """Share of the polyps found in time; NaN without a polyp."""
        return self.found_in_time / self.polyps if self.polyps else float("nan")

    @property
    def false_per_minute(self) -> float:
        """False-positive events a minute."""
        return self.false_events / self.minutes


def runs(positive: NDArray[np.bool_], tau: int) -> list[tuple[int, int]]:
    """First and last frame (inclusive) of each maximal run of at least `tau` positive frames.

    Args:
        positive: (T,) bool.
        tau: frames, at least 1.
    """
    edges = np.flatnonzero(np.diff(np.concatenate(([0], positive.astype(np.int8), [0]))))
    return [
        (int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= tau
    ]


def count_events(
    videos: Sequence[VideoScores], threshold: float, tau: int = 3, within: float = 3.0
) -> EventCounts:
    """Count events at one threshold.

    Args:
        videos: at least one.
        threshold: a mark is positive where its score is at least this.
        tau: consecutive frames that make an event.
        within: seconds from the first appearance in which a polyp must be found. The event must be
            complete by then: a detector cannot know earlier that it is one.
    """
    delays: list[float] = []
    polyps = false_events = 0
    for video in videos:
        false_events += len(runs(video.false_marks >= threshold, tau))
        for polyp in range(video.visible.shape[1]):
            polyps += 1
            first = int(np.argmax(video.visible[:, polyp]))
            events = runs(video.hits[:, polyp] >= threshold, tau)
            if events:
                delays.append((events[0][0] + tau - 1 - first) / video.fps)
    in_time = sum(delay <= within for delay in delays)
    minutes = sum(video.minutes for video in videos)
    return EventCounts(polyps, len(delays), in_time, tuple(delays), false_events, minutes)


def froc(
    videos: Sequence[VideoScores],
    tau: int = 3,
    within: float = 3.0,
    thresholds: NDArray[np.float64] | None = None,
) -> list[tuple[float, EventCounts]]:
    """Free-response ROC: events at falling thresholds, from silence to everything.

    False events need not grow as the threshold falls: two runs can join into one.

    Args:
        videos: at least one.
        tau: see `count_events`.
        within: see `count_events`.
        thresholds: falling; default: every score that occurs, thinned to at most 200 quantiles.

    Returns:
        (threshold, counts) for each threshold.
    """
    if thresholds is None:
        scores = np.concatenate([np.r_[v.hits.ravel(), v.false_marks] for v in videos])
        scores = np.unique(scores[np.isfinite(scores)])
        if len(scores) > 200:
            scores = np.unique(np.quantile(scores, np.linspace(0, 1, 200), method="nearest"))
        thresholds = scores[::-1]
    return [(float(t), count_events(videos, float(t), tau, within)) for t in thresholds]
