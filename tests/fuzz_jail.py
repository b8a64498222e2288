"""A folder in which the command line runs in this process while every write is watched."""

import contextlib
import io
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdas_edge.cli import main

LONGEST = 20.0
# audit events whose first argument (and second, of a rename) is a path that changes
_CHANGES = {
    "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate",
    "shutil.rmtree", "os.chmod",
}  # fmt: skip

_watching: list[list[str]] = []
_hooked = False


@dataclass
class Outcome:
    """How a command ended.

    Attributes:
        faults: what must not happen, one line each; empty where all is well.
        code: the exit code.
        shown: what it wrote on its streams.
    """

    code: int
    shown: str
    faults: list[str] = field(default_factory=list)


class Jail:
    """A home, a temporary folder and a working folder; nothing outside may be written."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.realpath(root))
        # two levels down, so that .. is still inside
        self.work = self.root / "a" / "b"
        for folder in ("home", "tmp", "a/b"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)

    def clear(self) -> None:
        """Empty the working folder."""
        shutil.rmtree(self.root / "a")
        self.work.mkdir(parents=True)

    def run(self, arguments: Sequence[str], outputs: Sequence[str] = ()) -> Outcome:
        """Run the command line; `outputs` are the paths in the working folder that it may write."""
        before = self._files()
        begun = time.monotonic()
        written: list[str] = []
        with self._inside(), _watched(written), _time_limit(LONGEST * _busy()):
            code, out, error = _main(arguments)
        seconds = time.monotonic() - begun
        outcome = Outcome(code, out + error)
        if "Traceback" in outcome.shown or code not in (0, 2, 3):
            lines = [line for line in error.splitlines() if line.startswith("error")]
            where = [line.strip() for line in error.splitlines() if "kdas_edge/" in line]
            outcome.faults.append(f"exit {code}: {(lines or ['?'])[-1][:300]} {where[-1:]}")
        if code == 2 and sum(line.startswith("error: ") for line in error.splitlines()) > 1:
            outcome.faults.append(f"more than one line of error: {error[-300:]}")
        if seconds > LONGEST * _busy():
            outcome.faults.append(f"{seconds:.0f} s")
        allowed = [str(self.work / output) for output in outputs]
        for path, stamp in self._files().items():
            inside = any(path == one or path.startswith(one + os.sep) for one in allowed)
            if before.get(path) != stamp and not inside:
                outcome.faults.append(f"wrote {path[len(str(self.root)) :]}")
        gone = [path for path in before if not os.path.lexists(path)]
        outcome.faults += [
            f"removed {path}" for path in gone if not path.startswith(tuple(allowed))
        ]
        outcome.faults += [f"wrote outside: {path}" for path in written if self._outside(path)]
        return outcome

    def _files(self) -> dict[str, tuple[int, int, int]]:
        found = {}
        for folder, names, files in os.walk(self.root):
            for name in (*names, *files):
                path = os.path.join(folder, name)  # noqa: PTH118 - many, and quick
                status = os.lstat(path)
                is_folder = name in names
                found[path] = (
                    status.st_ino,
                    0 if is_folder else status.st_size,
                    0 if is_folder else status.st_mtime_ns,
                )
        return found

    def _outside(self, path: str) -> bool:
        full = os.path.realpath(self.work / path)
        return not full.startswith((str(self.root) + os.sep, "/dev/", "/proc/"))

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        before, folder, temporary = dict(os.environ), Path.cwd(), tempfile.tempdir
        os.environ |= {
            "HOME": str(self.root / "home"),
            "TMPDIR": str(self.root / "tmp"),
            "KDAS_EDGE_TRACEBACK": "1",
            "COLUMNS": "200",
        }
        for name in ("XDG_CACHE_HOME", "RANK", "WORLD_SIZE"):
            os.environ.pop(name, None)
        tempfile.tempdir = str(self.root / "tmp")
        os.chdir(self.work)
        try:
            yield
        finally:
            os.chdir(folder)
            tempfile.tempdir = temporary
            os.environ.clear()
            os.environ.update(before)


def _main(arguments: Sequence[str]) -> tuple[int, str, str]:
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", errors="replace") for _ in range(2)]
    before = sys.argv, sys.stdout, sys.stderr
    sys.argv, sys.stdout, sys.stderr = ["kdas-edge", *arguments], *streams
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.argv, sys.stdout, sys.stderr = before
    texts = []
    for stream in streams:
        stream.flush()
        texts.append(stream.buffer.getvalue().decode(errors="replace"))  # type: ignore[attr-defined]
    return code, texts[0], texts[1]


def _busy() -> float:
    """How much longer everything takes where other processes share the processors."""
    return max(1.0, 1.5 * os.getloadavg()[0] / (os.cpu_count() or 1))


class _TooLong(BaseException):
    pass


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def end(number: int, frame: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds + 5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _watched(written: list[str]) -> Iterator[None]:
    """Collect the paths that Python code of this process changes."""
    global _hooked
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked = True
    _watching.append(written)
    try:
        yield
    finally:
        _watching.pop()


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if not _watching:
        return
    if event == "open":
        path, _, flags = arguments
        if (
            isinstance(path, str | bytes)
            and isinstance(flags, int)
            and (flags & (os.O_WRONLY | os.O_RDWR))
        ):
            _watching[-1].append(os.fsdecode(path))
    elif event in _CHANGES:
        _watching[-1].extend(
            os.fsdecode(one) for one in arguments[:2] if isinstance(one, str | bytes)
        )
