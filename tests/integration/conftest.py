"""Fixtures of the tests of whole verbs."""

import sys
from collections.abc import Callable

import pytest

from kdas_edge.cli import main


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run a verb in this process: arguments to exit code, standard output and error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kdas-edge", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
            raise SystemExit(0)
        shown = capsys.readouterr()
        return int(stopped.value.code or 0), shown.out, shown.err

    return call
