"""Write a bundle: export the networks, check every file against torch, describe them."""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from kdas_edge.bundle.manifest import (
    PRECISIONS,
    SBOM_NAME,
    AccuracyRecord,
    Format,
    Precision,
    Preset,
    write_manifest,
)
from kdas_edge.bundle.metadata import model_metadata
from kdas_edge.bundle.tolerances import TOLERANCES
from kdas_edge.bundle.versions import file_versions
from kdas_edge.console import progress
from kdas_edge.errors import KdasEdgeError, UserError, last_line
from kdas_edge.export import openvino as to_openvino
from kdas_edge.export import weights
from kdas_edge.export.agreement import (
    Frame,
    Map,
    compare,
    difference,
    input_spec,
    reference,
)
from kdas_edge.export.card import CARD_NAME, model_card
from kdas_edge.export.contract import THRESHOLD, build_manifest, file_records, normalisation_of
from kdas_edge.export.export_report import ExportedFile, ExportReport
from kdas_edge.export.golden import golden_frames, write_golden
from kdas_edge.export.onnx import export as to_onnx
from kdas_edge.export.onnx import float16
from kdas_edge.export.presets import DEFAULT_PRESETS, with_input
from kdas_edge.export.sbom import bill_of_materials
from kdas_edge.export.sources import Sources, load_sources
from kdas_edge.export.timing import Int8Speed, time_int8
from kdas_edge.files import check_output_directory, staged_directory, write_text_atomic
from kdas_edge.image_files import read_image
from kdas_edge.models.architecture import Architecture
from kdas_edge.models.checkpoints import save_network
from kdas_edge.runtime.inputs import preprocess

# The torch model that a precision's files must reproduce. fp16 rounds at run time, as each device
# likes; the others are networks of their own.
_REFERENCES: dict[Precision, Precision] = {
    "fp32": "fp32",
    "fp16": "fp32",
    "int8": "int8",
    "int8_weights": "int8_weights",
}

_SUFFIXES: dict[Format, str] = {"openvino": "xml", "onnx": "onnx"}


def export_bundle(
    out: Path,
    float_source: Path,
    quantized_source: Path | None = None,
    presets: Sequence[Preset] = DEFAULT_PRESETS,
    golden: Sequence[Path] | None = None,
    check_frames: Sequence[Path] = (),
    name: str | None = None,
    overwrite: bool = False,
    with_torch: bool = True,
    accuracy: Sequence[AccuracyRecord] = (),
    precisions: Sequence[Precision] | None = None,
    timing: bool = True,
    without: Collection[str] = (),
    half_weights: bool = False,
) -> ExportReport:
    """Export the networks of runs to a bundle and compare every file with torch.

    Args:
        out: the bundle's directory; it appears when it is complete.
        float_source: float run or checkpoint, or a quantised run (which carries its float one).
        quantized_source: quantised run for the int8 files, or None.
        presets: which inputs to write.
        golden: images stored in the bundle with the expected probabilities; synthetic scenes by
            default, because patients' images may rarely be passed on; of those the ones on which
            the networks are decided.
        check_frames: more images for the comparison with torch; they are not stored.
        name: of the bundle; the directory's name by default.
        overwrite: replace `out`.
        with_torch: store the float checkpoint too.
        accuracy: measured accuracies to record, besides those of the runs.
        precisions: which to write; by default fp32, and int8 where there is a quantised run.
        timing: time int8 against fp32 in each runtime (some seconds).
        without: model files to leave out, for example `fp32/camera.onnx`, for a smaller bundle.
        half_weights: round the float network's weights to 16 bits, so that fp32's files have half
            of the size; what they compute is fp32 as before, and the rounded network is the one
            that they, and the others, are compared with.

    Returns:
        One row per file. A file that could not be made is not in the bundle.

    Raises:
        UserError: a bad source or frame, int8 without a quantised run, an output folder that
            is in use, or `without` names a file that would not be written, or all of them.
        KdasEdgeError: no file at all could be made.
    """
    check_output_directory(out, overwrite)
    sources = load_sources(float_source, quantized_source)
    grids: dict[Precision, weights.WeightGrid] = {"int8_weights": weights.INT8}
    if half_weights:
        sources.network = weights.round_weights(sources.network, weights.HALF)
        sources.notes["float_weight_bits"] = 16
        grids["fp32"] = weights.HALF
    networks = _networks(sources, float_source, quantized_source, precisions)
    plan = _plan(networks, presets, without)
    trained = [network for network in (sources.network, sources.quantized) if network is not None]
    stored = golden_frames(golden, trained, sources.architecture, THRESHOLD)
    frames = [*stored, *(read_image(path) for path in check_frames)]

    report = ExportReport(out)
    with staged_directory(out, overwrite) as staging:
        expected = _expected(networks, sources, frames)
        report.changes = {
            precision: difference(expected[precision], expected["fp32"], THRESHOLD)
            for precision in networks
            if _REFERENCES[precision] != "fp32"
        }
        with progress(len(plan), "exporting") as advance:
            for precision, network in networks.items():
                wanted = expected[_REFERENCES[precision]]
                rows = [row for row in plan if row.precision == precision]
                grid = grids.get(precision)
                for row in _export(staging, rows, network, sources.architecture, grid):
                    if row.status == "ok":
                        _judge(staging, row, sources.architecture, frames, wanted)
                    report.rows.append(row)
                    advance(note=row.path)
        if all(row.status == "failed" for row in report.rows):
            raise KdasEdgeError(f"no file could be exported: {report.rows[0].reason}")
        if timing:
            report.speeds = _time_int8(staging, report.rows, sources.architecture, frames[0])
        if with_torch:
            report.rows.append(_save_torch(staging, sources))
        references = {
            row.precision: _REFERENCES[row.precision]
            for row in report.rows
            if row.status != "failed"
        }
        vectors = write_golden(staging, stored, expected, references)
        manifest = build_manifest(
            staging, name or out.name, sources, report, vectors, accuracy, presets
        )
        write_text_atomic(staging / CARD_NAME, model_card(manifest))
        manifest = manifest.model_copy(update={"files": file_records(staging)})
        write_text_atomic(staging / SBOM_NAME, bill_of_materials(manifest))
        manifest = manifest.model_copy(update={"files": file_records(staging)})
        write_manifest(staging, manifest)
    return report


