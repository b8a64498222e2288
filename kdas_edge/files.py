"""Writing files so that nothing half-written is ever seen: a temporary name, then a rename."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdas_edge.errors import UserError


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Write `content` to `path`; a reader sees the old file or the new one, never a part.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; a result is as readable as any other file of the user
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise UserError(
            f"cannot write {path}: {error.strerror}; choose a folder that can be written"
        ) from error


def write_text_atomic(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; see `write_bytes_atomic`."""
    write_bytes_atomic(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, indented, keys in the given order, with a final newline."""
    write_text_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is absent, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the path") from error
    except ValueError as error:
        raise UserError(f"{path} is not a JSON file ({error}); make it again") from error


@contextlib.contextmanager
def staged_directory(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """Fill a directory under a temporary name and rename it to `path` when the block succeeds.

    Args:
        path: the directory to make. It must not exist, or be empty, unless `overwrite`.
        overwrite: replace an existing directory; the old one disappears only at the rename.

    Yields:
        The temporary directory, beside `path`. It is removed if the block fails.

    Raises:
        UserError: `path` is not empty and `overwrite` is false, or cannot be written.
    """
    check_output_directory(path, overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        staging.chmod(0o777 & ~_umask())
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; choose a folder that can be written"
        ) from error
    try:
        yield staging
        if path.exists():
            retired = staging.with_name(staging.name + ".old")
            path.rename(retired)
            staging.rename(path)
            shutil.rmtree(retired)
        else:
            staging.rename(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; nothing kept") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_output_directory(path: Path, overwrite: bool = False) -> None:
    """Refuse an output path that would destroy something, before any long work begins.

    Raises:
        UserError: `path` is a file, or a directory with content and `overwrite` is false.
    """
    if path.is_file():
        raise UserError(f"{path} is a file; name a folder for the output")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise UserError(f"{path} exists and is not empty; add --overwrite or choose another folder")


def check_output_file(path: Path) -> None:
    """Refuse an output file that could not be written, before any long work begins.

    Nothing is left behind: folders that are missing are made when the file is written.

    Raises:
        UserError: `path` is a folder, or the nearest folder that exists cannot be written.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file for the output")
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; choose a folder that can be written"
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
