"""Export a torch network to OpenVINO IR, float or int8, with the preprocessing of each preset."""

import contextlib
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from kdas_edge.bundle.manifest import Normalisation, Precision
from kdas_edge.export.graph import DeployGraph
from kdas_edge.export.presets import CAMERA_INPUT, HOLOSCAN_INPUT, INPUT, OUTPUT, scale_and_shift
from kdas_edge.quantize.weight_scales import rounded_weights

if TYPE_CHECKING:
    import openvino as ov

# What the converter notes about itself; it differs between machines and is no part of the model.
_CONVERTER_NOTES = ("conversion_parameters", "is_python_object", "legacy_frontend")
# OpenVINO numbers unnamed layers with a counter of the process: Multiply_1234
_NUMBERED = re.compile(r"^[A-Za-z0-9]+_\d+$")
# output lines of one product of the camera's resize; two threads, 1920×1080: 10 to 12 ms with 16 to
# 44 of them, 16 ms with 88, 47 ms with all
_BAND = 32


def to_openvino(network: nn.Module, size: int) -> "ov.Model":
    """Convert a float or NNCF-quantised network as the `core` preset.

    Args:
        network: returns logits `(z1, z2)`; put in eval mode here.
        size: side S of the square input, in pixels.

    Returns:
        A model (1, 3, S, S) float32 normalised RGB to (1, 2, S, S) probabilities, all static.
    """
    ov = import_openvino()
    graph = DeployGraph(network).eval()
    example = torch.zeros(1, 3, size, size, device=next(network.parameters()).device)
    with (
        warnings.catch_warnings(),
        torch.no_grad(),
        contextlib.redirect_stdout(None),
        rounded_weights(network, example),
    ):
        warnings.simplefilter("ignore")
        model = ov.convert_model(
            graph,
            example_input=example,
            input=[1, 3, size, size],
        )
    _set_names(model, INPUT, "NCHW")
    return model


def with_camera_input(core: "ov.Model", normalisation: Normalisation, size: int) -> "ov.Model":
    """Put the camera's preprocessing before a `core` model: resize, colour, mean and std.

    The resize is PIL's antialiased bilinear filter, the one that trained: every other costs up to
    seven thousandths of Dice. It is written as matrix products, because OpenVINO's own
    `RESIZE_BILINEAR_PILLOW` gives the same pixels (0.5 % differ, by one grey level) but takes
    four times as long as two dense products (one thread, 1920×1080: 118 ms, 29 ms) and builds its
    tables anew, for seconds, at each new frame size. Nearly all of a dense filter is zero, so that
    each product makes a few output lines, of the input lines that they read; that is four times as
    fast again.

    Args:
        core: from `to_openvino`; it is not changed.
        normalisation: mean and standard deviation per RGB channel, of 0…1.
        size: side S, in pixels.

    Returns:
        A model that takes (1, H, W, 3) uint8 BGR of any height and width.
    """
    ov = import_openvino()
    from openvino import opset13 as op

    frame = op.parameter(ov.PartialShape([1, -1, -1, 3]), ov.Type.u8, name=CAMERA_INPUT)
    zero = op.constant(np.int64(0))
    lengths = op.convert(op.shape_of(frame), "f32")
    height = op.gather(lengths, op.constant(np.int64(1)), zero)
    width = op.gather(lengths, op.constant(np.int64(2)), zero)

    planes = op.transpose(frame, op.constant(np.asarray([0, 3, 1, 2], np.int64)))
    # PIL filters horizontally first and rounds to whole grey levels after each pass
    columns = [
        op.matmul(op.convert(band.of(planes, axis=3), "f32"), band.weights, False, True)
        for band in _triangle_filter(width, size)
    ]
    narrow = op.round(op.concat(columns, axis=3), "half_away_from_zero")  # (1, 3, H, S)
    rows = [
        op.matmul(band.weights, band.of(narrow, axis=2), False, False)
        for band in _triangle_filter(height, size)
    ]
    small = op.concat(rows, axis=2)
    small = op.round(small, "half_away_from_zero")  # (1, 3, S, S)
    rgb = op.gather(small, op.constant(np.asarray([2, 1, 0], np.int64)), op.constant(np.int64(1)))
    normalised = _normalised(rgb, normalisation, 255.0)
    model = _prepend(core, frame, normalised)
    _set_names(model, CAMERA_INPUT, "NHWC")
    return model


def with_holoscan_input(core: "ov.Model", normalisation: Normalisation, size: int) -> "ov.Model":
    """Let a `core` model take what NVIDIA Holoscan's FormatConverterOp gives.

    Args:
        core: from `to_openvino`; it is not changed.
        normalisation: mean and standard deviation per RGB channel, of 0…1.
        size: side S, in pixels.

    Returns:
        A model that takes (1, S, S, 3) float32 RGB of 0…1, all static.
    """
    ov = import_openvino()
    from openvino import opset13 as op

    image = op.parameter(ov.PartialShape([1, size, size, 3]), ov.Type.f32, name=HOLOSCAN_INPUT)
    planes = op.transpose(image, op.constant(np.asarray([0, 3, 1, 2], np.int64)))
    model = _prepend(core, image, _normalised(planes, normalisation, 1.0))
    _set_names(model, HOLOSCAN_INPUT, "NHWC")
    return model


def _normalised(rgb: "ov.Node", normalisation: Normalisation, full: float) -> "ov.Node":
    """`(x / full - mean) / std` on (1, 3, S, S), as one product and one sum."""
    from openvino import opset13 as op

    scale, shift = scale_and_shift(normalisation, full)
    return op.add(op.multiply(rgb, op.constant(scale)), op.constant(shift))