def _networks(
    sources: Sources,
    float_source: Path,
    quantized_source: Path | None,
    asked: Sequence[Precision] | None,
) -> dict[Precision, nn.Module]:
    """The torch network behind each precision that is asked for, in the order of `PRECISIONS`."""
    held: list[Precision] = ["fp32"] if sources.quantized is None else ["fp32", "int8"]
    precisions = held if asked is None else asked
    if "int8" in precisions and sources.quantized is None:
        raise UserError(
            f"int8 needs a quantised run, and {float_source} is a float one; add --int8 RUN (made "
            "by kdas-edge quantize), or leave int8 out of --precision"
        )
    if "int8" not in precisions and quantized_source is not None:
        raise UserError(
            f"--int8 {quantized_source} is given, but int8 is not among the precisions "
            f"{', '.join(precisions)}; add it to --precision, or leave --int8 out"
        )
    networks: dict[Precision, nn.Module] = {}
    for precision in PRECISIONS:
        if precision not in precisions:
            continue
        if precision == "int8" and sources.quantized is not None:
            networks[precision] = sources.quantized
        elif precision == "int8_weights":
            networks[precision] = weights.round_weights(sources.network, weights.INT8)
        else:
            networks[precision] = sources.network
    return networks


def _expected(
    networks: Mapping[Precision, nn.Module], sources: Sources, frames: Sequence[Frame]
) -> dict[Precision, list[Map]]:
    """What each torch model gives; the fp32 one always, for comparison and the torch file."""
    models: dict[Precision, nn.Module] = {"fp32": sources.network}
    for precision, network in networks.items():
        models.setdefault(_REFERENCES[precision], network)
    return {
        precision: reference(network, sources.architecture, frames)
        for precision, network in models.items()
    }


def _plan(
    precisions: Iterable[Precision], presets: Sequence[Preset], without: Collection[str]
) -> list[ExportedFile]:
    """The model files to write, by precision, then format, then preset."""
    rows = [
        ExportedFile(f"{precision}/{preset}.{suffix}", precision, format_, preset)
        for precision in precisions
        for format_, suffix in _SUFFIXES.items()
        for preset in presets
    ]
    known = [row.path for row in rows]
    for path in without:
        if path not in known:
            raise UserError(f"--without {path}: no such file; there would be {', '.join(known)}")
    rows = [row for row in rows if row.path not in without]
    if not rows:
        raise UserError("--without leaves no file; name fewer")
    return rows


