"""An MP4 that is whole or absent: a temporary name, a check by reading it back, then a rename."""

import contextlib
import secrets
import shutil
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.errors import UserError
from kdas_edge.files import check_output_file
from kdas_edge.video.readers import video_backend

# MPEG-4 part 2: the one codec for mp4 that every OpenCV from the package index can write
CODEC = "mp4v"
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
        self._fps = fps
        self._writer: cv2.VideoWriter | None = None
        self._temporary: Path | None = None
        self._size = (0, 0)
        self._next = 0.0
        self._before: NDArray[np.uint8] = np.empty((0, 0, 3), np.uint8)

    def add(self, image: NDArray[np.uint8], seconds: float) -> None:
        """Add a frame (H, W, 3) uint8 BGR that belongs to a time of the source.

        Raises:
            UserError: the file cannot be begun.
        """
        if self.full is not None:
            return
        if self._writer is None:
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
        assert self._writer is not None
        self._writer.write(image)
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
        self._writer = cv2.VideoWriter(
            str(temporary), video_backend(), cv2.VideoWriter.fourcc(*CODEC), self._fps, self._size
        )
        if not self._writer.isOpened():
            self.discard()
            raise UserError(
                f"cannot record {self.path}: this OpenCV writes no MP4 ({CODEC}); use --frames"
            )

    def finish(self) -> bool:
        """End the file, read it back, and give it its name.

        Returns:
            False if no frame came: then there is no file.

        Raises:
            UserError: the disk is full, or took less than was written: then there is no file.
        """
        if self._writer is None or self._temporary is None:
            return False
        self._writer.release()
        self._writer = None
        # OpenCV's writer reports no error: what the file says of itself is the only evidence
        capture = cv2.VideoCapture(str(self._temporary), video_backend())
        found = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
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
            raise UserError(f"cannot write {self.path}: {error.strerror}; nothing kept") from error
        self._temporary = None
        return True

    def discard(self) -> None:
        """End without a file."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None
        self.unlink()

    def unlink(self) -> None:
        """Remove the unfinished file; another thread may still be writing into it."""
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                self._temporary.unlink()
            self._temporary = None
