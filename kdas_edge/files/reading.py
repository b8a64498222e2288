"""Reading files that a person named: regular files of a bounded size, else one clear line."""

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from kdas_edge.errors import UserError

# a result of ten thousand images with every figure of each is some 30 MB
LARGEST_JSON = 512 * 2**20
# deeper than anything that a verb writes, far below what Python's recursion can take
DEEPEST_JSON = 64


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits, read in blocks.

    Raises:
        OSError: it cannot be read.
        UserError: it is a FIFO or device, which might never end.
    """
    with os.fdopen(_open_without_waiting(path), "rb") as file:
        _require_regular(path, os.fstat(file.fileno()))
        return hashlib.file_digest(file, "sha256").hexdigest()


def real_path(path: Path) -> Path:
    """Return the absolute path with links followed; one that is a loop, or no name, stays itself.

    `Path.resolve` raises there, with another exception in each version of Python.
    """
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError):
        return path.absolute()


def read_bytes(path: Path, largest: int) -> bytes:
    """Read a regular file.

    Args:
        path: the file; a link to a file is one.
        largest: bytes above which the file is refused, before memory is taken.

    Raises:
        UserError: absent, unreadable, larger, or a folder, FIFO, device or socket, which might
            never end.
    """
    try:
        # a FIFO without a writer would block in open
        with os.fdopen(_open_without_waiting(path), "rb") as file:
            found = os.fstat(file.fileno())
            _require_regular(path, found)
            if found.st_size > largest:
                raise UserError(
                    f"{path} has {found.st_size} bytes, at most {largest} are read; check the path"
                )
            content = file.read(largest + 1)  # a file of the system says 0
            if len(content) > largest:
                raise UserError(f"{path} has more than {largest} bytes; check the path")
            return content
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the path") from error
    except ValueError as error:  # a NUL in the name
        raise UserError(f"cannot read {str(path)!r}: {error}; check the path") from error


def read_json(path: Path, largest: int = LARGEST_JSON) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is absent, unreadable, too large, nested too deep, or not JSON.
    """
    content = read_bytes(path, largest)
    try:
        value = json.loads(content)
    except RecursionError:
        raise UserError(f"{path} is nested too deep to be read; make it again") from None
    except ValueError as error:
        raise UserError(f"{path} is not a JSON file ({error}); make it again") from error
    if _depth(value) > DEEPEST_JSON:
        raise UserError(f"{path} is nested deeper than {DEEPEST_JSON} levels; make it again")
    return value


def read_json_lines(path: Path) -> list[Any]:
    """Read a file with one JSON value per line; a line that a killed process cut is left out.

    Raises:
        UserError: the file is absent, unreadable or too large.
    """
    values = []
    for line in read_bytes(path, LARGEST_JSON).splitlines():
        try:
            values.append(json.loads(line))
        except (ValueError, RecursionError):
            continue
    return values


def _depth(value: Any) -> int:
    """Levels of nesting, counted without recursion."""
    depth, level = 0, [value]
    while level:
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner.extend(v for v in one.values() if isinstance(v, dict | list))
            elif isinstance(one, list):
                inner.extend(v for v in one if isinstance(v, dict | list))
        depth, level = depth + 1, inner
    return depth


def _require_regular(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path} is not a regular file; name a file")


def _open_without_waiting(path: Path) -> int:
    return os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
