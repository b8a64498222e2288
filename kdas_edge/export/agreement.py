"""Compare exported files with the torch network that they were made of, before they are used."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kdas_edge.bundle.manifest import Normalisation, Preset
from kdas_edge.export.graph import DeployGraph
from kdas_edge.export.openvino import to_openvino
from kdas_edge.models.architecture import Architecture, SegmentationNetwork
from kdas_edge.runtime.backends import open_file
from kdas_edge.runtime.backends.openvino import open_file as open_model
from kdas_edge.runtime.inputs import InputSpec, model_input, preprocess
from kdas_edge.runtime.targets import Target, cpu_target

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


def input_spec(architecture: Architecture) -> InputSpec:
    """The input of a network, as the runtime's preprocessing takes it."""
    normalisation = Normalisation(mean=architecture.mean, std=architecture.std)
    return InputSpec(architecture.size, normalisation)


def reference(network: nn.Module, architecture: Architecture, frames: Sequence[Frame]) -> list[Map]:
    """Polyp probabilities (S, S) of a torch network, float or fake-quantised, frame by frame."""
    graph, spec = DeployGraph(network).eval(), input_spec(architecture)
    with torch.no_grad():
        return [graph(torch.from_numpy(preprocess(frame, spec)))[0, 1].numpy() for frame in frames]


def compare(
    path: Path,
    preset: Preset,
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
    backend, spec = open_file(path, cpu_target(path)), input_spec(architecture)
    outputs = [backend.infer(model_input(frame, spec, preset))[0, 1] for frame in frames]
    return difference(outputs, expected, threshold)


def openvino_agreement(
    network: SegmentationNetwork, images: NDArray[np.uint8], threshold: float = 0.5
) -> Agreement:
    """Compare a network's OpenVINO model with the network, before any file is written.

    Args:
        network: float or fake-quantised, on the CPU.
        images: (N, S, S, 3) uint8 RGB.
        threshold: of the mask.
    """
    architecture = network.architecture
    expected = reference(network, architecture, list(images))
    backend = open_model(to_openvino(network, architecture.size), Target("openvino", "CPU"))
    spec = input_spec(architecture)
    outputs = [backend.infer(preprocess(image, spec))[0, 1] for image in images]
    return difference(outputs, expected, threshold)


def difference(found: Sequence[Map], expected: Sequence[Map], threshold: float) -> Agreement:
    """Compare polyp probabilities (S, S), frame by frame.

    A frame with NaN or infinity in either map differs in every pixel, by infinity.
    """
    largest, differs = 0.0, []
    for ours, wanted in zip(found, expected, strict=True):
        finite = bool(np.isfinite(ours).all() and np.isfinite(wanted).all())
        largest = max(largest, float(np.abs(ours - wanted).max()) if finite else np.inf)
        differing = (ours > threshold) != (wanted > threshold)
        differs.append(float(differing.mean()) if finite else 1.0)
    return Agreement(largest, float(np.mean(differs)), max(differs), len(differs))
