"""A live window, where OpenCV can open one."""

import os
import re
import sys

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.errors import UserError

# q and Escape
_LEAVE = (ord("q"), 27)


class Window:
    """Shows overlays; used from the main thread only, as macOS demands it."""

    def __init__(self, title: str) -> None:
        """Open the window.

        Raises:
            UserError: this OpenCV has no windows, or there is no display.
        """
        # asked before any attempt: some toolkits end the process where there is no display
        reason = missing_display()
        if reason is not None:
            raise UserError(f"--show: {reason}; leave it out and use --record")
        self._title = title
        self._shown: NDArray[np.uint8] | None = None
        try:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL)
        except cv2.error:
            raise UserError("--show: the window cannot be opened; use --record") from None

    def show(self, picture: NDArray[np.uint8] | None) -> bool:
        """Show the newest picture, if there is a new one.

        Returns:
            False once the person has closed the window or pressed q or Escape.
        """
        if picture is not None and picture is not self._shown:
            cv2.imshow(self._title, picture)
            self._shown = picture
        if cv2.waitKey(1) & 0xFF in _LEAVE:
            return False
        return cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1

    def close(self) -> None:
        """Close the window."""
        cv2.destroyWindow(self._title)


def missing_display() -> str | None:
    """Why no window can be opened here, or None if one can."""
    found = re.search(r"^\s*GUI:\s*(\S+)", cv2.getBuildInformation(), re.MULTILINE)
    if found is not None and found.group(1) == "NONE":
        return "this OpenCV has no windows (opencv-python-headless has none, opencv-python does)"
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return "there is no display (neither DISPLAY nor WAYLAND_DISPLAY is set)"
    return None
