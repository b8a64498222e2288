"""PIL's antialiased bilinear resize of large frames, three times as fast as PIL.

The filter is the one that trained: horizontally first, rounded to whole grey levels after each
pass. What is saved is the conversion to four channels and most of the arithmetic, which PIL does
value by value. Here each output line is a weighted mean of input lines, computed by OpenCV's
vector loops as a running mean (`accumulateWeighted`) over whole lines; for the horizontal pass the
frame is transposed. All lines with the same weights are taken in one call: 1920 pixels become 352
with 11 different sets of weights.

The result is PIL's but for exact ties: where the filtered value lies half-way between two grey
levels, it is rounded up here, and in PIL by the rounding of its fixed-point weights. A test
measures it: less than 1.5 % of the values, by one level (OpenVINO's and the `camera` graph's
resize: 0.5 %).
"""

import functools
import itertools
import math
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

# float32 sums of a dozen values up to 255 err by some 1e-5: ties must not fall below the half
_TIE = 6e-5
# below this ratio of pixels, frame to network, PIL is quick enough and exact
_WORTH_IT = 5.0
# (input lines, output lines, share of the input in the running mean)
_Step = tuple[NDArray[np.uint8], NDArray[np.float32], float]

_helper_lock = threading.Lock()


@dataclass(frozen=True)
class _Lines:
    """Output lines `first, first + step, …` that have the same weights, `count` of them.

    The k-th is the running mean of the input lines `source + k * stride + t` with `shares[t]`.
    """

    first: int
    step: int
    count: int
    source: int
    stride: int
    shares: tuple[float, ...]


def worth_it(height: int, width: int, size: int) -> bool:
    """Whether a frame of this size is resized faster here than by PIL."""
    return min(height, width) >= size and height * width >= _WORTH_IT * size * size


class FrameResampler:
    """Resizes frames of one size to the network's square; for one thread at a time.

    Args:
        height: H of the frames, at least `size`.
        width: W of the frames, at least `size`.
        size: S, side of the result.
        bands: parts of the frame that may be worked on at the same time.
    """

    def __init__(self, height: int, width: int, size: int, bands: int = 2) -> None:
        edges = [height * band // bands for band in range(bands + 1)]
        narrow = np.zeros((height, 3, size), np.uint8)
        self._bands = [
            _Band(narrow, top, bottom, width) for top, bottom in itertools.pairwise(edges)
        ]
        self._mean = np.zeros((size, 3 * size), np.float32)
        self._small = np.zeros((size, 3, size), np.uint8)
        self._steps = _steps(narrow.reshape(height, 3 * size), self._mean, height, size)

    def planes(self, frame: NDArray[np.uint8], both_cores: bool = False) -> list[NDArray[np.uint8]]:
        """Resize (H, W, 3) uint8.

        Args:
            frame: of the size that this object was made for.
            both_cores: let a helper thread work on half of the frame, if it is free.

        Returns:
            The three channels, (S, S) uint8 each, in the frame's order; overwritten by the next
            call.
        """
        helped = both_cores and len(self._bands) > 1 and _helper_lock.acquire(blocking=False)
        if helped:
            try:
                # numpy and OpenCV release the interpreter while they work
                others: list[Future[None]] = [
                    _helper().submit(band.narrow, frame) for band in self._bands[1:]
                ]
                self._bands[0].narrow(frame)
                for other in others:
                    other.result()
            finally:
                _helper_lock.release()
        else:
            for band in self._bands:
                band.narrow(frame)
        _run(self._steps)
        cv2.convertScaleAbs(self._mean, self._small.reshape(self._mean.shape), 1.0, _TIE)
        return [self._small[:, channel] for channel in range(3)]


class _Band:
    """Rows `top` to `bottom` of the frame: the horizontal pass."""

    def __init__(self, narrow: NDArray[np.uint8], top: int, bottom: int, width: int) -> None:
        rows, size = bottom - top, narrow.shape[2]
        self._top, self._bottom = top, bottom
        self._planes = list(np.zeros((3, rows, width), np.uint8))
        columns = np.zeros((width, 3, rows), np.uint8)  # a line is a column of the frame
        self._columns = [columns[:, channel] for channel in range(3)]
        self._mean = np.zeros((size, 3 * rows), np.float32)
        rounded = np.zeros((size, 3, rows), np.uint8)
        self._rounded = rounded.reshape(self._mean.shape)
        self._back = [(rounded[:, channel], narrow[top:bottom, channel]) for channel in range(3)]
        self._steps = _steps(columns.reshape(width, 3 * rows), self._mean, width, size)

    def narrow(self, frame: NDArray[np.uint8]) -> None:
        """Filter these rows of a frame from W to S columns."""
        cv2.split(frame[self._top : self._bottom], self._planes)
        for plane, columns in zip(self._planes, self._columns, strict=True):
            cv2.transpose(plane, columns)
        _run(self._steps)
        cv2.convertScaleAbs(self._mean, self._rounded, 1.0, _TIE)
        for rounded, narrow in self._back:
            cv2.transpose(rounded, narrow)


def _run(steps: list[_Step]) -> None:
    # the first share of each line is 1, so that what the mean held before does not matter
    accumulate = cv2.accumulateWeighted
    for source, mean, share in steps:
        accumulate(source, mean, share)


def _steps(
    source: NDArray[np.uint8], mean: NDArray[np.float32], length: int, size: int
) -> list[_Step]:
    """Views of the two buffers, ready for `_run`: no index is computed while a frame waits."""
    steps: list[_Step] = []
    for lines in _plan(length, size):
        target = mean[lines.first :: lines.step][: lines.count]
        for tap, share in enumerate(lines.shares):
            steps.append((source[lines.source + tap :: lines.stride][: lines.count], target, share))
    return steps


@functools.lru_cache(maxsize=32)
def _plan(length: int, size: int) -> tuple[_Lines, ...]:
    """Which input lines make which output lines, output lines of equal weights together.

    Pillow, `src/libImaging/Resample.c`: the triangle is as wide as one output line when shrinking,
    its centre at `(i + 0.5) * length / size`, and cut off where the frame ends.
    """
    common = math.gcd(length, size)
    stride, step = length // common, size // common
    scale = length / size
    plan: list[_Lines] = []
    inner: dict[int, int] = {}  # place in the period -> index in the plan
    for line in range(size):
        centre = (line + 0.5) * scale
        begin, end = int(centre - scale + 0.5), int(centre + scale + 0.5)
        cut = centre - scale + 0.5 < 0 or end > length
        place = line % step
        if not cut and place in inner:
            known = plan[inner[place]]
            plan[inner[place]] = _Lines(
                known.first, step, known.count + 1, known.source, stride, known.shares
            )
            continue
        begin, end = max(begin, 0), min(end, length)
        weights = np.maximum(1 - np.abs(np.arange(begin, end) - centre + 0.5) / scale, 0)
        used = np.flatnonzero(weights)
        weights = weights[used[0] : used[-1] + 1]
        shares = tuple(float(share) for share in weights / np.cumsum(weights))
        if not cut:
            inner[place] = len(plan)
        plan.append(_Lines(line, step, 1, begin + int(used[0]), stride, shares))
    return tuple(plan)


@functools.cache
def _helper() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="kdas-edge-resize")
