"""Peers: ONNX or IR files from elsewhere (UNet, PraNet, ColonSegNet …) in the same tables.

A peer is described as a bundle that was never written, like a checkpoint, so that loading, timing
and scoring are the same code; only its preprocessing and the meaning of its output are its own.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdas_edge.bench.peer_config import PeerConfig, read_peer_config
from kdas_edge.bundle.manifest import (
    FileRecord,
    Format,
    InputContract,
    Manifest,
    ModelFile,
    Normalisation,
    OutputContract,
    Provenance,
)
from kdas_edge.bundle.reader import Bundle
from kdas_edge.errors import UserError
from kdas_edge.files import sha256
from kdas_edge.runtime.backends import FORMATS, Backend, open_backend, runtime_devices
from kdas_edge.runtime.segmenter import Result, check_frame
from kdas_edge.runtime.targets import Target

_PIL = {
    "bilinear-antialias": Image.Resampling.BILINEAR,
    "bicubic-antialias": Image.Resampling.BICUBIC,
}
_OPENCV = {
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "nearest": cv2.INTER_NEAREST,
}
_CHANNELS = {"two-channel": 2, "two-channel-logits": 2}


@dataclass(frozen=True)
class PeerBundle(Bundle):
    """A model from elsewhere, described as a bundle.

    Attributes:
        config: how it is fed and read.
    """

    config: PeerConfig

    def size_bytes(self, model: ModelFile) -> int:
        """Size on disk in bytes, weights beside the file included."""
        return sum(record.bytes for record in self.manifest.files.values())


class PeerPipeline:
    """From a frame to a peer's mask; see `bench.pipeline.Pipeline`."""

    def __init__(self, bundle: PeerBundle, backend: Backend, batch: int = 1) -> None:
        self._name = bundle.name
        self._config = bundle.config
        self._backend = backend
        self._batch = batch

    def prepare(self, frame_rgb: NDArray[np.uint8]) -> NDArray[np.generic]:
        """Make the input, batch and all, from a (H, W, 3) uint8 RGB frame."""
        check_frame(frame_rgb)
        config = self._config
        image = _resize(frame_rgb, config)
        if config.color == "BGR":
            image = image[..., ::-1]
        x: NDArray[np.generic] = image
        if config.dtype == "float32":
            scaled = image.astype(np.float32) * np.float32(config.value_range / 255)
            x = (scaled - np.float32(config.mean)) / np.float32(config.std)
        if config.layout == "NCHW":
            x = x.transpose(2, 0, 1)
        return np.ascontiguousarray(np.repeat(x[np.newaxis], self._batch, axis=0))

    def probability(
        self, output: NDArray[np.generic], height: int, width: int
    ) -> NDArray[np.float32]:
        """Polyp probabilities of the first frame of the batch, at the size of the frame.

        Args:
            output: as the model gave it.
            height: of the frame.
            width: of the frame.

        Returns:
            (height, width) float32, 0–1.

        Raises:
            UserError: the output has not the shape that the configuration says.
        """
        small = self._polyp(output)
        if small.shape == (height, width):
            return small
        flags = _OPENCV[self._config.upsampling]
        large = cv2.resize(small, (width, height), interpolation=flags)
        # a cubic overshoots
        return np.clip(large, 0, 1).astype(np.float32, copy=False)

    def segment(self, frame_bgr: NDArray[np.uint8]) -> Result:
        """One frame in, one mask out; see `Segmenter.segment`."""
        check_frame(frame_bgr)
        started = time.perf_counter()
        x = self.prepare(frame_bgr[..., ::-1])
        prepared = time.perf_counter()
        output = self._backend.infer(x)
        inferred = time.perf_counter()
        probability = self.probability(output, *frame_bgr.shape[:2])
        mask = probability > self._config.threshold
        finished = time.perf_counter()
        milliseconds = {
            "preprocess": 1e3 * (prepared - started),
            "inference": 1e3 * (inferred - prepared),
            "postprocess": 1e3 * (finished - inferred),
        }
        return Result(mask, probability, self._config.threshold, milliseconds)

    def _polyp(self, output: NDArray[np.generic]) -> NDArray[np.float32]:
        """(h, w) float32 probabilities at the size of the output."""
        kind, polyp = self._config.output, self._config.polyp_class
        maps = _channels_first(output, _CHANNELS.get(kind, 1), self._config.layout)
        if maps is None:
            channels = _CHANNELS.get(kind, 1)
            raise UserError(
                f"peer {self._name}: its output has the shape {tuple(output.shape)}, but output: "
                f"{kind} needs {channels} channel{'s' if channels > 1 else ''} of height and "
                f"width ({', '.join(_shapes(channels))}); correct output: or output_name:"
            )
        if kind == "classes":
            return (maps[0] == polyp).astype(np.float32)
        if kind in _CHANNELS and polyp > 1:
            raise UserError(
                f"peer {self._name}: polyp_class: {polyp} is no channel of two; set 0 or 1"
            )
        values = maps.astype(np.float32, copy=False)
        if kind == "logits":
            return _sigmoid(values[0])
        if kind == "two-channel-logits":
            return _sigmoid(values[polyp] - values[1 - polyp])
        return np.ascontiguousarray(values[polyp if kind == "two-channel" else 0])


