"""Input presets of model files: who resizes, who normalises, in which layout.

A preset is an input contract and the graph before the `core` one that implements it.
"""

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdas_edge.bundle.manifest import InputContract, Normalisation, Preset
from kdas_edge.bundle.metadata import VALUE_RANGES

# holoscan is for one host and written on request
DEFAULT_PRESETS: tuple[Preset, ...] = ("core", "camera")
# names of the inputs and of the output in every file
INPUT, CAMERA_INPUT, HOLOSCAN_INPUT = "image", "frame", "rgb"
OUTPUT = "probabilities"


def with_input(
    exporter: ModuleType, core: Any, preset: Preset, normalisation: Normalisation, size: int
) -> Any:
    """Put a preset's preprocessing before a `core` graph.

    Args:
        exporter: `kdas_edge.export.openvino` or `kdas_edge.export.onnx.export`.
        core: graph of that exporter.
        preset: which input.
        normalisation: of the network.
        size: side S, in pixels.
    """
    if preset == "camera":
        return exporter.with_camera_input(core, normalisation, size)
    if preset == "holoscan":
        return exporter.with_holoscan_input(core, normalisation, size)
    return core


def scale_and_shift(
    normalisation: Normalisation, full: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Write `(x / full - mean) / std` as `x * scale + shift`.

    Args:
        normalisation: mean and standard deviation per RGB channel, of 0…1.
        full: value of full intensity, e.g. 255.

    Returns:
        scale and shift, (1, 3, 1, 1) float32 each.
    """
    mean = full * np.asarray(normalisation.mean, np.float64)
    std = full * np.asarray(normalisation.std, np.float64)
    scale, shift = (1 / std).reshape(1, 3, 1, 1), (-mean / std).reshape(1, 3, 1, 1)
    return scale.astype(np.float32), shift.astype(np.float32)


def input_contract(preset: Preset, size: int) -> InputContract:
    """Describe a preset's input for the manifest."""
    choices: dict[Preset, dict[str, Any]] = {
        "core": {
            "name": INPUT,
            "shape": (1, 3, size, size),
            "layout": "NCHW",
            "resize": "by the host: PIL's antialiased bilinear filter",
        },
        "camera": {
            "name": CAMERA_INPUT,
            "shape": (1, -1, -1, 3),
            "layout": "NHWC",
            "resize": "in the graph: PIL's antialiased bilinear filter",
        },
        "holoscan": {
            "name": HOLOSCAN_INPUT,
            "shape": (1, size, size, 3),
            "layout": "NHWC",
            "resize": "by the host: antialiased (PIL's bilinear filter; "
            "NPP's SUPER is the nearest)",
        },
    }
    return InputContract(
        **choices[preset],
        dtype="uint8" if preset == "camera" else "float32",
        color="BGR" if preset == "camera" else "RGB",
        normalised=preset == "core",
        value_range=VALUE_RANGES[preset],
    )
