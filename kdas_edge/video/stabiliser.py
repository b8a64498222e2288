"""Steadier masks over time: an average, two thresholds, and persistence. NumPy and OpenCV only.

All three work on the probability map at the size of the network, before it is resized to the frame
and compared with the threshold, so that a stabilised mask has the same smooth contour as any other:

1. **average**: `a ← w·a + (1 − w)·p`. A scene cut or a large movement of the camera starts it anew.
2. **hysteresis**: a pixel is marked above the threshold, and stays marked while it is above `low`.
3. **persistence**: a marked region is shown once one was there in k of the last n frames. A cut
   starts the count anew, a movement does not.

What steadies also delays. `StabilityOptions.delays` says by how much; nothing here looks ahead, and
nothing is shown where the current frame's (averaged) probability is not above a threshold.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.errors import UserError
from kdas_edge.runtime.masks import mask_at_size
from kdas_edge.runtime.result import Result

# Share of a thumbnail's structure that must change between two frames for the past to be dropped.
# Other scenes are above it, a slow pan, blur, noise and changes of light below (tested on real
# images); a pan by 6 % of the frame between two frames is about half of the time.
MOTION_LIMIT = 0.3
# Persistence counts through movements, or every pan would hide what comes into view, and begins
# anew only where the structure says that it is another scene.
CUT_LIMIT = 0.45
THUMBNAIL = 32
# Components of two frames belong together if they overlap or lie within this share of the side.
MARGIN = 1 / 32
# An average over more than some seconds shows the past; a longer memory costs time in every frame.
MOST_SMOOTH = 0.99
LONGEST_MEMORY = 100
# frames; an average that rounding keeps from ever crossing a threshold of nearly 1 is told as that
LONGEST_STEP = 10_000


@dataclass(frozen=True)
class StabilityOptions:
    """Which of the three are used.

    Attributes:
        smooth: weight w of the past in the average, 0 (no average) to 0.99.
        persist: (k, n): a region is shown once it was there in k of the last n frames, n at most
            100; None: at once.
        hysteresis: the low threshold, above 0 and below the bundle's threshold; None: only one
            threshold.

    Raises:
        UserError: a value out of its range.
    """

    smooth: float = 0.0
    persist: tuple[int, int] | None = None
    hysteresis: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.smooth <= MOST_SMOOTH:
            raise UserError(f"smooth {self.smooth:g} is not in 0…{MOST_SMOOTH}; try 0.6")
        if self.persist is not None:
            k, n = self.persist
            if not 1 <= k <= n <= LONGEST_MEMORY:
                raise UserError(
                    f"persist {k}/{n}: k is at least 1 and at most n, n at most {LONGEST_MEMORY}; "
                    "try 3/5"
                )
        if self.hysteresis is not None and not 0 < self.hysteresis < 1:
            raise UserError(f"hysteresis {self.hysteresis:g} is not between 0 and 1; try 0.3")

    @property
    def active(self) -> bool:
        """True if anything is to be done."""
        return self != StabilityOptions()

    def check(self, threshold: float) -> None:
        """Refuse what does not go with the threshold of a bundle.

        Raises:
            UserError: the low threshold is not below it.
        """
        if self.hysteresis is not None and self.hysteresis >= threshold:
            raise UserError(
                f"hysteresis {self.hysteresis:g} must be below the bundle's threshold {threshold:g}"
            )

    def delays(self, threshold: float, fps: float) -> dict[str, dict[str, float]]:
        """What each option adds, for a probability that steps from 0 to 1 and back.

        A network that is less certain than 1 takes longer with `smooth`.

        Args:
            threshold: of the bundle, 0…1.
            fps: frames per second that reach the stabiliser.

        Returns:
            By option in use, `appear_ms` and `disappear_ms`.
        """
        frames: dict[str, tuple[int, int]] = {}
        if self.smooth:
            high = np.float32(threshold)
            low = high if self.hysteresis is None else np.float32(self.hysteresis)
            frames["smooth"] = (
                _frames_late(self.smooth, 1, lambda average: bool(average > high)),
                _frames_late(self.smooth, 0, lambda average: bool(average <= low)),
            )
        if self.hysteresis is not None:
            frames["hysteresis"] = (0, 0)
        if self.persist is not None:
            frames["persist"] = (self.persist[0] - 1, 0)
        return {
            name: {
                "appear_ms": round(1e3 * appear / fps, 1),
                "disappear_ms": round(1e3 * disappear / fps, 1),
            }
            for name, (appear, disappear) in frames.items()
        }


def parse_persist(text: str) -> tuple[int, int]:
    """Read `k/n`, for example `3/5`.

    Raises:
        UserError: another form.
    """
    k, slash, n = text.partition("/")
    if not (slash and k.isascii() and k.isdigit() and n.isascii() and n.isdigit()):
        raise UserError(f"persist {text!r} is not of the form k/n; for example 3/5")
    return int(k), int(n)


class Stabiliser:
    """Probability maps in, steadier probability maps out; one per video, in the order of frames.

    Attributes:
        options: what is done.
        resets: how often a cut or a large movement has dropped the average and what was held.

    Raises:
        UserError: the low threshold is not below the threshold.
    """

    def __init__(self, options: StabilityOptions, threshold: float) -> None:
        options.check(threshold)
        self.options = options
        self.resets = 0
        self._threshold = np.float32(threshold)
        self._thumbnail: NDArray[np.float32] | None = None
        self.forget()

    def update(
        self, probability: NDArray[np.float32], frame: NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        """Take the next frame.

        Args:
            probability: (S, S) float32, 0…1.
            frame: (H, W, 3) uint8, to notice cuts and movements.

        Returns:
            (S, S) float32; above the threshold exactly where the mask is to be shown. Without any
            option it is the given map.
        """
        options = self.options
        if not options.active:
            return probability
        self._watch(frame)
        if options.smooth:
            probability = self._average_with(probability)
        if options.hysteresis is not None:
            probability = self._hold(probability, np.float32(options.hysteresis))
        if options.persist is not None:
            probability = self._persist(probability, *options.persist)
        return probability

    def forget(self) -> None:
        """Begin anew with the next frame."""
        self._forget_pixels()
        memory = self.options.persist[1] - 1 if self.options.persist else 0
        self._past: deque[NDArray[np.bool_]] = deque(maxlen=memory)

    def _forget_pixels(self) -> None:
        self._average: NDArray[np.float32] | None = None
        self._held: NDArray[np.bool_] | None = None

    def _watch(self, frame: NDArray[np.uint8]) -> None:
        thumbnail = thumbnail_of(frame)
        moved = 0.0 if self._thumbnail is None else change(self._thumbnail, thumbnail)
        if moved > MOTION_LIMIT:
            self.resets += 1
            self._forget_pixels()
        if moved > CUT_LIMIT:
            self.forget()
        self._thumbnail = thumbnail

    def _average_with(self, probability: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._average is None or self._average.shape != probability.shape:
            self._average = probability
        else:
            weight = np.float32(self.options.smooth)
            self._average = weight * self._average + (1 - weight) * probability
        return self._average

    def _hold(self, probability: NDArray[np.float32], low: np.float32) -> NDArray[np.float32]:
        marked = probability > self._threshold
        if self._held is not None and self._held.shape == probability.shape:
            held = self._held & (probability > low) & ~marked
            # Lifted by a constant, with its border, the map crosses the threshold where it crossed
            # `low`: the contour stays smooth. Rounding must not move a pixel across the threshold.
            border = cv2.dilate(held.view(np.uint8), np.ones((3, 3), np.uint8)) > 0
            above = np.nextafter(self._threshold, np.float32(2))
            lifted = probability + (self._threshold - low)
            outside = np.where(
                border & (probability <= low), np.minimum(lifted, self._threshold), probability
            )
            probability = np.where(held, np.maximum(lifted, above), outside)
            marked |= held
        self._held = marked
        return probability

    def _persist(self, probability: NDArray[np.float32], k: int, n: int) -> NDArray[np.float32]:
        marked = probability > self._threshold
        if self._past and self._past[0].shape != marked.shape:
            self._past.clear()
        count, labels = cv2.connectedComponents(marked.view(np.uint8), connectivity=8)
        seen = np.ones(count, dtype=np.int64)
        for past in self._past:
            seen += np.bincount(labels[past], minlength=count) > 0
        early = seen < k
        early[0] = False  # the background
        if early.any():
            probability = np.where(early[labels], np.float32(0), probability)
        reach = 2 * max(1, round(MARGIN * len(marked))) + 1
        grown = cv2.dilate(marked.view(np.uint8), np.ones((reach, reach), np.uint8))
        self._past.append(np.asarray(grown, dtype=np.uint8) > 0)
        return probability


def steady(stabiliser: Stabiliser, result: Result, frame: NDArray[np.uint8]) -> Result:
    """The result of a frame (H, W, 3) uint8 with the steadier mask and map in it."""
    rest = () if result.region is None else result.region.slices
    part = frame[rest]
    probability = stabiliser.update(result.probability, part)
    if probability is result.probability:
        return result
    mask = np.zeros(frame.shape[:2], np.bool_)
    mask[rest] = mask_at_size(probability, result.threshold, *part.shape[:2])
    return replace(result, mask=mask, probability=probability)


def thumbnail_of(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(32, 32) float32: the green channel (mucosa has its contrast there), mean 0, spread 1."""
    height, width = frame.shape[:2]
    # every pixel of a large frame need not be read for this
    step = max(1, min(height, width) // (4 * THUMBNAIL))
    green = np.ascontiguousarray(frame[::step, ::step, 1])
    small = cv2.resize(green, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    values = np.asarray(small, dtype=np.float32)
    values = values - values.mean()
    # a black frame has no structure; noise must not be blown up to one
    return np.asarray(values / max(float(values.std()), 1.0), dtype=np.float32)


def change(before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    """How much of the structure of two thumbnails differs: 0 alike, about 1 unrelated.

    It is the mean absolute difference, over what it is for two unrelated pictures.
    """
    return float(np.abs(before - after).mean()) / 1.13


def _frames_late(weight: float, target: int, reached: Callable[[np.float32], bool]) -> int:
    """Frames after a step to `target` (0 or 1) in which the average has not `reached` it yet."""
    # in the very arithmetic of the average: a threshold of 0.3 and a weight of 0.7 differ by it
    kept, average = np.float32(weight), np.float32(1 - target)
    for late in range(LONGEST_STEP):
        average = np.float32(kept * average + (1 - kept) * np.float32(target))
        if reached(average):
            return late
    return LONGEST_STEP
