"""Cameras and network streams: they come late, break off, and come back."""

import itertools
import threading
import time
from collections.abc import Iterator

from kdas_edge.console import info
from kdas_edge.errors import UserError
from kdas_edge.video.camera import Camera
from kdas_edge.video.readers import DEFAULT_FPS, MISSING_FRAMES, Frame
from kdas_edge.video.sources import InputSource
from kdas_edge.video_files import VideoDecoder

# Seconds between attempts: doubled each time, up to a limit.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 8.0
ATTEMPTS = 8


class LiveReader:
    """A camera or stream, reopened with growing pauses when it breaks off.

    A recording that a server gives out has an end of its own: it is not opened again there.

    Attributes:
        reconnected: how often it came back.
    """

    def __init__(
        self,
        source: InputSource,
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
        self._decoder = self._open()
        if self._decoder is None:
            raise UserError(_absent(source))
        self._pictures = self._decoder.pictures()
        self.name = source.name
        self.live = True
        self.fps = fps or self._decoder.fps or DEFAULT_FPS
        self.size = self._decoder.size
        self.expected = self._decoder.expected if source.kind == "stream" else None
        self.skipped = 0
        self.undecodable = 0
        self.problem: str | None = None
        self.reconnected = 0

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """See `readers.Reader`.

        Raises:
            UserError: the source broke off and did not come back.
        """
        index = 0
        start: float | None = None
        while not stop.is_set():
            if self._decoder is None:
                self._reconnect(index, stop)
                continue
            picture = next(self._pictures, None)
            if picture is None:
                self.close()
                if self.expected is not None and index >= self.expected - MISSING_FRAMES:
                    return
                continue
            begun = time.perf_counter()
            start = begun if start is None else start
            if picture.good:
                image = picture.bgr()
                now = time.perf_counter()
                decode_ms = picture.decode_ms + 1e3 * (now - begun)
                yield Frame(index, begun - start, image, now, decode_ms)
            else:
                self.undecodable += 1
                self.problem = (
                    f"{self.name}: {self.undecodable} frames could not be decoded; they were not "
                    "segmented"
                )
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
            decoder = self._open()
            if decoder is None:
                continue
            pictures = decoder.pictures()
            # some servers accept a connection long before they have a picture
            first = next(pictures, None)
            if first is not None:
                info(f"{self.name}: is back")
                self.reconnected += 1
                self._decoder, self._pictures = decoder, itertools.chain([first], pictures)
                return
            decoder.close()
        tried = {0: "not tried (--reconnect 0)", 1: "tried once"}
        raise UserError(
            f"{self.name} broke off after {frames} frames and did not come back, "
            f"{tried.get(self._attempts, f'tried {self._attempts} times')}; "
            "check cable, power and address"
        )

    def _open(self) -> "VideoDecoder | Camera | None":
        address = self._source.address
        try:
            camera = self._source.kind == "camera"
            return Camera(int(address)) if camera else VideoDecoder(address)
        except UserError:
            return None

    def close(self) -> None:
        """Let go of the source."""
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None


def _absent(source: InputSource) -> str:
    if source.kind == "camera":
        return (
            f"there is no camera {source.address}, or another program holds it; check the cable, "
            "or try another number"
        )
    return f"{source.name} cannot be opened; check the address, the password and the network"
