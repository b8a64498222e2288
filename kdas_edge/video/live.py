"""Cameras and network streams: they come late, break off, and come back."""

import threading
import time
from collections.abc import Iterator

import cv2

from kdas_edge.console import info
from kdas_edge.errors import UserError
from kdas_edge.video.readers import (
    DEFAULT_FPS,
    MISSING_FRAMES,
    Frame,
    as_bgr,
    count_of,
    plausible_fps,
    size_of,
    video_backend,
)
from kdas_edge.video.sources import Source

# Seconds between attempts: doubled each time, up to a limit.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 8.0
ATTEMPTS = 8
# a network source that is silent for so long is taken for lost
TIMEOUT_MS = 5000


class LiveReader:
    """A camera or stream, reopened with growing pauses when it breaks off.

    A recording that a server gives out has an end of its own: it is not opened again there.

    Attributes:
        reconnected: how often it came back.
    """

    def __init__(
        self,
        source: Source,
        fps: float | None = None,
        attempts: int = ATTEMPTS,
        first_pause: float = FIRST_PAUSE,
    ) -> None:
        """Open the source.

        Args:
            source: a camera or a stream.
            fps: its frame rate, if known better than the source tells.
            attempts: how often to try after it broke off before giving up; 0 gives up at once.
            first_pause: seconds before the first attempt; the pause doubles up to 8 s.

        Raises:
            UserError: it cannot be opened: a wrong number or address is no interruption.
        """
        self._source = source
        self._attempts = attempts
        self._first_pause = first_pause
        capture = self._open()
        if capture is None:
            raise UserError(_absent(source))
        self._capture: cv2.VideoCapture | None = capture
        # a frame that was fetched to see whether the source is back waits to be decoded
        self._grabbed = False
        self.name = source.name
        self.live = True
        self.fps = fps or plausible_fps(capture) or DEFAULT_FPS
        self.size = size_of(capture)
        self.expected: int | None = count_of(capture) if source.kind == "stream" else None
        self.skipped = 0
        self.reconnected = 0
        self.problem: str | None = None

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """See `readers.Reader`.

        Raises:
            UserError: the source broke off and did not come back.
        """
        index = 0
        start: float | None = None
        while not stop.is_set():
            if self._capture is None:
                self._reconnect(index, stop)
                continue
            # `grab` waits for the next frame, which is no work; decoding is in `retrieve`
            good = self._grabbed or self._capture.grab()
            self._grabbed = False
            begun = time.perf_counter()
            good, image = self._capture.retrieve() if good else (False, None)
            if not good or image is None:
                self.close()
                if self.expected is not None and index >= self.expected - MISSING_FRAMES:
                    return
                continue
            now = time.perf_counter()
            start = now if start is None else start
            yield Frame(index, now - start, as_bgr(image), now, 1e3 * (now - begun))
            index += 1

    def _reconnect(self, frames: int, stop: threading.Event) -> None:
        """Try until there is a capture that gives a frame, `stop`, or the last attempt failed."""
        pause = self._first_pause
        for attempt in range(1, self._attempts + 1):
            info(
                f"{self.name}: broke off after {frames} frames; reconnecting in {pause:g} s "
                f"(attempt {attempt} of {self._attempts})"
            )
            if stop.wait(pause):
                return
            pause = min(2 * pause, LONGEST_PAUSE)
            capture = self._open()
            # some servers accept a connection long before they have a picture
            if capture is not None and capture.grab():
                info(f"{self.name}: is back")
                self.reconnected += 1
                self._capture, self._grabbed = capture, True
                return
            if capture is not None:
                capture.release()
        tried = {0: "not tried (--reconnect 0)", 1: "tried once"}
        raise UserError(
            f"{self.name} broke off after {frames} frames and did not come back, "
            f"{tried.get(self._attempts, f'tried {self._attempts} times')}; "
            "check cable, power and address"
        )

    def _open(self) -> cv2.VideoCapture | None:
        if self._source.kind == "camera":
            capture = cv2.VideoCapture(int(self._source.address))
            # one frame in the driver's queue, where it can be chosen: more is only delay
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        else:
            limits = [
                cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, TIMEOUT_MS,
                cv2.CAP_PROP_READ_TIMEOUT_MSEC, TIMEOUT_MS,
            ]  # fmt: skip
            capture = cv2.VideoCapture(self._source.address, video_backend(), limits)
        if not capture.isOpened():
            capture.release()
            return None
        return capture

    def close(self) -> None:
        """Let go of the source."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None


def _absent(source: Source) -> str:
    if source.kind == "camera":
        return (
            f"there is no camera {source.address}, or another program holds it; check the cable, "
            "or try another number"
        )
    return f"{source.name} cannot be opened; check the address, the password and the network"
