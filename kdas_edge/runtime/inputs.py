"""What each preset of a model file is fed with, from one frame."""

import numpy as np
from numpy.typing import NDArray

from kdas_edge.bundle.manifest import Manifest, Preset
from kdas_edge.data.layout import resize_image
from kdas_edge.runtime.segmenter import check_frame, preprocess

# full intensity of a channel; one division per value, exact to the last bit of float32
_UNIT = np.arange(256, dtype=np.float32) / np.float32(255)


def model_input(
    frame_rgb: NDArray[np.uint8], manifest: Manifest, preset: Preset
) -> NDArray[np.generic]:
    """Make the input of a model of any preset.

    Args:
        frame_rgb: (H, W, 3) uint8 RGB of any size.
        manifest: of the bundle that holds the model.
        preset: of the model.

    Returns:
        core: (1, 3, S, S) float32, normalised. camera: (1, H, W, 3) uint8 BGR. holoscan:
        (1, S, S, 3) float32 RGB of 0…1.

    Raises:
        UserError: the frame has another shape or type, or no pixel.
    """
    if preset == "core":
        return preprocess(frame_rgb, manifest)
    check_frame(frame_rgb)
    if preset == "camera":
        return np.ascontiguousarray(frame_rgb[np.newaxis, ..., ::-1])
    return _UNIT[resize_image(frame_rgb, manifest.size, manifest.size)][np.newaxis]
