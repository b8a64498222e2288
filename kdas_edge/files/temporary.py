"""Temporary names that say which process made them, so that leftovers of a dead one can go."""

import contextlib
import functools
import hashlib
import os
import platform
import re
import secrets
import shutil
import time
from pathlib import Path

_PATTERN = re.compile(r"\.kdas-([0-9a-f]{8})-(\d{1,10})-([0-9a-f]{8})(-old)?\.(.+)", re.DOTALL)
LOCK_PREFIX = ".kdas-lock."
# names longer than this, in bytes, leave no room for the prefix below the usual limit of 255
_LONGEST = 200
# of a process on another machine, or in another container, nothing is known but this
_FOREIGN_SECONDS = 24 * 3600.0

# folders that this process has swept, and the names that it uses itself
_swept: set[Path] = set()
_own: set[str] = set()


def temporary_path(path: Path, folder: Path | None = None, retired: bool = False) -> Path:
    """Return a name for the unfinished `path`, with the same suffix; nothing is created.

    Args:
        path: what it will be renamed to.
        folder: where it lies; beside `path` by default.
        retired: it holds what `path` was before, until the new one is in its place.
    """
    folder = path.parent if folder is None else folder
    sweep(folder)
    name = path.name
    if len(os.fsencode(name)) > _LONGEST:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:16] + path.suffix[:16]
    old = "-old" if retired else ""
    made = f".kdas-{_machine()}-{os.getpid()}-{secrets.token_hex(4)}{old}.{name}"
    _own.add(made)
    return folder / made


def sweep(folder: Path) -> None:
    """Remove what killed processes left unfinished in a folder; once per folder and process.

    A folder that such a process had set aside for its replacement gets its name back, if the
    replacement never came.
    """
    if folder in _swept:
        return
    _swept.add(folder)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in list(entries):
            if entry.name.startswith(".kdas-"):
                with contextlib.suppress(OSError):
                    _sweep_one(folder / entry.name)


def is_ours(name: str) -> bool:
    """Whether a file name is a temporary one or a lock of this package."""
    return name.startswith(LOCK_PREFIX) or _PATTERN.fullmatch(name) is not None


def machine_and_process() -> str:
    """Name this process among those that can be asked whether they live: `machine-pid`."""
    return f"{_machine()}-{os.getpid()}"


def is_alive(name: str) -> bool | None:
    """Whether the process of `machine_and_process` lives; None where that cannot be known."""
    machine, _, pid = name.partition("-")
    if machine != _machine() or not pid.isdigit():
        return None
    return _process_lives(int(pid))


def _sweep_one(path: Path) -> None:
    match = _PATTERN.fullmatch(path.name)
    if match is None or path.name in _own:
        return
    machine, pid, _, old, name = match.groups()
    alive = is_alive(f"{machine}-{pid}")
    if alive is None:
        alive = time.time() - path.lstat().st_mtime < _FOREIGN_SECONDS
    # this process has the number of a dead one if it does not know the name
    if alive and int(pid) != os.getpid():
        return
    if old and not (path.parent / name).exists():
        path.rename(path.parent / name)
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()


@functools.cache
def _machine() -> str:
    """Eight digits for the set of processes whose numbers this one can see."""
    name = platform.node()
    with contextlib.suppress(OSError):
        name += os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - no file, a name
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]


def _process_lives(pid: int) -> bool:
    if os.name == "nt":  # os.kill would end the process there
        import ctypes

        kernel = ctypes.windll.kernel32  # type: ignore[attr-defined,unused-ignore]
        handle = kernel.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
        if not handle:
            return False
        kernel.CloseHandle(handle)
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
