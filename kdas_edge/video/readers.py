"""Frames one after the other: of a video file, of a folder of images, at the file's own pace.

A reader runs in a thread of its own. `frames` ends by itself or when `stop` is set; afterwards
`problem` says what was wrong with a source that could be read in part.
"""

import math
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kdas_edge.errors import UserError
from kdas_edge.image_files import read_image
from kdas_edge.video_files import Picture, VideoDecoder

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
        live: frames come whether or not they are taken.
        fps: frames per second that the source promises.
        size: (height, width) of its frames, or None where it is not known.
        expected: number of frames, or None where it is not known.
        skipped: frames that were passed over because they were late already.
        undecodable: frames that could not be decoded, or were marked as damaged.
        problem: after the end, why frames are missing, or None.
    """

    name: str
    live: bool
    fps: float
    size: tuple[int, int] | None
    expected: int | None
    skipped: int
    undecodable: int
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
        self._path = path
        self._decoder = VideoDecoder(path)
        self.name = path.name
        self.live = realtime
        # no time of the file means anything beside a frame rate that a person gave
        self._told_fps = None if fps else self._decoder.fps
        self.fps = fps or self._told_fps or DEFAULT_FPS
        self.size = self._decoder.size
        self._given_fps = fps
        self.expected = self._decoder.expected
        self.skipped = 0
        self.undecodable = 0
        self.problem: str | None = None

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """See `Reader`.

        Raises:
            UserError: not a single frame can be decoded.
        """
        index, good, last = -1, 0, -1.0
        start: float | None = None
        for picture in self._decoder.pictures():
            if stop.is_set():
                return
            decoded = time.perf_counter()
            index += 1
            seconds = self._time(picture, index, last)
            last = seconds
            if self.live:
                start = decoded - seconds if start is None else start
                early = start + seconds - decoded
                if early < -1 / self.fps:
                    self.skipped += 1
                    continue
                if early > LONGEST_WAIT:
                    start -= early - LONGEST_WAIT
                    early = LONGEST_WAIT
                if early > 0 and stop.wait(early):
                    return
            if not picture.good:
                self.undecodable += 1
                continue
            good += 1
            begun = time.perf_counter()
            image = picture.bgr()
            now = time.perf_counter()
            yield Frame(index, seconds, image, now, picture.decode_ms + 1e3 * (now - begun))
        if not stop.is_set():
            self._judge(index + 1, good + self.skipped, last)

    def _judge(self, found: int, good: int, last: float) -> None:
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
        problems = []
        if expected - max(found, reached) > tolerance or self._decoder.failure:
            reason = f" ({self._decoder.failure})" if self._decoder.failure else ""
            problems.append(
                f"{self.name} is truncated: {good} of {expected} frames could be decoded{reason}; "
                "copy or export it again"
            )
        if self.undecodable:
            problems.append(
                f"{self.name}: {self.undecodable} of {found} frames could not be decoded; they "
                "were not segmented"
            )
        self.problem = "; ".join(problems) or None

    def _time(self, picture: Picture, index: int, last: float) -> float:
        seconds = picture.seconds
        # some containers have no time stamps, or begin them anew
        if self._given_fps or seconds is None or not last < seconds < math.inf:
            return index / self.fps
        return seconds

    def close(self) -> None:
        """Close the file."""
        self._decoder.close()


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
        self.undecodable = 0
        self.problem: str | None = None

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """See `Reader`."""
        start = time.perf_counter()
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
                self.undecodable += 1
                of = f"{self.undecodable} of {len(self._files)} images"
                self.problem = f"{of} could not be read, last: {error}"
                continue
            now = time.perf_counter()
            yield Frame(index, seconds, image, now, 1e3 * (now - begun))

    def close(self) -> None:
        """Nothing is held open."""