def open_peer(model: Path, config: Path) -> PeerBundle:
    """Open a peer and run it once on an empty frame, so that a wrong configuration is told at once.

    Args:
        model: an `.onnx` file, or the `.xml` of an OpenVINO IR.
        config: its YAML; see `PeerConfig`.

    Raises:
        UserError: absent or unreadable files, a wrong configuration, or an output of another shape.
    """
    described = read_peer_config(config)
    if any(sign in model.resolve().name for sign in ":\\"):
        raise UserError(f"--peer {model}: rename it without colon and backslash")
    if model.suffix not in (".onnx", ".xml"):
        raise UserError(f"--peer {model}: name an .onnx file or the .xml of an OpenVINO IR")
    if not model.is_file():
        raise UserError(f"--peer {model} does not exist; check the path")
    bundle = _describe(model, described)
    _try(bundle, config)
    return bundle


def open_peers(models: Sequence[Path], configs: Sequence[Path]) -> list[PeerBundle]:
    """Open several peers, the first with the first configuration and so on.

    Raises:
        UserError: not as many configurations as models; and see `open_peer`.
    """
    if len(models) != len(configs):
        raise UserError(
            f"{len(models)} --peer and {len(configs)} --peer-config: give one for each, "
            "in the same order"
        )
    return [open_peer(model, config) for model, config in zip(models, configs, strict=True)]


def _describe(model: Path, config: PeerConfig) -> PeerBundle:
    path = model.resolve()
    height, width = config.size
    shape = (1, 3, height, width) if config.layout == "NCHW" else (1, height, width, 3)
    # weights beside the file: an IR's .bin, ONNX's external data
    beside = (path.with_suffix(".bin"), path.with_name(f"{path.name}.data"))
    files = [path, *(other for other in beside if other.is_file())]
    # OpenVINO reads ONNX itself
    formats: list[Format] = ["openvino"] if path.suffix == ".xml" else ["onnx", "openvino"]
    manifest = Manifest(
        name=config.name or model.stem,
        size=max(height, width),
        threshold=config.threshold,
        normalisation=Normalisation(mean=config.mean, std=config.std),
        inputs={
            "core": InputContract(
                name="",
                shape=shape,
                layout=config.layout,
                dtype=config.dtype,
                color=config.color,
                normalised=config.dtype == "float32",
                resize=f"by the host, {config.resize}",
            )
        },
        output=OutputContract(name=config.output_name or "", shape=(1, 2, height, width)),
        models=[
            ModelFile(precision=config.precision, format=format_, preset="core", path=path.name)
            for format_ in formats
        ],
        provenance=Provenance(
            created="",
            code_version="",
            packages={},
            recipe={},
            parameters=0,
            multiply_accumulates=0,
            notes={"kind": "peer", "config": config.model_dump(mode="json")},
        ),
        files={
            file.name: FileRecord(bytes=file.stat().st_size, sha256=sha256(file)) for file in files
        },
    )
    return PeerBundle(path.parent, manifest, config)


