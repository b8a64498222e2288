"""What may be written: the one place that decides this for all verbs, before the work begins.

A regular file is replaced, and a folder with content only where the user said so. What is neither
is never replaced: into a pipe, a terminal or the null device is written; a disk, a socket and a
folder in place of a file are refused. A link stays, and what it names is written. No output is,
holds, or lies inside an input.
"""

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from kdas_edge.errors import UserError
from kdas_edge.files.temporary import is_ours

STANDARD_OUTPUT = Path("-")


def is_stream(path: Path) -> bool:
    """Whether an output is written into and never replaced: `-`, a pipe, a character device."""
    if path == STANDARD_OUTPUT:
        return True
    mode = _mode(path)
    return mode is not None and (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode))


def check_output_file(
    path: Path, inputs: Iterable[Path] = (), streams: bool = True, what: str = ""
) -> None:
    """Refuse an output file that could not be written or would destroy something.

    Nothing is left behind: folders that are missing are made when the file is written.

    Args:
        path: the output; `-` is the standard output.
        inputs: files and folders that are read; see `check_inputs_kept`.
        streams: whether the format can be written into a pipe or device.
        what: the option, for the message.

    Raises:
        UserError: `path` is a folder, a disk or a socket, or the nearest folder that exists cannot
            be written, or an input would be lost.
    """
    label = f"{what} {path}".strip()
    if is_stream(path):
        if not streams:
            raise UserError(f"{label} is no regular file, which this output needs; name one")
        if path != STANDARD_OUTPUT and not os.access(path, os.W_OK):
            raise UserError(f"cannot write {label}: Permission denied; choose another output")
        return
    mode = _mode(path)
    if mode is not None and stat.S_ISDIR(mode):
        raise UserError(f"{label} is a folder; name a file for the output")
    if mode is not None and not stat.S_ISREG(mode):
        raise UserError(f"{label} is a disk or a socket; name a file for the output")
    target = Path(os.path.realpath(path))
    # a file that is mounted, or lies in a folder that is not ours, is written in place
    if mode is None or not in_place(target):
        _check_writable(target.parent, label)
    check_inputs_kept(path, inputs, what)


def check_output_directory(
    path: Path,
    overwrite: bool = False,
    inputs: Iterable[Path] = (),
    replaces: bool = True,
) -> None:
    """Refuse an output path that would destroy something, before any long work begins.

    Args:
        path: the folder to make or to fill.
        overwrite: a folder with content is allowed.
        inputs: files and folders that are read; see `check_inputs_kept`.
        replaces: whether what is in the folder goes; false where files are added to it.

    Raises:
        UserError: `path` is no folder, or one with content and `overwrite` is false; its content
            is the working folder, the home folder or the whole disk; it cannot be written; or an
            input would be lost.
    """
    if path == STANDARD_OUTPUT:
        raise UserError("- is the standard output, which is no folder; name a folder (./- is one)")
    mode = _mode(path)
    if mode is not None and not stat.S_ISDIR(mode):
        kind = "a file" if stat.S_ISREG(mode) else "a device, pipe or socket"
        raise UserError(f"{path} is {kind}; name a folder for the output")
    check_inputs_kept(path, inputs)
    target = Path(os.path.realpath(path))
    if mode is None:
        _check_writable(target.parent, str(path))
        return
    if has_content(target, path):
        if not overwrite:
            raise UserError(
                f"{path} exists and is not empty; add --overwrite or choose another folder"
            )
        if replaces:
            _check_expendable(path, target)
    _check_writable(folder_for_temporaries(target), str(path))


def check_inputs_kept(output: Path, inputs: Iterable[Path], what: str = "") -> None:
    """Refuse an output that is, holds or lies inside an input; links and mounts are followed.

    Args:
        output: the file or folder to write; it need not exist.
        inputs: files and folders that are read; those that do not exist are passed over.
        what: the option, for the message.

    Raises:
        UserError: as said.
    """
    if is_stream(output):
        return
    target = Path(os.path.realpath(output))
    around_output = _identities(target)
    itself = _identity(target)
    for one in inputs:
        source = Path(os.path.realpath(one))
        identity = _identity(source)
        if identity is None:
            continue
        if itself == identity:
            relation = "is"
        elif itself is not None and itself in _identities(source):
            relation = "holds"
        elif identity in around_output:
            relation = "lies inside"
        else:
            continue
        raise UserError(
            f"{f'{what} {output}'.strip()} {relation} {one}, which is read; choose another output"
        )


def has_content(folder: Path, shown: Path | None = None) -> bool:
    """Whether a folder holds anything but locks and unfinished files of this package.

    Raises:
        UserError: it cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return any(not is_ours(entry.name) for entry in entries)
    except OSError as error:
        raise UserError(
            f"cannot look into {shown or folder}: {error.strerror}; choose another folder"
        ) from error


def folder_for_temporaries(target: Path) -> Path:
    """Where the unfinished version of a file or folder lies: beside it, or in a kept folder."""
    return target if target.is_dir() and in_place(target) else target.parent


def in_place(target: Path) -> bool:
    """Whether what exists must be filled where it is, for a rename could not replace it.

    So a mounted folder (`docker -v`), the working folder, and what lies in a folder that
    this user may not write.
    """
    if not target.exists():
        return False
    if not os.access(target.parent, os.W_OK):
        return True
    if not target.is_dir():  # of a file a rename tells: on layered file systems nothing else does
        return False
    with contextlib.suppress(OSError):
        return target.is_mount() or target.samefile(Path.cwd())
    return False


def make_parents(path: Path) -> list[Path]:
    """Make the folders above `path`; return those that were missing, the deepest first.

    Raises:
        UserError: they cannot be made.
    """
    missing = []
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        missing.append(folder)
        folder = folder.parent
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write {path.parent}: {error.strerror}; choose a folder that can be written"
        ) from error
    return missing


def _mode(path: Path) -> int | None:
    """Kind and permissions of what `path` names, links followed; None where there is nothing."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        name = ascii(str(path)) if "\0" in str(path) else str(path)
        raise UserError(f"cannot write {name}: {reason}; choose another output") from error


def _check_writable(folder: Path, label: str) -> None:
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write {label}: {error.strerror}; choose a folder that can be written"
        ) from error


def _check_expendable(path: Path, target: Path) -> None:
    places = {"working folder": Path.cwd(), "whole disk": Path(target.anchor)}
    with contextlib.suppress(RuntimeError):
        places["home folder"] = Path.home()
    for name, place in places.items():
        if _identity(target) in _identities(Path(os.path.realpath(place))):
            raise UserError(
                f"{path} is or holds the {name}, which --overwrite would empty; "
                "choose another folder"
            )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _identities(path: Path) -> set[tuple[int, int]]:
    """What a path is and lies in, as device and inode: also right through links and mounts."""
    found = (_identity(one) for one in (path, *path.parents))
    return {one for one in found if one is not None}
