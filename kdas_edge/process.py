"""How a command of this package ends: streams that cannot fail it, signals, errors as one line."""

import contextlib
import errno
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from kdas_edge.errors import KdasEdgeError

# set to show where an error that is a fault of this package was raised
TRACEBACK_VARIABLE = "KDAS_EDGE_TRACEBACK"

_received: list[int] = []


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Run a command and end the process with its exit code; an error is one line.

    Within the block a standard output that is closed, full, or cannot show a character does not
    disturb the work; SIGTERM and SIGHUP end it as Ctrl-C does, so that what is done is kept and
    what is half-written is removed.

    Raises:
        SystemExit: always. 0; 2 where a person's input or the machine is at fault; 3 where a gate
            failed; 128 + the signal's number (130 for Ctrl-C); 1 for a fault of this package.
    """
    output = _lenient("stdout")
    _lenient("stderr")
    _received.clear()
    with handle_signals(_interrupt):
        try:
            yield
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
            if isinstance(error.code, str):
                _say(error.code)
        except KeyboardInterrupt:
            code = 128 + signal.SIGINT
        except BaseException as error:
            code, line = describe(error)
            _say(f"error: {line}")
            if code == 1 and os.environ.get(TRACEBACK_VARIABLE):
                traceback.print_exc()
    # a live source has no other end than Ctrl-C, which is no failure then
    if _received and (code or _received[0] != signal.SIGINT):
        code = 128 + _received[0]
    if code > 128:
        _say("interrupted")
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    failure = output.error if output is not None else None
    # a pipe whose reader has seen enough (`| head`) is no error
    if failure is not None and failure.errno not in (errno.EPIPE, errno.EINVAL) and code == 0:
        _say(f"error: cannot write the standard output: {failure.strerror}; make room")
        code = 2
    sys.exit(code)


def describe(error: BaseException) -> tuple[int, str]:
    """Return the exit code and the one line for an exception that ends a command."""
    if isinstance(error, KdasEdgeError):
        return error.exit_code, " ".join(str(error).split("\n"))
    if isinstance(error, MemoryError):
        return 2, "out of memory; take fewer or smaller images, or another machine"
    if isinstance(error, RecursionError):
        return 2, "a file is nested too deep to be read; check the files that were named"
    if isinstance(error, OSError) and error.strerror:
        named = f" {error.filename}" if error.filename is not None else ""
        return 2, f"the system refuses{named}: {error.strerror}; check the path and its rights"
    message = " ".join(str(error).split())[:300]
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "kdas_edge" in frame.filename] or frames
    where = f" at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
    return 1, (
        f"{type(error).__name__}{where}: {message}; this is a fault of kdas-edge, please report "
        f"it ({TRACEBACK_VARIABLE}=1 shows where)"
    )


class _Lenient(io.RawIOBase):
    """A stream that drops what cannot be written and remembers why.

    Attributes:
        error: the first error, or None.
    """

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                written: int | None = self._raw.write(data)
                return 0 if written is None else written
            except OSError as error:
                self.error = error
        return len(data)

    def fileno(self) -> int:
        found: int = self._raw.fileno()
        return found

    def isatty(self) -> bool:
        return bool(self._raw.isatty())


def _lenient(name: str) -> _Lenient | None:
    """Make a standard stream lenient; None where it is none of the system's (in a test)."""
    stream: TextIO | None = getattr(sys, name)
    if stream is None:
        # closed by the caller (`>&-`): without this the next file would get its number
        _occupy_standard_descriptors()
        setattr(sys, name, open(os.devnull, "w", errors="replace"))  # noqa: SIM115, PTH123
        return None
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # PYTHONUNBUFFERED: there is no buffer
    if not isinstance(raw, io.RawIOBase):
        return None
    with contextlib.suppress(OSError):
        stream.flush()
    lenient = _Lenient(raw)
    made = io.TextIOWrapper(
        io.BufferedWriter(lenient),
        encoding=stream.encoding,
        errors="replace",
        line_buffering=name == "stderr" or stream.isatty(),
    )
    setattr(sys, name, made)
    return lenient


def _occupy_standard_descriptors() -> None:
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one


@contextlib.contextmanager
def handle_signals(handler: Callable[[int], None]) -> Iterator[None]:
    """Call `handler` with the number of SIGINT, SIGTERM or SIGHUP while the block runs.

    What comes is remembered for the exit code of `one_line_errors`. Outside the main thread nothing
    is changed: there the signals belong to the host program. A signal that is ignored (`nohup`)
    stays ignored.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        _received.append(number)
        handler(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _interrupt(number: int) -> None:
    raise KeyboardInterrupt


def _say(line: str) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(line, file=sys.stderr, flush=True)
