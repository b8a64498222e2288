"""Do the exported files give what torch gives? Asked before a bundle is handed over."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kdas_edge.data.layout import resize_image
from kdas_edge.export.graph import DeployGraph
from kdas_edge.export.runners import load
from kdas_edge.models.inputs import normalise
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
        preset: of the file.
        architecture: of the network, for the input of the file.
        frames: (H, W, 3) uint8 RGB.
        expected: from `reference`.
        threshold: of the mask.
    """
    infer = load(path)
    outputs = []
    for frame in frames:
        # a copy: a runtime may use the memory of its output again
        outputs.append(infer(_prepare(frame, preset, architecture))[0, 1].copy())
    return difference(outputs, expected, threshold)


def _prepare(frame: Frame, preset: str, architecture: Architecture) -> NDArray[np.generic]:
    """What the host of a preset would feed for a frame (H, W, 3) uint8 RGB."""
    if preset == "camera":
        return np.ascontiguousarray(frame[None, :, :, ::-1])
    if preset == "holoscan":
        small = resize_image(frame, architecture.size, architecture.size)
        unit: Map = small[None].astype(np.float32) / np.float32(255)
        return unit
    return network_input(frame, architecture)


def difference(found: Sequence[Map], expected: Sequence[Map], threshold: float) -> Agreement:
    """Compare polyp probabilities (S, S), frame by frame."""
    largest, differs = 0.0, []
    for ours, wanted in zip(found, expected, strict=True):
        largest = max(largest, float(np.abs(ours - wanted).max()))
        differs.append(float(((ours > threshold) != (wanted > threshold)).mean()))
    return Agreement(largest, float(np.mean(differs)), max(differs), len(differs))
