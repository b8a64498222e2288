"""An MP4 that is whole or absent: a temporary name, a check by reading it back, then a rename."""

import contextlib
import secrets
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.errors import UserError
from kdas_edge.files import check_output_file
from kdas_edge.video_files import VideoDecoder, reason_of

# MPEG-4 part 2: the one codec for mp4 that every build of FFmpeg can write
CODEC = "mpeg4"
# the largest numerator of a frame rate that it can state
LARGEST_RATE = 65535
# so many bits a pixel keep contours sharp
BITS_PER_PIXEL = 4
# Recording stops while there is room to finish the file and for the rest of the machine.
RESERVE_BYTES = 64 * 2**20
CHECK_EVERY = 25
# A recording keeps the source's time: where frames are missing, the one before stands longer, and
# of a source that is faster than it told, frames are left out. Not for ever: a source that was away
# for an hour leaves this many seconds.
LONGEST_HOLD = 2.0


class Recorder:
    """Frames into one MP4 file of a constant frame rate.

    Attributes:
        path: where the file appears when it is finished.
        frames: pictures written, those that stand in for missing ones included.
        full: why recording ended early, or None.
    """

    def __init__(self, path: Path, fps: float, overwrite: bool = False) -> None:
        """Prepare; the file is begun with the first frame, whose size it has.

        Raises:
            UserError: another suffix than .mp4, a file that exists and `overwrite` is false, or a
                folder that cannot be written.
        """
        if path.suffix.lower() != ".mp4":
            raise UserError(f"{path}: a recording is an MP4 file; let the name end in .mp4")
        check_output_file(path, streams=False)
        if path.exists() and not overwrite:
            raise UserError(f"{path} exists; add --overwrite or choose another name")
        self.path = path
        self.frames = 0
        self.full: str | None = None
        self._rate = _stated_rate(fps)
        self._fps = float(self._rate)
        self._container: Any = None
        self._stream: Any = None
        self._temporary: Path | None = None
        self._size = (0, 0)
        self._next = 0.0
        self._before: NDArray[np.uint8] = np.empty((0, 0, 3), np.uint8)

    def add(self, image: NDArray[np.uint8], seconds: float) -> None:
        """Add a frame (H, W, 3) uint8 BGR that belongs to a time of the source.

        Raises:
            UserError: the file cannot be begun, or the disk is full: then there is no file.
        """
        if self.full is not None:
            return
        if self._container is None:
            self._begin(image)
            self._next = seconds
            self._before = image
        if (image.shape[1], image.shape[0]) != self._size:
            image = np.asarray(
                cv2.resize(image, self._size, interpolation=cv2.INTER_AREA), np.uint8
            )
        period = 1 / self._fps
        missing = seconds - self._next
        if missing > LONGEST_HOLD:
            self._next = seconds - LONGEST_HOLD
        elif missing < -LONGEST_HOLD:
            self._next = seconds  # the source's clock was put back
        elif missing < -period:
            return
        # half a period of tolerance: a camera's clock is not ours
        while self._next + period / 2 < seconds:
            self._write(self._before)
        self._write(image)
        self._before = image

    def _write(self, image: NDArray[np.uint8]) -> None:
        width, height = self._stream.width, self._stream.height
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), "bgr24")
        frame.pts, frame.time_base = self.frames, 1 / self._rate
        try:
            self._container.mux(self._stream.encode(frame))
        except (av.error.FFmpegError, OSError) as error:
            self.discard()
            raise self._cannot_write(error) from error
        self.frames += 1
        self._next += 1 / self._fps
        if self.frames % CHECK_EVERY == 0:
            free = shutil.disk_usage(self.path.parent).free
            if free < RESERVE_BYTES:
                self.full = (
                    f"only {free // 2**20} MB are free at {self.path.parent}: recording ended "
                    f"after {self.frames} frames; make room"
                )

    def _begin(self, image: NDArray[np.uint8]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # FFmpeg tells the container by the suffix
            temporary = self.path.with_name(f".{self.path.stem}.{secrets.token_hex(4)}.mp4")
            temporary.open("xb").close()
        except OSError as error:
            raise UserError(
                f"cannot write {self.path}: {error.strerror}; choose a folder that can be written"
            ) from error
        self._temporary = temporary
        self._size = (image.shape[1], image.shape[0])
        # the codec halves the colours: an odd last row or column is left out
        width, height = (max(2, side & ~1) for side in self._size)
        try:
            self._container = av.open(f"file:{temporary}", "w", format="mp4")
            self._stream = self._container.add_stream(CODEC, rate=self._rate)
            self._stream.width, self._stream.height = width, height
            self._stream.pix_fmt = "yuv420p"
            bits = BITS_PER_PIXEL * self._fps * width * height
            self._stream.bit_rate = int(min(bits, 2**30))
            self._stream.gop_size = 12
        except (av.error.FFmpegError, OSError, ValueError) as error:
            self.discard()
            raise UserError(
                f"cannot record {self.path} ({reason_of(error)}); use --frames"
            ) from error

    def finish(self) -> bool:
        """End the file, read it back, and give it its name.

        Returns:
            False if no frame came: then there is no file.

        Raises:
            UserError: the disk is full, or took less than was written: then there is no file.
        """
        if self._container is None or self._temporary is None:
            return False
        try:
            self._container.mux(self._stream.encode(None))
            self._container.close()
            self._container = None
            # what the file says of itself is the best evidence that all of it is on the disk
            found = VideoDecoder(self._temporary).expected or 0
        except (av.error.FFmpegError, OSError) as error:
            self.discard()
            raise self._cannot_write(error) from error
        except UserError:
            found = 0
        if found < self.frames:
            self.discard()
            raise UserError(
                f"cannot write {self.path}: {max(found, 0)} of {self.frames} frames reached the "
                "disk, is it full? Nothing kept; make room or choose another folder"
            )
        try:
            self._temporary.replace(self.path)
        except OSError as error:
            self.discard()
            raise self._cannot_write(error) from error
        self._temporary = None
        return True

    def discard(self) -> None:
        """End without a file."""
        if self._container is not None:
            with contextlib.suppress(av.error.FFmpegError, OSError):
                self._container.close()
            self._container = None
        self.unlink()

    def unlink(self) -> None:
        """Remove the unfinished file; another thread may still be writing into it."""
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                self._temporary.unlink()
            self._temporary = None

    def _cannot_write(self, error: Exception) -> UserError:
        return UserError(f"cannot write {self.path}: {reason_of(error)}; nothing kept")


def _stated_rate(fps: float) -> Fraction:
    """The nearest frame rate that MPEG-4 can state: its numerator has 16 bits."""
    return Fraction(fps).limit_denominator(max(1, min(1001, int(LARGEST_RATE / fps))))
