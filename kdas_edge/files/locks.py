"""One writer for one output: a lock that names its holder and ends with its process."""

import contextlib
import json
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from kdas_edge.errors import UserError
from kdas_edge.files.outputs import folder_for_temporaries, is_stream, make_parents
from kdas_edge.files.temporary import LOCK_PREFIX, is_alive, machine_and_process

_held: set[str] = set()


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Be the only process that writes `path`, a file or a folder that need not exist yet.

    The lock is a small hidden file beside `path`; the operating system gives it back when the
    process ends, however it ends. A lock within a lock of the same process on the same path is no
    conflict, and what is no regular file or folder (standard output, a pipe, a device) is not
    locked.

    Raises:
        UserError: another process holds it; the message names that process. Or the folder cannot
            be written.
    """
    if is_stream(path):
        yield
        return
    target = Path(os.path.realpath(path))
    key = str(target)
    if key in _held:
        yield
        return
    folder = folder_for_temporaries(target)
    made = make_parents(folder / "lock")
    file = None
    name = folder / f"{LOCK_PREFIX}{target.name[:64]}"
    try:
        file = _acquire(name, path)
        _held.add(key)
        yield
    finally:
        _held.discard(key)
        if file is not None:
            # removed while it is held: a process that waits for this very file tries again
            with contextlib.suppress(OSError):
                name.unlink()
            file.close()
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()  # only where nothing was written after all


def _acquire(name: Path, path: Path) -> IO[bytes]:
    while True:
        try:
            file = os.fdopen(os.open(name, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
        except OSError as error:
            raise UserError(
                f"cannot write {path}: {error.strerror}; choose a folder that can be written"
            ) from error
        try:
            if not _try(file.fileno(), _holder(file)):
                raise UserError(
                    f"{path} is being written by {_holder(file).get('who', 'another process')}; "
                    "wait until it has ended, or choose another output"
                )
            # the holder before may have removed the file between our open and our lock
            if not name.exists() or not os.path.samestat(name.stat(), os.fstat(file.fileno())):
                file.close()
                continue
            command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:120]
            who = f"process {os.getpid()} on {platform.node()} ({command})"
            content = json.dumps({"process": machine_and_process(), "who": who}).encode()
            file.seek(0)
            file.truncate()
            file.write(content)
            return file
        except BaseException:
            file.close()
            raise


def _holder(file: IO[bytes]) -> dict[str, str]:
    try:
        file.seek(0)
        found = json.loads(file.read(4096))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def _try(descriptor: int, holder: dict[str, str]) -> bool:
    """Take the lock without waiting; false if another process has it."""
    try:
        if os.name == "nt":
            import msvcrt

            # a byte far behind the text: Windows lets nobody else read what is locked
            os.lseek(descriptor, 2**30, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        # a file system without locks: the holder's process is all there is to ask
        return not is_alive(holder.get("process", ""))
    return True
