import cv2
import pytest

from kdas_edge.errors import UserError
from kdas_edge.video.window import Window, missing_display


def build(gui: str) -> str:
    return f"  Video I/O:\n    FFMPEG:  YES\n  GUI:                           {gui}\n"


@pytest.mark.parametrize(
    ("gui", "display", "word"),
    [("NONE", ":0", "this OpenCV has no windows"), ("GTK3", "", "there is no display")],
)
def test_why_there_is_no_window_is_said_before_any_is_tried(monkeypatch, gui, display, word):
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: build(gui))
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(UserError, match=f"--show: {word}.*use --record"):
        Window("title")


def test_with_windows_and_a_display_nothing_is_missing(monkeypatch):
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: build("QT5"))
    monkeypatch.setenv("DISPLAY", ":0")
    assert missing_display() is None
