"""The manifest of a bundle, from what was exported."""

import datetime
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from kdas_edge import environment
from kdas_edge.bundle.manifest import (
    FILE_NAME,
    AccuracyRecord,
    FileRecord,
    Golden,
    Manifest,
    ModelFile,
    Normalisation,
    OutputContract,
    Preset,
    Provenance,
    SplitRecord,
)
from kdas_edge.bundle.metadata import model_metadata
from kdas_edge.bundle.tolerances import TOLERANCES
from kdas_edge.export.export_report import ExportedFile, ExportReport
from kdas_edge.export.onnx import export as to_onnx
from kdas_edge.export.presets import input_contract
from kdas_edge.export.sources import Sources
from kdas_edge.files import sha256
from kdas_edge.models.architecture import Architecture
from kdas_edge.models.checkpoints import read_metadata
from kdas_edge.models.zoo import multiply_accumulates, parameters

THRESHOLD = 0.5


def build_manifest(
    staging: Path,
    name: str,
    sources: Sources,
    report: ExportReport,
    vectors: list[Golden],
    accuracy: Sequence[AccuracyRecord],
    presets: Sequence[Preset],
) -> Manifest:
    """Describe a bundle that is complete but for its manifest and model card.

    Args:
        staging: folder of the bundle's files.
        name: of the bundle.
        sources: the networks and what is known of them.
        report: rows, changes and speeds.
        vectors: of `golden.write_golden`.
        accuracy: measured accuracies, besides those of the runs.
        presets: inputs that were written.
    """
    architecture, rows = sources.architecture, report.rows
    written = [row for row in rows if row.status != "failed"]
    size, normalisation = architecture.size, normalisation_of(architecture)
    machine = environment.describe()
    return Manifest(
        name=name,
        size=size,
        threshold=THRESHOLD,
        normalisation=normalisation,
        inputs={preset: input_contract(preset, size) for preset in presets},
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
            split=[SplitRecord(**part) for part in sources.lineage.as_json()],
            parameters=parameters(sources.network),
            multiply_accumulates=multiply_accumulates(sources.network, size),
            notes={
                "backbone": architecture.backbone,
                "width": architecture.width,
                "stride": architecture.stride,
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
                "change_from_fp32": {
                    precision: asdict(change) for precision, change in report.changes.items()
                },
                "int8_speed": [speed.as_json() for speed in report.speeds],
            },
        ),
        files=file_records(staging),
    )


def _model_file(
    staging: Path, row: ExportedFile, normalisation: Normalisation, size: int
) -> ModelFile:
    return ModelFile(
        precision=row.precision,
        format=row.format,
        preset=row.preset,
        path=row.path,
        opset=row.versions.opset,
        ir_version=row.versions.ir_version,
        written_by=row.versions.written_by,
        metadata=(
            read_metadata(staging / row.path)
            if row.format == "torch"
            else model_metadata(row.preset, row.precision, normalisation, THRESHOLD, size)
        ),
    )


def normalisation_of(architecture: Architecture) -> Normalisation:
    """The normalisation of an architecture, as the manifest writes it."""
    return Normalisation(mean=architecture.mean, std=architecture.std)


def file_records(staging: Path) -> dict[str, FileRecord]:
    """Size and hash of every file of a bundle but the manifest."""
    return {
        path.relative_to(staging).as_posix(): FileRecord(
            bytes=path.stat().st_size, sha256=sha256(path)
        )
        for path in sorted(staging.rglob("*"))
        if path.is_file() and path.name != FILE_NAME
    }
