"""Progress and tables, as a person or a log file gets them."""

import pytest

from kdas_edge import console


def test_steps_of_a_stopped_run_do_not_shorten_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 1000.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    with console.progress(100, "steps", done=60) as advance:
        for _ in range(10):
            now += 3.0
            advance()
    # 3 s a step and 35 or 30 steps to go at the two lines
    assert capsys.readouterr().err.splitlines() == [
        "steps: 65/100, 105 s left",
        "steps: 70/100, 90 s left",
    ]


def test_without_a_known_end_the_steps_are_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    with console.progress(None, "frames") as advance:
        for _ in range(4):
            now += 10.0
            advance(note="a")
    assert capsys.readouterr().err.splitlines() == ["frames: 2 a", "frames: 4 a"]


def test_brackets_in_cells_headings_and_titles_are_shown_as_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console.table(
        "frames [old]", ["[bold]file"], [["pip install 'kdas-edge[train]'"], ["[/] [red]a.png"]]
    )
    shown = capsys.readouterr().out
    for text in ("frames [old]", "[bold]file", "'kdas-edge[train]'", "[/] [red]a.png"):
        assert text in shown
