"""The only writer of bundles: networks in, one checked directory out."""

import datetime
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from kdas_edge import environment
from kdas_edge.bundle.manifest import (
    FILE_NAME,
    AccuracyRecord,
    FileRecord,
    Format,
    Golden,
    InputContract,
    Manifest,
    ModelFile,
    Normalisation,
    OutputContract,
    Precision,
    Preset,
    Provenance,
    Tolerance,
    model_metadata,
)
from kdas_edge.console import progress
from kdas_edge.data.layout import read_image
from kdas_edge.data.synthetic import scene
from kdas_edge.errors import GateError, KdasEdgeError, UserError
from kdas_edge.export import onnx as to_onnx
from kdas_edge.export import openvino as to_openvino
from kdas_edge.export.agreement import Agreement, Frame, Map, compare, reference
from kdas_edge.export.card import model_card
from kdas_edge.export.sources import Sources, load_sources
from kdas_edge.files import check_output_directory, sha256, staged_directory, write_text_atomic
from kdas_edge.models.checkpoints import read_metadata, save_network
from kdas_edge.models.zoo import Architecture, multiply_accumulates, parameters

TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(probability=1e-4, disagreement=0.005),
    # probabilities of int8 kernels differ at the rounding edges; the mask is what counts
    "int8": Tolerance(probability=1.0, disagreement=0.005),
}
PRESETS: tuple[Preset, ...] = ("core", "camera")
_THRESHOLD = 0.5
_SYNTHETIC_GOLDEN = 4
_SYNTHETIC_DRAWN = 16
# not the network's size, so that the golden frames also exercise the resize
_SYNTHETIC_SIDE = 400


@dataclass
class Row:
    """One exported file and how it fared.

    Attributes:
        path: relative to the bundle.
        status: `ok`, `disagrees` or `failed`.
        agreement: with torch, None for the torch file itself or a failure.
        reason: of a failure, one line.
    """

    path: str
    precision: Precision
    format: Format
    preset: Preset
    status: str = "ok"
    bytes: int = 0
    seconds: float = 0.0
    agreement: Agreement | None = None
    reason: str = ""


@dataclass
class ExportReport:
    """A written bundle and its table."""

    path: Path
    rows: list[Row] = field(default_factory=list)

    @property
    def failures(self) -> list[Row]:
        """The rows that are not `ok`."""
        return [row for row in self.rows if row.status != "ok"]

    def as_json(self) -> dict[str, Any]:
        """Return plain values for a file."""
        return {"bundle": str(self.path), "files": [asdict(row) for row in self.rows]}


def raise_for_failures(report: ExportReport) -> None:
    """Raise `GateError` if a file failed or disagrees with torch."""
    if not report.failures:
        return
    first = report.failures[0]
    raise GateError(
        f"{len(report.failures)} of {len(report.rows)} files are not fit for use, first "
        f"{first.path}: {first.reason}; the bundle {report.path} is kept for inspection"
    )


def export_bundle(
    out: Path,
    float_source: Path,
    quantized_source: Path | None = None,
    presets: Sequence[Preset] = PRESETS,
    golden_frames: Sequence[Path] | None = None,
    check_frames: Sequence[Path] = (),
    name: str | None = None,
    overwrite: bool = False,
    with_torch: bool = True,
    accuracy: Sequence[AccuracyRecord] = (),
) -> ExportReport:
    """Export the networks of runs to a bundle and compare every file with torch.

    Args:
        out: the bundle's directory; it appears when it is complete.
        float_source: float run or checkpoint, or a quantised run (which carries its float one).
        quantized_source: quantised run for the int8 files, or None.
        presets: which inputs to write.
        golden_frames: images stored in the bundle with the expected probabilities; synthetic
            scenes by default, because patients' images may rarely be passed on; of those
            the ones on which the networks are decided.
        check_frames: more images for the comparison with torch; they are not stored.
        name: of the bundle; the directory's name by default.
        overwrite: replace `out`.
        with_torch: store the float checkpoint too.
        accuracy: measured accuracies to record, besides those of the runs.

    Returns:
        One row per file. A file that could not be made is not in the bundle.

    Raises:
        UserError: a bad source or frame, or an output folder that is in use.
        KdasEdgeError: no file at all could be made.
    """
    check_output_directory(out, overwrite)
    sources = load_sources(float_source, quantized_source)
    golden = _golden_frames(golden_frames, sources)
    frames = [*golden, *(read_image(path) for path in check_frames)]
    networks: dict[Precision, nn.Module] = {"fp32": sources.network}
    if sources.quantized is not None:
        networks["int8"] = sources.quantized

    rows: list[Row] = []
    with staged_directory(out, overwrite) as staging:
        expected = {
            precision: reference(network, sources.architecture, frames)
            for precision, network in networks.items()
        }
        total = 2 * len(networks) * len(presets)
        with progress(total, "exporting") as advance:
            for precision, network in networks.items():
                for row in _export(staging, precision, network, sources.architecture, presets):
                    if row.status == "ok":
                        _judge(staging, row, sources.architecture, frames, expected[precision])
                    rows.append(row)
                    advance(note=row.path)
        if all(row.status == "failed" for row in rows):
            raise KdasEdgeError(f"no file could be exported: {rows[0].reason}")
        if with_torch:
            rows.append(_save_torch(staging, sources))
        vectors = _write_golden(staging, golden, expected)
        manifest = _manifest(staging, name or out.name, sources, rows, vectors, accuracy, presets)
        write_text_atomic(staging / "MODEL_CARD.md", model_card(manifest))
        manifest = manifest.model_copy(update={"files": _records(staging)})
        write_text_atomic(staging / FILE_NAME, manifest.model_dump_json(indent=2) + "\n")
    return ExportReport(out, rows)