def _prepend(core: "ov.Model", source: "ov.Node", prepared: "ov.Node") -> "ov.Model":
    """Copy `core` so that it reads `prepared`, a function of the new input `source`."""
    ov = import_openvino()
    body = core.clone()
    for consumer in body.input(0).get_target_inputs():
        consumer.replace_source_output(prepared.output(0))
    return ov.Model(body.get_results(), [source])


@dataclass(frozen=True)
class _Band:
    """Some neighbouring output lines of a filter, and the input lines that they read.

    `begin` and `end` are (1) int64, `weights` is (output lines, end - begin) float32.
    """

    begin: "ov.Node"
    end: "ov.Node"
    weights: "ov.Node"

    def of(self, values: "ov.Node", axis: int) -> "ov.Node":
        """The input lines."""
        from openvino import opset13 as op

        step, along = (op.constant(np.asarray([v], np.int64)) for v in (1, axis))
        return op.slice(values, self.begin, self.end, step, along)


def _triangle_filter(length: "ov.Node", size: int) -> list[_Band]:
    """PIL's bilinear filter from L pixels to S, L known when a frame comes.

    The triangle is as wide as one output pixel when shrinking, one input pixel when enlarging
    (Pillow, `src/libImaging/Resample.c`), and cut off where the frame ends.
    """
    from openvino import opset13 as op

    one, half = op.constant(np.float32(1)), op.constant(np.float32(0.5))
    scale = op.divide(length, op.constant(np.float32(size)))
    reach = op.maximum(scale, one)

    def index(place: "ov.Node") -> "ov.Node":
        whole = op.convert(place, "i64")
        return op.reshape(whole, op.constant(np.asarray([1], np.int64)), False)

    bands = []
    for first in range(0, size, _BAND):
        lines = np.arange(first, min(first + _BAND, size), dtype=np.float32)[:, None] + 0.5
        centres = op.multiply(op.constant(lines), scale)
        lowest, highest = (op.multiply(op.constant(lines[end, 0]), scale) for end in (0, -1))
        begin = op.relu(op.floor(op.subtract(lowest, reach)))
        end = op.minimum(op.ceiling(op.add(highest, reach)), length)
        pixels = op.range(op.add(begin, half), op.add(end, half), one, output_type="f32")
        distance = op.divide(op.absolute(op.subtract(pixels, centres)), reach)
        weights = op.relu(op.subtract(one, distance))
        total = op.reduce_sum(weights, op.constant(np.asarray([1], np.int64)), keep_dims=True)
        bands.append(_Band(index(begin), index(end), op.divide(weights, total)))
    return bands


def save_openvino(
    model: "ov.Model", path: Path, metadata: dict[str, str], precision: Precision = "fp32"
) -> None:
    """Write `path` (.xml) and the .bin beside it, with the metadata in `rt_info/model_info`.

    Args:
        model: from `to_openvino` or `with_camera_input`.
        path: of the `.xml`.
        metadata: key to value.
        precision: `fp16` stores the constants in 16 bits; otherwise they keep theirs, because
            `compress_to_fp16` would change an fp32 model silently.
    """
    ov = import_openvino()
    for key, value in sorted(metadata.items()):
        model.set_rt_info(value, ["model_info", key])
    # the converter writes it, a camera model built around its graph lacks it
    model.set_rt_info(ov.get_version(), ["Runtime_version"])
    if precision == "int8_weights":
        # OpenVINO otherwise quantises the activations of linear layers too (group by group, at run
        # time), which moved probabilities by up to 0.009
        model.set_rt_info("0", ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"])
    ov.save_model(model, path, compress_to_fp16=precision == "fp16")


def fake_quantize_operators(model: "ov.Model") -> int:
    """Count the FakeQuantize operators, to check that the model is quantised."""
    return sum(op.get_type_name() == "FakeQuantize" for op in model.get_ops())


def import_openvino() -> ModuleType:
    """Import OpenVINO with the usage telemetry of its converter off."""
    import openvino

    with contextlib.suppress(ImportError):
        from openvino.tools.ovc import telemetry_stub, telemetry_utils

        telemetry_utils.tm = telemetry_stub
    return openvino


def _set_names(model: "ov.Model", input_name: str, layout: str) -> None:
    """Name input, output and unnamed layers, so that two exports of one network are one file.

    The input's layout is written, too: DL Streamer and OpenVINO Model Server otherwise guess. The
    output's is not: with a batch axis known at both ends, Triton's backend replaces the
    `max_batch_size: 0` of a configuration by a batch of its own.
    """
    ov = import_openvino()
    model.input(0).get_node().set_layout(ov.Layout(layout))
    model.input(0).get_node().set_friendly_name(input_name)
    model.input(0).set_names({input_name})
    model.output(0).set_names({OUTPUT})
    for number, op in enumerate(_unnamed(model)):
        op.set_friendly_name(f"{op.get_type_name()}.{number}")
    model.output(0).get_node().set_friendly_name(f"{OUTPUT}/result")
    model.set_friendly_name("kdas_edge")
    rt_info = model.get_rt_info()
    for note in _CONVERTER_NOTES:
        with contextlib.suppress(KeyError, RuntimeError):
            del rt_info[note]


def _unnamed(model: "ov.Model") -> Iterator["ov.Node"]:
    for op in model.get_ordered_ops():
        if _NUMBERED.match(op.get_friendly_name()):
            yield op
