"""Check frames and regions of interest: channels, type, size."""

from typing import Literal, NamedTuple, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.errors import UserError

Color = Literal["bgr", "rgb", "gray", "bgra"]
_CHANNELS: dict[str, int] = {"bgr": 3, "rgb": 3, "gray": 1, "bgra": 4}
_CONVERSIONS = {"gray": cv2.COLOR_GRAY2BGR, "bgra": cv2.COLOR_BGRA2BGR}
# fewer pixels than this a side are no picture but a mistake
SMALLEST_ROI = 8


class Roi(NamedTuple):
    """A rectangle of a frame, in pixels: left, top, width and height."""

    x: int
    y: int
    width: int
    height: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, to index a frame or its mask with."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)


def check_frame(frame: object, color: str = "bgr") -> None:
    """Refuse anything but a uint8 array with pixels, shaped as its colour says.

    Args:
        frame: (H, W, 3) for `bgr` and `rgb`, (H, W, 4) for `bgra`, (H, W) or (H, W, 1) for `gray`.
        color: order of the channels.

    Raises:
        UserError: names what was given and how to convert it.
    """
    if color not in _CHANNELS:
        raise UserError(f"color {color!r} is unknown; choose {', '.join(get_args(Color))}")
    if not isinstance(frame, np.ndarray):
        raise UserError(f"a frame is a NumPy array (H, W, 3) uint8, not {type(frame).__name__}")
    if frame.dtype != np.uint8:
        raise UserError(f"a frame holds uint8 values 0–255, not {frame.dtype}; convert it")
    channels = 1 if frame.ndim == 2 else frame.shape[2] if frame.ndim == 3 else None
    if channels != _CHANNELS[color] or (channels == 1 and color != "gray"):
        wanted = "(H, W)" if color == "gray" else f"(H, W, {_CHANNELS[color]})"
        raise UserError(
            f"a frame of color {color!r} has the shape {wanted}, not {frame.shape}; "
            f"{_suggestion(channels)}"
        )
    if frame.size == 0:
        raise UserError(f"the frame of shape {frame.shape} has no pixel; check the source")


def to_three_channels(frame: NDArray[np.uint8], color: str) -> NDArray[np.uint8]:
    """Make grey and BGRA frames BGR; `bgr` and `rgb` frames are returned as they are."""
    conversion = _CONVERSIONS.get(color)
    if conversion is None:
        return frame
    return cv2.cvtColor(frame, conversion)  # type: ignore[return-value]


def check_roi(roi: object, height: int, width: int) -> Roi:
    """Read a region of interest and make sure that it lies in the frame.

    Args:
        roi: four whole numbers x, y, width, height.
        height: of the frame.
        width: of the frame.

    Raises:
        UserError: not four whole numbers, too small, or partly outside.
    """
    try:
        values = [int(value) for value in roi]  # type: ignore[attr-defined]
        whole = all(value == given for value, given in zip(values, roi, strict=True))  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        values, whole = [], False
    if len(values) != 4 or not whole:
        raise UserError(
            f"roi {roi!r} is not (x, y, width, height) in whole pixels; "
            'give four numbers, "auto", or None for the whole frame'
        )
    found = Roi(*values)
    if found.width < SMALLEST_ROI or found.height < SMALLEST_ROI:
        raise UserError(
            f"roi {tuple(found)} is smaller than {SMALLEST_ROI}×{SMALLEST_ROI} pixels; enlarge it"
        )
    inside = (
        found.x >= 0
        and found.y >= 0
        and found.x + found.width <= width
        and found.y + found.height <= height
    )
    if not inside:
        raise UserError(
            f"roi {tuple(found)} leaves the frame of {width}×{height} pixels; "
            "x + width and y + height must fit"
        )
    return found


def _suggestion(channels: int | None) -> str:
    """How to say, or to make, what the array seems to be."""
    if channels == 1:
        return 'say color="gray", or convert it with cv2.cvtColor'
    if channels == 4:
        return 'say color="bgra", or convert it with cv2.cvtColor'
    if channels == 3:
        return 'say color="bgr" or "rgb"'
    return "give one frame at a time, its channels last"
