"""Do the exported files give what torch gives? Asked before a bundle is handed over."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kdas_edge.data.layout import resize_image
from kdas_edge.distill.engine import normalise
from kdas_edge.export.graph import DeployGraph
from kdas_edge.export.openvino import import_openvino
from kdas_edge.models.zoo import Architecture

Frame = NDArray[np.uint8]
Map = NDArray[np.float32]


@dataclass(frozen=True)
class Agreement:
    """How far a file is from the torch model that it was made of.

    Attributes:
        probability: largest absolute difference of any pixel of any frame.
        disagreement: fraction of mask pixels that differ, mean over the frames.
        worst: the same for the worst frame.
        frames: how many were compared.
    """

    probability: float
    disagreement: float
    worst: float
    frames: int


def network_input(frame: Frame, architecture: Architecture) -> Map:
    """Resize as PIL does and normalise: (H, W, 3) uint8 RGB to (1, 3, S, S) float32."""
    small = resize_image(frame, architecture.size, architecture.size)
    x = torch.from_numpy(np.ascontiguousarray(small.transpose(2, 0, 1)))[None].float() / 255
    values: Map = normalise(x, architecture).numpy()
    return values


def reference(network: nn.Module, architecture: Architecture, frames: Sequence[Frame]) -> list[Map]:
    """Polyp probabilities (S, S) of a torch network, float or fake-quantised, frame by frame."""
    graph = DeployGraph(network).eval()
    with torch.no_grad():
        return [
            graph(torch.from_numpy(network_input(frame, architecture)))[0, 1].numpy()
            for frame in frames
        ]


def compare(
    path: Path,
    preset: str,
    architecture: Architecture,
    frames: Sequence[Frame],
    expected: Sequence[Map],
    threshold: float,
) -> Agreement:
    """Run an `.xml` or `.onnx` file on this machine's CPU, in fp32 arithmetic, and compare.

    Args:
        path: the file.
        preset: `core` or `camera`.
        architecture: of the network, for the input of a `core` file.
        frames: (H, W, 3) uint8 RGB.
        expected: from `reference`.
        threshold: of the mask.
    """
    infer = _openvino(path) if path.suffix == ".xml" else _onnxruntime(path)
    largest, differs = 0.0, []
    for frame, wanted in zip(frames, expected, strict=True):
        x: NDArray[np.generic] = (
            network_input(frame, architecture)
            if preset == "core"
            else np.ascontiguousarray(frame[None, :, :, ::-1])
        )
        polyp = infer(x)[0, 1]
        largest = max(largest, float(np.abs(polyp - wanted).max()))
        differs.append(float(((polyp > threshold) != (wanted > threshold)).mean()))
    return Agreement(largest, float(np.mean(differs)), max(differs), len(differs))


def _openvino(path: Path) -> Callable[[NDArray[np.generic]], Map]:
    ov = import_openvino()
    # without the hint a CPU with bf16 would silently compute in it
    compiled = ov.Core().compile_model(
        str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    )
    return lambda x: compiled(x)[0]


def _onnxruntime(path: Path) -> Callable[[NDArray[np.generic]], Map]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]
