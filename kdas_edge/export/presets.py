"""The inputs that a model file can have: who resizes, who normalises, in which layout.

A preset is an input contract and the little graph before the `core` one that fulfils it.
"""

from types import ModuleType
from typing import Any

from kdas_edge.bundle.manifest import InputContract, Normalisation, Preset
from kdas_edge.bundle.metadata import VALUE_RANGES

# holoscan is for one host and written on request
DEFAULT_PRESETS: tuple[Preset, ...] = ("core", "camera")
# names of the inputs and of the output in every file
INPUT, CAMERA_INPUT, HOLOSCAN_INPUT = "image", "frame", "rgb"
OUTPUT = "probabilities"


def with_input(
    room: ModuleType, core: Any, preset: Preset, normalisation: Normalisation, size: int
) -> Any:
    """Put a preset's preprocessing before a `core` graph.

    Args:
        room: `kdas_edge.export.openvino` or `kdas_edge.export.onnx.export`.
        core: graph of that room.
        preset: which input.
        normalisation: of the network.
        size: side S, in pixels.
    """
    if preset == "camera":
        return room.with_camera_input(core, normalisation, size)
    if preset == "holoscan":
        return room.with_holoscan_input(core, normalisation, size)
    return core


def input_contract(preset: Preset, size: int) -> InputContract:
    """What the manifest says of a preset's input."""
    if preset == "camera":
        return InputContract(
            name=CAMERA_INPUT,
            shape=(1, -1, -1, 3),
            layout="NHWC",
            dtype="uint8",
            color="BGR",
            normalised=False,
            resize="in the graph: PIL's antialiased bilinear filter",
            value_range=VALUE_RANGES[preset],
        )
    if preset == "holoscan":
        return InputContract(
            name=HOLOSCAN_INPUT,
            shape=(1, size, size, 3),
            layout="NHWC",
            dtype="float32",
            color="RGB",
            normalised=False,
            resize="by the host: antialiased (PIL's bilinear filter; NPP's SUPER is the nearest)",
            value_range=VALUE_RANGES[preset],
        )
    return InputContract(
        name=INPUT,
        shape=(1, 3, size, size),
        layout="NCHW",
        dtype="float32",
        color="RGB",
        normalised=True,
        resize="by the host: PIL's antialiased bilinear filter",
        value_range=VALUE_RANGES[preset],
    )
