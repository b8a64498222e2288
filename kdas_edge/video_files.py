"""Decoding video: the only place where a file or a stream becomes pictures. No torch.

FFmpeg decodes, through PyAV; OpenCV's own reader gives black or stale pictures for interlaced
video. Interlaced pictures are deinterlaced with FFmpeg's filter `yadif`, both fields to one
picture, so that the number of pictures stays; progressive ones, also of the same stream, are left
as they are. A picture that the decoder marks as damaged is never given out as a good one, nor are
those that are predicted from it, up to the next key frame.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import av.filter
import numpy as np
from av.video.frame import PictureType, VideoFrame
from numpy.typing import NDArray

from kdas_edge.errors import UserError
from kdas_edge.image_files import MAX_PIXELS_VARIABLE, check_regular, max_pixels

SUFFIXES = (
    ".mp4",
    ".avi",
    ".mkv",
    ".mov",
    ".m4v",
    ".mpg",
    ".mpeg",
    ".wmv",
    ".webm",
    ".ts",
    ".mts",
    ".m2ts",
    ".vob",
    ".mxf",
    ".dv",
    ".m2v",
    ".mjpeg",
    ".mjpg",
    ".h264",
    ".264",
    ".hevc",
    ".h265",
    ".265",
)
# Demuxers that a file may choose. Others open text as a picture, other files, or the network.
_CONTAINERS = (
    "mov,avi,matroska,webm,mpeg,mpegts,mpegvideo,asf,flv,mxf,ogg,dv,mjpeg,h264,hevc,m4v,ivf,obu,vc1"
)
_YADIF = "mode=send_frame:parity=auto:deint=interlaced"
# each thread of a decoder holds a picture
_MOST_THREADS = 4
# codecs in which nothing is predicted from a B picture
_LAST_B = ("mpeg1video", "mpeg2video", "mpeg4")
# B pictures that wait for the one that they may be predicted from
_MOST_HELD = 8
# a network source that is silent for so long, in seconds, is taken for lost
TIMEOUT = 5.0


@dataclass(frozen=True)
class Picture:
    """One picture of a video.

    Attributes:
        good: False if the decoder could not decode it or marked it as damaged.
        seconds: its time stamp, from the first picture; None where the video has none.
        decode_ms: duration of decoding, without waiting for a network.
        bgr: returns the (H, W, 3) uint8 pixels; of a good picture only.
    """

    good: bool
    seconds: float | None
    decode_ms: float
    bgr: Callable[[], NDArray[np.uint8]]


class VideoDecoder:
    """Pictures of a video file or a network stream, in order, from the first on.

    Attributes:
        fps: frames per second that the video tells, or None if it tells none or nonsense.
        size: (height, width), or None where the container does not tell.
        expected: number of pictures that the container tells or implies, or None.
        failure: after the end, the error that ended the reading early, or None.
    """

    def __init__(self, source: Path | str) -> None:
        """Open a file (a path) or a network stream (an address).

        Raises:
            UserError: not a regular file; no video; more than `image_files.max_pixels()`; an
                address that does not answer within 5 seconds.
        """
        self._network = isinstance(source, str)
        limit, form = max_pixels(), None
        if isinstance(source, Path):
            check_regular(source)
            # FFmpeg would take JPEG pictures one after the other for a single one
            form = "mjpeg" if source.suffix.lower() in (".mjpeg", ".mjpg") else None
            # the prefix keeps FFmpeg from taking a colon in a name for a protocol
            address = f"file:{source}"
            options = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS}
        else:
            address, options = source, {"rtsp_transport": "tcp"}
        av.logging.set_level(None)  # FFmpeg would print messages of its own above our line
        try:
            self._container = av.open(
                address,
                format=form,
                options=options,
                timeout=TIMEOUT if self._network else None,
            )
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise _unopened(source, reason_of(error)) from None
        stream = self._container.streams.best("video")
        if stream is None or stream.codec_context is None:
            self.close()
            raise _unopened(source, "no video in it, or of a codec without a decoder")
        self._stream: Any = stream
        codec: Any = self._stream.codec_context
        if codec.width * codec.height > limit:
            self.close()
            raise UserError(
                f"{_shown(source)} has {codec.width}×{codec.height} pixels, more than the limit of "
                f"{limit}; {MAX_PIXELS_VARIABLE} raises it"
            )
        codec.options = {"max_pixels": str(limit)}
        codec.thread_count = min(_MOST_THREADS, os.cpu_count() or 1)
        # a decoder with a thread for each picture gives the first one late
        codec.thread_type = "SLICE" if self._network else "AUTO"
        told = (self._stream.guessed_rate, self._stream.average_rate)
        self.fps = next(filter(None, map(plausible_fps, told)), None)
        self.size = (codec.height, codec.width) if codec.width and codec.height else None
        self.expected = self._count()
        self.failure: str | None = None
        self._first_pts: int | None = None
        self._tainted = False
        # time stamps of packets that were damaged on the way, or that the decoder refused
        self._damaged: set[int | None] = set()
        self._busy = 0.0

    def _count(self) -> int | None:
        stream, container = self._stream, self._container
        if stream.frames:
            return int(stream.frames)
        seconds = 0.0
        if stream.duration and stream.time_base:
            seconds = float(stream.duration * stream.time_base)
        elif container.duration:
            seconds = container.duration / av.time_base
        return round(seconds * self.fps) if seconds > 0 and self.fps else None

    def pictures(self) -> Iterator[Picture]:
        """Decode to the end, one picture after the other; to be called once."""
        deinterlacer: _Deinterlacer | None = None
        for frame, good in self._judged():
            if deinterlacer is not None and (
                frame is None or not good or not deinterlacer.fits(frame)
            ):
                yield from map(self._good, deinterlacer.finish())
                deinterlacer = None
            if not good or frame is None:
                yield Picture(False, self._seconds(frame), self._lap(), _no_pixels)
                continue
            if deinterlacer is None and frame.interlaced_frame:
                deinterlacer = _Deinterlacer(frame)
            if deinterlacer is None:
                yield self._good(frame)
            else:
                begun = time.perf_counter()
                done = deinterlacer.add(frame)
                self._busy += time.perf_counter() - begun
                yield from map(self._good, done)
        if deinterlacer is not None:
            yield from map(self._good, deinterlacer.finish())

    def _judged(self) -> Iterator[tuple[VideoFrame | None, bool]]:
        """Frames and whether they are good; those before a bad one may be predicted from it."""
        held: deque[VideoFrame] = deque()
        for frame in self._decode():
            good = frame is not None and self._is_good(frame)
            if frame is not None and good and frame.pict_type == PictureType.B:
                held.append(frame)
                if len(held) > _MOST_HELD:
                    yield held.popleft(), True
                continue
            # B pictures come before the one that they need, which was decoded before them
            yield from ((one, good) for one in held)
            held.clear()
            yield frame, good
        yield from ((one, True) for one in held)

    def _decode(self) -> Iterator[VideoFrame | None]:
        """Frames as the decoder gives them; None for a packet that it refuses."""
        begun = time.perf_counter()
        started = False
        silent = 0
        try:
            for packet in self._container.demux(self._stream):
                if self._network:
                    begun = time.perf_counter()
                if packet.is_corrupt:
                    self._damaged.add(packet.pts)
                try:
                    frames = packet.decode()
                except (av.error.InvalidDataError, av.error.BugError, av.error.PatchWelcomeError):
                    frames = []
                    silent -= 1
                    # who joins a stream in its middle gets what cannot be decoded at first
                    if started or not self._network:
                        self._damaged.add(packet.pts)
                        yield None
                self._busy += time.perf_counter() - begun
                silent += bool(packet.size) - len(frames)
                for frame in frames:
                    started = True
                    yield frame
                begun = time.perf_counter()
        except (av.error.FFmpegError, OSError) as error:
            self.failure = reason_of(error)
        # the decoder of HEVC leaves out what it cannot decode without a word; each of its packets
        # is one picture, which is not so of other codecs
        if self._stream.codec_context.name == "hevc" and not self._network:
            yield from [None] * silent

    def _is_good(self, frame: VideoFrame) -> bool:
        passed = {
            pts for pts in self._damaged if pts is None or frame.pts is None or pts <= frame.pts
        }
        self._damaged -= passed
        if frame.is_corrupt or frame.pts in passed:
            last = frame.pict_type == PictureType.B and self._stream.codec_context.name in _LAST_B
            self._tainted |= not last
            return False
        # of a damaged packet that gave no picture the next ones may lack what they need
        self._tainted = (self._tainted or bool(passed)) and not frame.key_frame
        return not self._tainted

    def _good(self, frame: VideoFrame) -> Picture:
        seconds = self._seconds(frame)
        return Picture(True, seconds, self._lap(), lambda: _to_bgr(frame))

    def _seconds(self, frame: VideoFrame | None) -> float | None:
        if frame is None:
            return None
        # yadif writes time stamps of its own; what went in stands in `opaque`
        pts: int | None = frame.opaque[0] if isinstance(frame.opaque, tuple) else frame.pts
        if pts is None:
            return None
        if self._first_pts is None:
            self._first_pts = pts
        return float((pts - self._first_pts) * self._stream.time_base)

    def _lap(self) -> float:
        """Milliseconds of decoding since the last picture."""
        busy, self._busy = self._busy, 0.0
        return 1e3 * busy

    def close(self) -> None:
        """Close the file or the connection."""
        self._container.close()


class _Deinterlacer:
    """FFmpeg's `yadif`: one picture out for each one in, a picture late."""

    def __init__(self, frame: VideoFrame) -> None:
        self._kind = (frame.width, frame.height, frame.format.name)
        self._graph = av.filter.Graph()
        self._source = self._graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=frame.time_base,
        )
        yadif, self._sink = self._graph.add("yadif", _YADIF), self._graph.add("buffersink")
        self._source.link_to(yadif)
        yadif.link_to(self._sink)
        self._graph.configure()

    def fits(self, frame: VideoFrame) -> bool:
        return self._kind == (frame.width, frame.height, frame.format.name)

    def add(self, frame: VideoFrame) -> list[VideoFrame]:
        frame.opaque = (frame.pts,)
        self._source.push(frame)
        return self._pull()

    def finish(self) -> list[VideoFrame]:
        """The pictures that are still inside."""
        self._source.push(None)
        return self._pull()

    def _pull(self) -> list[VideoFrame]:
        done: list[VideoFrame] = []
        while True:
            try:
                frame = self._sink.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return done
            assert isinstance(frame, VideoFrame)
            done.append(frame)


def _unopened(source: Path | str, reason: str) -> UserError:
    return UserError(
        f"{_shown(source)} cannot be opened as a video ({reason}): it is damaged, cut off "
        "before its index, or of a kind that FFmpeg lacks; convert it, for example to H.264 in mp4"
    )


def _shown(source: Path | str) -> str:
    return str(source) if isinstance(source, Path) else "the address"  # it may hold a password


def reason_of(error: Exception) -> str:
    """FFmpeg's reason without the address, which may hold a password."""
    return str(getattr(error, "strerror", None) or type(error).__name__)


def _to_bgr(frame: VideoFrame) -> NDArray[np.uint8]:
    pixels = np.asarray(frame.to_ndarray(format="bgr24"), dtype=np.uint8)
    # what a phone says of how it was held
    quarters = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, quarters)) if quarters else pixels


def _no_pixels() -> NDArray[np.uint8]:
    raise ValueError("a picture that could not be decoded has no pixels")


def plausible_fps(rate: Fraction | float | None) -> float | None:
    """A frame rate that a source tells, or None if it cannot be one."""
    fps = float(rate or 0)
    return fps if 1 <= fps <= 480 else None
