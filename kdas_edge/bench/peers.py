"""Peers: ONNX or IR files from elsewhere (UNet, PraNet, ColonSegNet …) in the same tables.

A peer is described as a bundle that was never written, like a checkpoint, so that loading, timing
and scoring are the same code; only its preprocessing and the meaning of its output are its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdas_edge.bench.peer_config import PeerConfig, read_peer_config
from kdas_edge.bench.peer_pipeline import PeerPipeline
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
from kdas_edge.files import real_path, sha256
from kdas_edge.runtime.backends import FORMATS, open_backend, runtime_devices
from kdas_edge.runtime.targets import Target


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


def open_peer(model: Path, config: Path) -> PeerBundle:
    """Open a peer and run it once on an empty frame, so that a wrong configuration is told at once.

    Args:
        model: an `.onnx` file, or the `.xml` of an OpenVINO IR.
        config: its YAML; see `PeerConfig`.

    Raises:
        UserError: absent or unreadable files, a wrong configuration, or an output of another shape.
    """
    described = read_peer_config(config)
    if any(sign in real_path(model).name for sign in ":\\"):
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
    path = real_path(model)
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
            pipeline = PeerPipeline(bundle.name, bundle.config, backend)
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
