"""Where segmented frames go: pictures, a recording, lines of JSON. Runs in the writing thread."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from kdas_edge.console import info
from kdas_edge.errors import UserError
from kdas_edge.files import (
    check_output_file,
    is_stream,
    json_bytes,
    open_stream,
)
from kdas_edge.image_files import write_png
from kdas_edge.overlay import PREDICTION, SECOND_PREDICTION, Style, draw_mask, side_by_side
from kdas_edge.video.recorder import Recorder
from kdas_edge.video.segmented import SegmentedFrame


@dataclass(frozen=True)
class OutputOptions:
    """What is written.

    Attributes:
        frames: folder for `masks/` and `overlays/`, one PNG each per frame; None: none.
        record: MP4 file of the overlays; None: none.
        jsonl: file with one line of JSON per frame; None: none.
        style: `contour` or `fill`.
        labels: names of the panels beside each other: the student's and the teacher's.
        show: keep the newest overlay for a window.
        overwrite: replace files that exist.
    """

    frames: Path | None = None
    record: Path | None = None
    jsonl: Path | None = None
    style: Style = "contour"
    labels: Sequence[str] = ("student", "teacher")
    show: bool = False
    overwrite: bool = False


class Outputs:
    """All outputs of one video.

    Attributes:
        newest: the last overlay (H, W or 2 W, 3) uint8 BGR, where a window is wanted.
        written: what `finish` left behind: kind -> path.
    """

    def __init__(self, options: OutputOptions, fps: float) -> None:
        """Open the outputs.

        Raises:
            UserError: a file that exists, or a folder that cannot be written.
        """
        self.options = options
        self.newest: NDArray[np.uint8] | None = None
        self.written: dict[str, str] = {}
        self._warned = False
        self._recorder = self._lines = None
        if options.record is not None:
            self._recorder = Recorder(options.record, fps, options.overwrite)
        if options.jsonl is not None:
            self._lines = LineFile(options.jsonl, options.overwrite)

    def add(self, shown: SegmentedFrame) -> None:
        """Draw and write one frame; adds the stages `draw`, `record` and `write` to its times.

        Raises:
            UserError: something cannot be written.
        """
        options = self.options
        frame = shown.frame
        clock = _Clock(shown.milliseconds)
        picture = None
        if options.frames is not None or options.record is not None or options.show:
            picture = self._draw(shown)
            clock.lap("draw")
        shown.latency_ms = 1e3 * (time.perf_counter() - frame.captured)
        if picture is not None and options.show:
            self.newest = picture
        if picture is not None and self._recorder is not None:
            self._recorder.add(picture, frame.seconds)
            if self._recorder.full is not None and not self._warned:
                self._warned = True
                info(self._recorder.full)
            clock.lap("record")
        if picture is not None and options.frames is not None:
            name = f"{frame.index:06d}.png"
            mask = shown.result.mask.view(np.uint8) * np.uint8(255)
            write_png(options.frames / "masks" / name, mask)
            write_png(options.frames / "overlays" / name, picture)
            self.written["frames"] = str(options.frames)
            clock.lap("write")
        if self._lines is not None:
            self._lines.add(shown.as_json())

    def _draw(self, shown: SegmentedFrame) -> NDArray[np.uint8]:
        image, style = shown.frame.image, self.options.style
        picture = draw_mask(image, shown.result.mask, PREDICTION[::-1], style)
        if shown.teacher is None:
            return picture
        beside = draw_mask(image, shown.teacher.mask, SECOND_PREDICTION[::-1], style)
        return side_by_side([picture, beside], self.options.labels)

    def finish(self) -> None:
        """Close the files; a recording appears under its name now.

        Raises:
            UserError: the recording is not whole; the other files are.
        """
        if self._lines is not None:
            self._lines.close()
            self.written["jsonl"] = str(self._lines.path)
        if self._recorder is not None and self._recorder.finish():
            self.written["record"] = str(self._recorder.path)

    def abandon(self) -> None:
        """Leave no half-written recording; nothing else is done."""
        if self._recorder is not None:
            self._recorder.unlink()

    @property
    def problem(self) -> str | None:
        """Why a recording ended early, or None."""
        return self._recorder.full if self._recorder is not None else None


class LineFile:
    """JSON lines that can be followed while they are written; every line in it is whole."""

    def __init__(self, path: Path, overwrite: bool = False) -> None:
        """Begin the file anew.

        Raises:
            UserError: it exists and `overwrite` is false, or it cannot be written.
        """
        check_output_file(path)
        self._stream = is_stream(path)
        if path.exists() and not overwrite and not self._stream:
            raise UserError(f"{path} exists; add --overwrite or choose another name")
        self.path = path
        self._good = 0
        self._closing = contextlib.ExitStack()
        if self._stream:
            self._file: IO[bytes] = self._closing.enter_context(open_stream(path))
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._closing.enter_context(path.open("wb", buffering=0))
        except OSError as error:
            raise _cannot_write(path, error) from error

    def add(self, value: object) -> None:
        """Append one line.

        Raises:
            UserError: the disk is full; a part of the line that was written is cut off again.
        """
        line = json_bytes(value)
        try:
            # without a buffer, so that a killed program leaves no half line
            written = self._file.write(line)
            if written != len(line):
                written += self._file.write(line[written:])
            self._good += written
            if self._stream:
                self._file.flush()
        except OSError as error:
            if not self._stream:
                self._file.truncate(self._good)
            raise _cannot_write(self.path, error) from error

    def close(self) -> None:
        """Close the file."""
        self._closing.close()


class _Clock:
    """Times of one frame, lap by lap."""

    def __init__(self, milliseconds: dict[str, float]) -> None:
        self._milliseconds = milliseconds
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._milliseconds[stage] = 1e3 * (now - self._last)
        self._last = now


def _cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot write {path}: {error.strerror}; make room or choose another folder")