def _try(bundle: PeerBundle, source: Path) -> None:
    """Run the peer once on this machine's CPU, in the first runtime that can load it."""
    held = {model.format for model in bundle.manifest.models}
    failures = []
    for runtime in ("openvino", "onnxruntime"):
        if FORMATS[runtime] not in held or "CPU" not in runtime_devices(runtime):
            continue
        try:
            backend = open_backend(bundle, bundle.config.precision, Target(runtime, "CPU"))
            pipeline = PeerPipeline(bundle, backend)
            output = backend.infer(pipeline.prepare(np.zeros((8, 8, 3), dtype=np.uint8)))
        except Exception as error:  # a runtime's exceptions share no base but Exception
            failures.append(" ".join(str(error).split())[:200])
            continue
        _check_name(bundle, getattr(backend, "outputs", []), source)
        pipeline.probability(output, 8, 8)
        _check_values(bundle, output, source)
        backend.close()
        return
    raise UserError(
        f"peer {bundle.name} cannot be run ({failures[0] if failures else 'no runtime'}); "
        f"check size, layout and dtype in {source}"
    )


def _check_name(bundle: PeerBundle, outputs: Sequence[frozenset[str]], source: Path) -> None:
    wanted = bundle.config.output_name
    listed = ", ".join("/".join(sorted(names)) or "(unnamed)" for names in outputs)
    if wanted is not None and not any(wanted in names for names in outputs):
        raise UserError(f"{source}: output_name: the file has no {wanted!r}; it has {listed}")
    if wanted is None and len(outputs) > 1:
        raise UserError(
            f"{source}: the file has several outputs ({listed}); choose one with output_name:"
        )


def _check_values(bundle: PeerBundle, output: NDArray[np.generic], source: Path) -> None:
    """Catch logits that are called probabilities, and maps that are called classes."""
    values, kind = output.astype(np.float64), bundle.config.output
    low, high = float(values.min()), float(values.max())
    if kind in ("probabilities", "two-channel") and (low < -0.01 or high > 1.01):
        raise UserError(
            f"{source}: output: {kind} lie between 0 and 1, those of {bundle.name} between "
            f"{low:.3g} and {high:.3g}; are they logits or two-channel-logits?"
        )
    if kind == "classes" and not np.array_equal(values, np.rint(values)):
        raise UserError(
            f"{source}: output: classes are whole numbers, {bundle.name} gives fractions; "
            "are they probabilities or logits?"
        )


def _resize(frame: NDArray[np.uint8], config: PeerConfig) -> NDArray[np.uint8]:
    height, width = config.size
    if frame.shape[:2] == (height, width):
        return frame
    if config.resize in _PIL:
        # channels that were swapped by a view have no order that PIL could read
        image = Image.fromarray(np.ascontiguousarray(frame))
        return np.asarray(image.resize((width, height), _PIL[config.resize]), dtype=np.uint8)
    resized = cv2.resize(
        np.ascontiguousarray(frame), (width, height), interpolation=_OPENCV[config.resize]
    )
    return resized.astype(np.uint8, copy=False)


def _channels_first(
    output: NDArray[np.generic], channels: int, layout: str
) -> NDArray[np.generic] | None:
    """The first of the batch as (C, h, w), or None where the shape is another."""
    if output.ndim == 4:
        first = output[0]
        if first.shape[0] == channels and (channels != first.shape[2] or layout == "NCHW"):
            return first
        return first.transpose(2, 0, 1) if first.shape[2] == channels else None
    if channels == 1 and output.ndim in (2, 3):
        return output[:1] if output.ndim == 3 else output[np.newaxis]
    return None


def _shapes(channels: int) -> Sequence[str]:
    shapes = [f"(1, {channels}, h, w)", f"(1, h, w, {channels})"]
    return shapes if channels > 1 else [*shapes, "(1, h, w)", "(h, w)"]


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    # large negative logits overflow to infinity on the way to 0, which is right
    with np.errstate(over="ignore"):
        result: NDArray[np.float32] = 1 / (1 + np.exp(-logits))
    return result
