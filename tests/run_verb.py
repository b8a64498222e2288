"""Run a verb of the command line in this process, as `kdas-edge` would."""

import sys
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


def run_verb(capsys: pytest.CaptureFixture[str], *arguments: object) -> Done:
    """Call the command line with these arguments; return exit code and output."""
    from kdas_edge.cli import main

    before, sys.argv = sys.argv, ["kdas-edge", *map(str, arguments)]
    capsys.readouterr()
    try:
        main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.argv = before
    captured = capsys.readouterr()
    return Done(code, captured.out, captured.err)


def only_line(done: Done) -> str:
    """The one line that a person sees when the input is wrong."""
    lines = done.err.strip().splitlines()
    assert done.code == 2, done
    assert len(lines) == 1, done.err
    assert lines[0].startswith("error: "), done.err
    return lines[0]