def _export(
    staging: Path,
    precision: Precision,
    network: nn.Module,
    architecture: Architecture,
    presets: Sequence[Preset],
) -> Iterator[Row]:
    """Write the files of one precision; a failure is a row, and the next format is tried."""
    (staging / precision).mkdir()
    size, normalisation = architecture.size, normalisation_of(architecture)
    tools: dict[Format, tuple[Any, str]] = {
        "openvino": (to_openvino, "xml"),
        "onnx": (to_onnx, "onnx"),
    }
    for format_, (module, suffix) in tools.items():
        converter: Callable[..., Any] = getattr(module, f"to_{format_}")
        save: Callable[..., None] = getattr(module, f"save_{format_}")
        core = None
        for preset in presets:
            row = Row(f"{precision}/{preset}.{suffix}", precision, format_, preset)
            started = time.monotonic()
            try:
                core = converter(network, size) if core is None else core
                model = (
                    core
                    if preset == "core"
                    else module.with_camera_input(core, normalisation, size)
                )
                metadata = model_metadata(preset, precision, normalisation, _THRESHOLD, size)
                save(model, staging / row.path, metadata)
                row.bytes = sum(path.stat().st_size for path in _files(staging / row.path))
            except UserError:
                raise
            except Exception as error:  # three exporters, no common base; the table goes on
                row.status, row.reason = "failed", _line(error)
                for path in _files(staging / row.path):
                    path.unlink()
            row.seconds = time.monotonic() - started
            yield row


def _judge(
    staging: Path,
    row: Row,
    architecture: Architecture,
    frames: Sequence[Frame],
    expected: Sequence[Map],
) -> None:
    try:
        found = compare(staging / row.path, row.preset, architecture, frames, expected, _THRESHOLD)
    except Exception as error:  # a runtime that cannot load the file
        row.status, row.reason = "failed", _line(error)
        for path in _files(staging / row.path):
            path.unlink()
        return
    row.agreement = found
    limit = TOLERANCES[row.precision]
    # a camera graph resizes by itself, with single grey levels rounded otherwise
    if row.preset == "core" and found.probability > limit.probability:
        row.status = "disagrees"
        row.reason = f"a probability differs by {found.probability:.2g} ({limit.probability:g})"
    elif found.disagreement > limit.disagreement:
        row.status = "disagrees"
        row.reason = f"{found.disagreement:.2%} of mask pixels differ ({limit.disagreement:.1%})"


def _save_torch(staging: Path, sources: Sources) -> Row:
    row = Row("torch/model.safetensors", "fp32", "torch", "core")
    save_network(staging / row.path, sources.network.state_dict(), sources.architecture)
    row.bytes = (staging / row.path).stat().st_size
    return row


def _golden_frames(paths: Sequence[Path] | None, sources: Sources) -> list[Frame]:
    """Read the given frames, or draw scenes and keep those on which the networks are decided.

    A synthetic scene is new to a network that learnt from patients; where it hesitates, masks
    differ by rounding alone, and a golden vector that cannot tell a wrong runtime from rounding is
    of no use. The choice asks the torch networks only, never the runtimes that are to be judged.
    """
    if paths is not None:
        if not paths:
            raise UserError("no golden frame given; leave --golden out for synthetic ones")
        return [read_image(path) for path in paths]
    networks = [n for n in (sources.network, sources.quantized) if n is not None]

    def undecided(frame: Frame) -> tuple[bool, float]:
        maps = [reference(network, sources.architecture, [frame])[0] for network in networks]
        empty = not all((values > _THRESHOLD).any() for values in maps)
        unsure = max(float(((values > 0.1) & (values < 0.9)).mean()) for values in maps)
        return empty, unsure

    scenes = [scene(seed, _SYNTHETIC_SIDE, polyp=True)[0] for seed in range(_SYNTHETIC_DRAWN)]
    # the last one without a polyp: silence must be reproduced as well
    silent = scene(_SYNTHETIC_DRAWN, _SYNTHETIC_SIDE, polyp=False)[0]
    return [*sorted(scenes, key=undecided)[: _SYNTHETIC_GOLDEN - 1], silent]


