"""Frames one after the other: of a video file, of a folder of images, at the file's own pace.

A reader runs in a thread of its own. `frames` ends by itself or when `stop` is set; afterwards
`problem` says what was wrong with a source that could be read in part.
"""

import math
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.errors import UserError
from kdas_edge.image_files import read_image

# for delays and recordings of sources that do not tell, or tell nonsense
DEFAULT_FPS = 25.0
# counts in the headers of sound files are off by a few frames; a truncated file lacks more
MISSING_FRAMES = 5
MISSING_SHARE = 0.02
# a gap in the time stamps of a file is not waited out for longer, in seconds
LONGEST_WAIT = 2.0


@dataclass(frozen=True)
class Frame:
    """One frame of a video.

    Attributes:
        index: number from 0, counting frames that were dropped.
        seconds: time since the first frame, as the source tells it.
        image: (H, W, 3) uint8 BGR.
        captured: when it was in memory, in seconds of `time.perf_counter`.
        decode_ms: how long reading and decoding took, without waiting for it to come.
    """

    index: int
    seconds: float
    image: NDArray[np.uint8]
    captured: float
    decode_ms: float


class Reader(Protocol):
    """What the pipeline needs of a source.

    Attributes:
        name: what may be shown.
        live: frames come whether or not anybody takes them.
        fps: frames per second that the source promises.
        size: (height, width) of its frames, or None where nobody knows.
        expected: number of frames, or None where nobody knows.
        skipped: frames that were passed over because they were late already.
        problem: after the end, why frames are missing, or None.
    """

    name: str
    live: bool
    fps: float
    size: tuple[int, int] | None
    expected: int | None
    skipped: int
    problem: str | None

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """Give the frames in order until the end, or until `stop` is set."""
        ...

    def close(self) -> None:
        """Free the source."""
        ...


class FileReader:
    """A video file, as fast as it is taken, or at its own pace (`realtime`).

    At its own pace it behaves like a camera: a frame whose time has passed is not shown any more.
    """

    def __init__(self, path: Path, fps: float | None = None, realtime: bool = False) -> None:
        """Open the file.

        Raises:
            UserError: it cannot be opened as a video.
        """
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty (0 bytes); copy the file again")
        self._path = path
        self._capture = cv2.VideoCapture(str(path), video_backend())
        if not self._capture.isOpened():
            raise UserError(
                f"{path} cannot be opened as a video: it is damaged, cut off before its index, or "
                "of a codec that OpenCV lacks; convert it, for example to H.264 in mp4"
            )
        self.name = path.name
        self.live = realtime
        # no time of the file means anything beside a frame rate that a person gave
        self._told_fps = None if fps else plausible_fps(self._capture)
        self.fps = fps or self._told_fps or DEFAULT_FPS
        self.size = size_of(self._capture)
        self._given_fps = fps
        self.expected = count_of(self._capture)
        self.skipped = 0
        self.problem: str | None = None

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """See `Reader`.

        Raises:
            UserError: not a single frame can be decoded.
        """
        index, broken, good, last = -1, 0, 0, -1.0
        start: float | None = None
        while not stop.is_set():
            begun = time.perf_counter()
            if not self._capture.grab():
                break
            grabbed = time.perf_counter()
            index += 1
            seconds = self._time(index, last)
            last = seconds
            if self.live:
                start = grabbed - seconds if start is None else start
                early = start + seconds - grabbed
                if early < -1 / self.fps:
                    self.skipped += 1
                    continue
                if early > LONGEST_WAIT:
                    start -= early - LONGEST_WAIT
                    early = LONGEST_WAIT
                if early > 0 and stop.wait(early):
                    break
            taken = time.perf_counter()
            decoded, image = self._capture.retrieve()
            if not decoded or image is None:
                broken += 1
                continue
            good += 1
            now = time.perf_counter()
            yield Frame(index, seconds, as_bgr(image), now, 1e3 * (grabbed - begun + now - taken))
        if not stop.is_set():
            self._judge(index + 1, good + self.skipped, broken, last)

    def _judge(self, found: int, good: int, broken: int, last: float) -> None:
        """Say whether frames are missing; `last` is the time of the last one, in seconds."""
        if good == 0:
            raise UserError(
                f"{self._path} holds no frame that can be decoded; convert it, for example to "
                "H.264 in mp4"
            )
        expected = self.expected or 0
        tolerance = max(MISSING_FRAMES, MISSING_SHARE * expected)
        # containers without an index promise duration × rate, which is no count where the rate
        # varies: then the time must be missing, too
        reached = last * self._told_fps + 1 if self._told_fps else found
        if expected - max(found, reached) > tolerance:
            self.problem = (
                f"{self.name} is truncated: {found} of {expected} frames could be decoded; "
                "copy or export it again"
            )
        elif broken:
            self.problem = f"{self.name}: {broken} of {found} frames could not be decoded"

    def _time(self, index: int, last: float) -> float:
        seconds = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
        # some containers have no time stamps, or begin them anew
        if self._given_fps or not last < seconds < math.inf or (index and not seconds):
            return index / self.fps
        return float(seconds)

    def close(self) -> None:
        """Close the file."""
        self._capture.release()


