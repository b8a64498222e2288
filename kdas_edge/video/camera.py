"""A camera of this machine, read by OpenCV: its pictures are not coded, and need no decoder."""

import time
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.errors import UserError
from kdas_edge.video_files import Picture, plausible_fps


class Camera:
    """Pictures of a camera until it breaks off; the same attributes as `VideoDecoder`."""

    expected: int | None = None

    def __init__(self, number: int) -> None:
        """Open a camera.

        Raises:
            UserError: there is none of this number, or another program holds it.
        """
        # OpenCV would print a warning of its own above our line
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._capture = cv2.VideoCapture(number)
        if not self._capture.isOpened():
            self._capture.release()
            raise UserError(f"camera {number} cannot be opened; try another number")
        # one frame in the driver's queue, where it can be chosen: more is only delay
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self.fps = plausible_fps(self._capture.get(cv2.CAP_PROP_FPS))
        height = int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        width = int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        self.size = (height, width) if height > 0 and width > 0 else None

    def pictures(self) -> Iterator[Picture]:
        """Give the pictures as they come, until there is none."""
        # `grab` waits for the next picture, which is no work; converting is in `retrieve`
        while self._capture.grab():
            begun = time.perf_counter()
            good, image = self._capture.retrieve()
            if not good or image is None:
                return
            milliseconds = 1e3 * (time.perf_counter() - begun)
            yield Picture(True, None, milliseconds, lambda image=image: as_bgr(image))  # type: ignore[misc]

    def close(self) -> None:
        """Let go of the camera."""
        self._capture.release()


def as_bgr(image: object) -> NDArray[np.uint8]:
    """What `VideoCapture` gave as (H, W, 3) uint8; grey cameras give one channel."""
    frame = np.asarray(image, dtype=np.uint8)
    if frame.ndim == 2 or frame.shape[2] == 1:
        frame = np.asarray(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR), dtype=np.uint8)
    return frame
