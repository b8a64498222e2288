"""Writing files so that nothing half-written is ever seen: a temporary name, then a rename."""

import contextlib
import errno
import json
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TextIO

from kdas_edge.errors import UserError
from kdas_edge.files.outputs import (
    STANDARD_OUTPUT,
    check_output_directory,
    folder_for_temporaries,
    in_place,
    is_stream,
)
from kdas_edge.files.temporary import is_ours, temporary_path

# a pipe that nobody reads is given up after this many seconds
_PIPE_SECONDS = 10.0

_standard_output: list[TextIO] = []


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Write `content` to `path`; a reader sees the old file or the new one, never a part.

    A link stays, and the file that it names is written. Into what is no regular file (`-` for the
    standard output, a pipe, a device) is written.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    if is_stream(path):
        with open_stream(path) as stream:
            try:
                stream.write(content)
                stream.flush()
            except OSError as error:
                raise _cannot_write(path, error) from error
        return
    target = Path(os.path.realpath(path))
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if in_place(target):
            _write_in_place(target, content)
            return
        temporary = temporary_path(target)
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            temporary.replace(target)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            _write_in_place(target, content)  # a mounted file
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text_atomic(path: Path, text: str) -> None:
    r"""Write UTF-8 text atomically; see `write_bytes_atomic`.

    A byte of a file name that is not UTF-8 is written as `\udcXX`, which JSON reads back.
    """
    write_bytes_atomic(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, indented, keys in the given order, with a final newline.

    A list of plain values stands on one line, and so does an object of numbers or a short one:
    files of samples take a third less room, and a changed row is one line of a diff.
    """
    write_bytes_atomic(path, json_bytes(value, indented=True))


def json_bytes(value: Any, indented: bool = False) -> bytes:
    """Return a value as JSON in UTF-8 with a final newline; not `indented`, on one line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    if indented:
        text = _json_lines(json.loads(text), "\n")
    return (text + "\n").encode(errors="backslashreplace")


def _json_lines(value: Any, line_end: str) -> str:
    """JSON text of a parsed value; `line_end` is the newline and the indent of its closing line."""
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list):
        return line
    children = list(value.values()) if isinstance(value, dict) else value
    nested = any(isinstance(child, dict | list) and child for child in children)
    words = isinstance(value, dict) and any(isinstance(child, str) for child in children)
    if not nested and not (words and len(line) > 400):
        return line
    inner = line_end + "  "
    parts = [_json_lines(child, inner) for child in children]
    if isinstance(value, dict):
        keys = (json.dumps(key, ensure_ascii=False) for key in value)
        parts = [f"{key}: {part}" for key, part in zip(keys, parts, strict=True)]
    return line[0] + inner + f",{inner}".join(parts) + line_end + line[-1]


@contextlib.contextmanager
def standard_output(stream: TextIO) -> Iterator[None]:
    """Let the output `-` be this stream while the block runs, whatever `sys.stdout` is then."""
    _standard_output.append(stream)
    try:
        yield
    finally:
        _standard_output.pop()


@contextlib.contextmanager
def open_stream(path: Path) -> Iterator[IO[bytes]]:
    """Open what is written into and not replaced: `-`, a pipe, a device.

    Raises:
        UserError: it cannot be opened, or nobody reads the pipe.
    """
    if path == STANDARD_OUTPUT:
        stream = _standard_output[-1] if _standard_output else sys.stdout
        stream.flush()
        yield stream.buffer
        return
    try:
        file = os.fdopen(_open_for_writing(path), "wb", buffering=0)
    except OSError as error:
        raise _cannot_write(path, error) from error
    with file:
        yield file


@contextlib.contextmanager
def staged_directory(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """Fill a directory under a temporary name and rename it to `path` when the block succeeds.

    A folder that cannot be renamed (a mount, the working folder) is filled instead, from a
    temporary folder inside it.

    Args:
        path: the directory to make. It must not exist, or be empty, unless `overwrite`.
        overwrite: replace an existing directory; the old one disappears only at the rename.

    Yields:
        The temporary directory. It is removed if the block fails.

    Raises:
        UserError: `path` is not empty and `overwrite` is false, or cannot be written.
    """
    check_output_directory(path, overwrite)
    target = Path(os.path.realpath(path))
    folder = folder_for_temporaries(target)
    staging = temporary_path(target, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        yield staging
        try:
            if folder == target:
                _fill(target, staging)
            else:
                _swap(target, staging)
        except OSError as error:
            raise UserError(
                f"cannot write {path}: {error.strerror or error}; what was there before is kept"
            ) from error
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; nothing of it is kept"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _swap(target: Path, staging: Path) -> None:
    if not target.exists():
        staging.rename(target)
        return
    retired = temporary_path(target, retired=True)
    target.rename(retired)
    try:
        staging.rename(target)
    except OSError:
        retired.rename(target)
        raise
    shutil.rmtree(retired, ignore_errors=True)


def _fill(target: Path, staging: Path) -> None:
    """Exchange the content of a folder that stays."""
    retired = temporary_path(target / "content")
    retired.mkdir()
    old = [entry for entry in target.iterdir() if not is_ours(entry.name)]
    new = list(staging.iterdir())
    moved: list[tuple[Path, Path]] = []
    try:
        for entries, folder in ((old, retired), (new, target)):
            for entry in entries:
                entry.rename(folder / entry.name)
                moved.append((entry, folder / entry.name))
    except OSError:
        for before, after in reversed(moved):
            after.rename(before)
        raise
    finally:
        if len(moved) == len(old) + len(new):
            shutil.rmtree(retired, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                retired.rmdir()


def _write_in_place(target: Path, content: bytes) -> None:
    with target.open("r+b") as file:
        file.write(content)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def _open_for_writing(path: Path) -> int:
    flags = os.O_WRONLY | getattr(os, "O_NOCTTY", 0)
    if not stat.S_ISFIFO(path.stat().st_mode):
        return os.open(path, flags)
    end = time.monotonic() + _PIPE_SECONDS
    while True:
        try:
            # without waiting, which would be for ever where nobody reads
            descriptor = os.open(path, flags | os.O_NONBLOCK)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            os.set_blocking(descriptor, True)
            return descriptor


def _cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot write {path}: {error.strerror}; choose a folder that can be written, or make room"
    )