def _export(
    staging: Path,
    rows: Sequence[ExportedFile],
    network: nn.Module,
    architecture: Architecture,
    grid: weights.WeightGrid | None,
) -> Iterator[ExportedFile]:
    """Write the files of one precision; a failure is a row, and the next format is tried."""
    size, normalisation = architecture.size, normalisation_of(architecture)
    cores: dict[Format, Any] = {}
    for row in rows:
        path = staging / row.path
        path.parent.mkdir(exist_ok=True)
        metadata = model_metadata(row.preset, row.precision, normalisation, THRESHOLD, size)
        started = time.monotonic()
        try:
            if row.format not in cores:
                cores[row.format] = _core(row.format, row.precision, network, size, grid)
            exporter: Any = to_openvino if row.format == "openvino" else to_onnx
            model = with_input(exporter, cores[row.format], row.preset, normalisation, size)
            if row.format == "openvino":
                to_openvino.save_openvino(model, path, metadata, row.precision)
            else:
                to_onnx.save_onnx(model, path, metadata)
            row.bytes = sum(file.stat().st_size for file in _files(path))
            row.versions = file_versions(path)
        except UserError:
            raise
        except Exception as error:  # three exporters, no common base; the table goes on
            row.status, row.reason = "failed", last_line(error)
            for file in _files(path):
                file.unlink()
        row.seconds = time.monotonic() - started
        yield row


def _core(
    format_: Format,
    precision: Precision,
    network: nn.Module,
    size: int,
    grid: weights.WeightGrid | None,
) -> Any:
    """The `core` graph of a precision; OpenVINO's fp16 is made when it is saved."""
    if format_ == "openvino":
        model = to_openvino.to_openvino(network, size)
        return model if grid is None else weights.store_in_openvino(model, grid)
    graph = to_onnx.to_onnx(network, size)
    if precision == "fp16":
        return float16.to_half(graph)
    return graph if grid is None else weights.store_in_onnx(graph, grid)


def _judge(
    staging: Path,
    row: ExportedFile,
    architecture: Architecture,
    frames: Sequence[Frame],
    expected: Sequence[Map],
) -> None:
    try:
        found = compare(staging / row.path, row.preset, architecture, frames, expected, THRESHOLD)
    except Exception as error:  # a runtime that cannot load the file
        row.status, row.reason = "failed", last_line(error)
        for path in _files(staging / row.path):
            path.unlink()
        return
    row.agreement = found
    limit = TOLERANCES[row.precision]
    # a camera graph resizes by itself, with single grey levels rounded otherwise
    if row.preset != "camera" and found.probability > limit.probability:
        row.status = "disagrees"
        row.reason = f"a probability differs by {found.probability:.2g} ({limit.probability:g})"
    elif found.disagreement > limit.disagreement:
        row.status = "disagrees"
        row.reason = f"{found.disagreement:.2%} of mask pixels differ ({limit.disagreement:.1%})"


def _save_torch(staging: Path, sources: Sources) -> ExportedFile:
    row = ExportedFile("torch/model.safetensors", "fp32", "torch", "core")
    save_network(staging / row.path, sources.network.state_dict(), sources.architecture)
    row.bytes = (staging / row.path).stat().st_size
    return row


def _time_int8(
    staging: Path, rows: Sequence[ExportedFile], architecture: Architecture, frame: Frame
) -> list[Int8Speed]:
    """Time the int8 files that are fit for use against fp32 of the same runtime."""
    files = {
        (row.format, row.precision): staging / row.path
        for row in rows
        if row.preset == "core" and row.status != "failed"
    }
    pairs = {
        format_: (files[format_, "fp32"], path)
        for (format_, precision), path in files.items()
        if precision == "int8" and (format_, "fp32") in files
    }
    return time_int8(pairs, preprocess(frame, input_spec(architecture))) if pairs else []


def _files(path: Path) -> list[Path]:
    """The file, and for an IR the weights beside it, as far as they exist."""
    both = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
    return [file for file in both if file.exists()]