class FolderReader:
    """Images of one size or several, taken as the frames of a video at a given rate."""

    def __init__(
        self, files: Sequence[Path], name: str, fps: float, realtime: bool = False
    ) -> None:
        self._files = files
        self.name = name
        self.live = realtime
        self.fps = fps
        self.size: tuple[int, int] | None = None
        self.expected: int | None = len(files)
        self.skipped = 0
        self.problem: str | None = None

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """See `Reader`."""
        start = time.perf_counter()
        bad = 0
        for index, path in enumerate(self._files):
            begun = time.perf_counter()
            seconds = index / self.fps
            early = start + seconds - begun if self.live else 0.0
            if early < -1 / self.fps:
                self.skipped += 1
                continue
            if stop.is_set() or (early > 0 and stop.wait(early)):
                return
            begun = time.perf_counter()
            try:
                image = np.ascontiguousarray(read_image(path)[..., ::-1])
            except UserError as error:
                bad += 1
                self.problem = (
                    f"{bad} of {len(self._files)} images could not be read, last: {error}"
                )
                continue
            now = time.perf_counter()
            yield Frame(index, seconds, image, now, 1e3 * (now - begun))

    def close(self) -> None:
        """Nothing is held open."""


def plausible_fps(capture: cv2.VideoCapture) -> float | None:
    """The frame rate that a capture tells, or None if it cannot be one."""
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return fps if 1 <= fps <= 480 else None


def count_of(capture: cv2.VideoCapture) -> int | None:
    """The number of frames that a capture tells, or None if it does not know."""
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(count) if 0 < count < 1e9 else None


def size_of(capture: cv2.VideoCapture) -> tuple[int, int] | None:
    """(height, width) as a capture tells it, or None if it does not know yet."""
    height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
    return (height, width) if height > 0 and width > 0 else None


def as_bgr(image: object) -> NDArray[np.uint8]:
    """What `VideoCapture` gave as (H, W, 3) uint8; grey cameras give one channel."""
    frame = np.asarray(image, dtype=np.uint8)
    if frame.ndim == 2 or frame.shape[2] == 1:
        frame = np.asarray(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR), dtype=np.uint8)
    return frame


def video_backend() -> int:
    """FFmpeg where OpenCV has it: other backends take digits in a path for an image sequence."""
    present = cv2.CAP_FFMPEG in cv2.videoio_registry.getStreamBackends()
    return cv2.CAP_FFMPEG if present else cv2.CAP_ANY


def quiet_opencv() -> None:
    """Keep OpenCV and FFmpeg from printing their own opinion of a source above our line."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