def _write_golden(
    staging: Path, frames: Sequence[Frame], expected: dict[Precision, list[Map]]
) -> list[Golden]:
    (staging / "golden").mkdir()
    vectors = []
    for index, frame in enumerate(frames):
        picture = f"golden/frame_{index:02d}.png"
        Image.fromarray(frame).save(staging / picture)
        maps: dict[Precision, str] = {}
        for precision, values in expected.items():
            maps[precision] = f"golden/frame_{index:02d}_{precision}.npy"
            np.save(staging / maps[precision], values[index].astype(np.float32))
        vectors.append(Golden(frame=picture, expected=maps))
    return vectors


def _manifest(
    staging: Path,
    name: str,
    sources: Sources,
    rows: Sequence[Row],
    vectors: list[Golden],
    accuracy: Sequence[AccuracyRecord],
    presets: Sequence[Preset],
) -> Manifest:
    architecture, written = sources.architecture, [r for r in rows if r.status != "failed"]
    size, normalisation = architecture.size, normalisation_of(architecture)
    machine = environment.describe()
    return Manifest(
        name=name,
        size=size,
        threshold=_THRESHOLD,
        normalisation=normalisation,
        inputs={preset: _input_contract(preset, size) for preset in presets},
        output=OutputContract(name=to_onnx.OUTPUT, shape=(1, 2, size, size)),
        models=[_model_file(staging, row, normalisation, size) for row in written],
        golden=vectors,
        tolerances={p: t for p, t in TOLERANCES.items() if any(r.precision == p for r in written)},
        accuracy=[*sources.accuracy, *accuracy],
        provenance=Provenance(
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            code_version=environment.code_version(),
            packages=machine["packages"],
            recipe=sources.recipe,
            data_split_sha256=sources.split_sha256,
            parameters=parameters(sources.network),
            multiply_accumulates=multiply_accumulates(sources.network, size),
            notes={
                "backbone": architecture.backbone,
                "width": architecture.width,
                **sources.notes,
                "agreement": [
                    {
                        "file": row.path,
                        "status": row.status,
                        "reason": row.reason,
                        **(asdict(row.agreement) if row.agreement else {}),
                    }
                    for row in rows
                    if row.format != "torch"
                ],
            },
        ),
        files=_records(staging),
    )


def _model_file(staging: Path, row: Row, normalisation: Normalisation, size: int) -> ModelFile:
    return ModelFile(
        precision=row.precision,
        format=row.format,
        preset=row.preset,
        path=row.path,
        opset=to_onnx.OPSET if row.format == "onnx" else None,
        metadata=(
            read_metadata(staging / row.path)
            if row.format == "torch"
            else model_metadata(row.preset, row.precision, normalisation, _THRESHOLD, size)
        ),
    )


def _input_contract(preset: Preset, size: int) -> InputContract:
    if preset == "camera":
        return InputContract(
            name="frame",
            shape=(1, -1, -1, 3),
            layout="NHWC",
            dtype="uint8",
            color="BGR",
            normalised=False,
            resize="in the graph: PIL's antialiased bilinear filter",
        )
    return InputContract(
        name=to_onnx.INPUT,
        shape=(1, 3, size, size),
        layout="NCHW",
        dtype="float32",
        color="RGB",
        normalised=True,
        resize="by the host: PIL's antialiased bilinear filter",
    )


def normalisation_of(architecture: Architecture) -> Normalisation:
    """The normalisation of an architecture, as the manifest writes it."""
    return Normalisation(mean=architecture.mean, std=architecture.std)


def _records(staging: Path) -> dict[str, FileRecord]:
    return {
        path.relative_to(staging).as_posix(): FileRecord(
            bytes=path.stat().st_size, sha256=sha256(path)
        )
        for path in sorted(staging.rglob("*"))
        if path.is_file() and path.name != FILE_NAME
    }


def _files(path: Path) -> list[Path]:
    """The file, and for an IR the weights beside it, as far as they exist."""
    both = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
    return [file for file in both if file.exists()]


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]
