"""How a command ends: whatever happens to its streams, on signals, on errors of every kind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kdas_edge.errors import GateError, UserError
from kdas_edge.process import describe

_WORK = """
import sys
from pathlib import Path
from kdas_edge.process import one_line_errors
with one_line_errors():
    for index in range(2000):
        print("step", index, "\u2013 \u00b5 \\udce9", flush=True)
        print("note", file=sys.stderr)
    Path(sys.argv[1]).write_text("done")
"""


def run(code: str, *arguments: object, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, check=False, **options)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("buffered", ["", "1"])
def test_work_is_done_when_the_reader_of_the_output_has_gone(tmp_path: Path, buffered: str) -> None:
    read, write = os.pipe()
    os.close(read)
    done = run(
        _WORK, tmp_path / "done", stdout=write, stderr=write,
        env={**os.environ, "PYTHONUNBUFFERED": buffered},
    )  # fmt: skip
    os.close(write)
    assert done.returncode == 0 and (tmp_path / "done").exists()


def test_a_full_output_is_one_line_after_the_work(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = run(_WORK, tmp_path / "done", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2 and (tmp_path / "done").exists()
    assert done.stderr.splitlines()[-1].startswith(b"error: cannot write the standard output")


def test_a_closed_output_does_not_lend_its_number_to_a_file(tmp_path: Path) -> None:
    code = 'import os; os.execv(os.sys.executable, [os.sys.executable, "-c", *os.sys.argv[1:]])'
    closing = "import os; os.close(1); os.close(2)\n" + code
    done = run(closing, _WORK, tmp_path / "done", stdout=subprocess.PIPE)
    assert done.returncode == 0 and (tmp_path / "done").read_text() == "done"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp932", "utf-8"])
def test_a_character_that_the_output_lacks_is_a_question_mark(
    tmp_path: Path, encoding: str
) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = run(
        _WORK, tmp_path / "done", stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].endswith(b"?") and b"step 1999" in done.stdout


_WAIT = """
import sys, time
from pathlib import Path
from kdas_edge.files import staged_directory
from kdas_edge.process import one_line_errors
with one_line_errors(), staged_directory(Path(sys.argv[1])) as staging:
    (staging / "half").write_text("half")
    print("begun", flush=True)
    time.sleep(30)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_removes_what_is_half_done_and_gives_its_own_code(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _WAIT, str(tmp_path / "out")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == b"begun\n"
    time.sleep(0.05)
    process.send_signal(number)
    _, error = process.communicate(timeout=20)
    assert process.returncode == 128 + number and error == b"interrupted\n"
    assert list(tmp_path.iterdir()) == []


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    code = (
        "import os, signal\n"
        "from kdas_edge.process import one_line_errors\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with one_line_errors():\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
    )
    assert run(code).returncode == 0


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UserError("size 3: too small"), 2, "size 3"),
        (GateError("lost 0.1"), 3, "lost"),
        (PermissionError(13, "Permission denied", "a/b"), 2, "a/b: Permission denied"),
        (MemoryError(), 2, "out of memory"),
        (RecursionError("maximum depth"), 2, "nested too deep"),
        (KeyError("x\ny"), 1, "a fault of kdas-edge"),
    ],
)
def test_every_exception_is_one_line(error: Exception, code: int, words: str) -> None:
    found, line = describe(error)
    assert found == code and words in line and "\n" not in line
