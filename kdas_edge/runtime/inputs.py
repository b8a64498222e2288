"""Preprocessing: from one frame to the input of each preset of a model file."""

import functools
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.bundle.manifest import Manifest, Normalisation, Preset
from kdas_edge.data.layout import resize_image
from kdas_edge.runtime.frames import check_frame

# full intensity of a channel; one division per value, exact to the last bit of float32
_UNIT = np.arange(256, dtype=np.float32) / np.float32(255)


@dataclass(frozen=True)
class InputSpec:
    """The input of a network that belongs to no bundle yet.

    Attributes:
        size: side S, in pixels.
        normalisation: mean and standard deviation per RGB channel, of 0…1.
    """

    size: int
    normalisation: Normalisation


def model_input(
    frame_rgb: NDArray[np.uint8], spec: Manifest | InputSpec, preset: Preset
) -> NDArray[np.generic]:
    """Make the input of a model of any preset.

    Args:
        frame_rgb: (H, W, 3) uint8 RGB of any size.
        spec: the manifest of the bundle that holds the model, or side and normalisation alone.
        preset: of the model.

    Returns:
        core: (1, 3, S, S) float32, normalised. camera: (1, H, W, 3) uint8 BGR. holoscan:
        (1, S, S, 3) float32 RGB of 0…1.

    Raises:
        UserError: the frame has another shape or type, or no pixel.
    """
    if preset == "core":
        return preprocess(frame_rgb, spec)
    check_frame(frame_rgb)
    if preset == "camera":
        return np.ascontiguousarray(frame_rgb[np.newaxis, ..., ::-1])
    return _UNIT[resize_image(frame_rgb, spec.size, spec.size)][np.newaxis]


def preprocess(frame_rgb: NDArray[np.uint8], spec: Manifest | InputSpec) -> NDArray[np.float32]:
    """Make the input of a `core` model.

    Args:
        frame_rgb: (H, W, 3) uint8 RGB of any size.
        spec: gives the side S and the normalisation.

    Returns:
        (1, 3, S, S) float32.

    Raises:
        UserError: the frame has another shape or type, or no pixel.
    """
    check_frame(frame_rgb)
    small = resize_image(frame_rgb, spec.size, spec.size)
    out = np.empty((1, 3, spec.size, spec.size), dtype=np.float32)
    normalise([small[..., channel] for channel in range(3)], spec.normalisation, out)
    return out


def normalise(
    planes_rgb: list[NDArray[np.uint8]], normalisation: Normalisation, out: NDArray[np.float32]
) -> None:
    """Write `(x / 255 - mean) / std` by table: 256 exact values per channel.

    Args:
        planes_rgb: red, green and blue, (S, S) uint8 each.
        normalisation: of the network.
        out: (1, 3, S, S) float32.
    """
    for plane, levels, target in zip(planes_rgb, _table(normalisation), out[0], strict=True):
        cv2.LUT(plane, levels, dst=target)


@functools.lru_cache(maxsize=16)
def _table(normalisation: Normalisation) -> NDArray[np.float32]:
    mean = np.asarray(normalisation.mean, dtype=np.float32)[:, np.newaxis]
    std = np.asarray(normalisation.std, dtype=np.float32)[:, np.newaxis]
    table: NDArray[np.float32] = (_UNIT - mean) / std
    return table
