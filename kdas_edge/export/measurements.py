"""Measurements that were made with a bundle become part of it: manifest, card, bill of materials.

The model files are not touched, and their hashes stay what they were.
"""

import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path

from kdas_edge.bundle.benchmark_note import KEY, BenchmarkNote
from kdas_edge.bundle.manifest import (
    SBOM_NAME,
    AccuracyRecord,
    FileRecord,
    Manifest,
    write_manifest,
)
from kdas_edge.bundle.reader import open_bundle
from kdas_edge.errors import UserError
from kdas_edge.export.card import CARD_NAME, model_card
from kdas_edge.export.sbom import bill_of_materials
from kdas_edge.files import sha256, staged_directory, write_text_atomic


def record_measurements(
    path: Path, accuracy: Sequence[AccuracyRecord], benchmark: BenchmarkNote
) -> Manifest:
    """Write measurements into a bundle; the bundle is replaced in one step.

    Args:
        path: the bundle's directory.
        accuracy: what was measured; a record of the same data set, protocol, precision and
            runtime is replaced.
        benchmark: latencies and differences, see `bench.records`; kept under `provenance.notes`.

    Returns:
        The new manifest.

    Raises:
        UserError: the bundle is damaged or cannot be written, or cyclonedx-python-lib is absent.
    """
    if importlib.util.find_spec("cyclonedx") is None:
        raise UserError(
            "a new card changes the bill of materials, which needs cyclonedx-python-lib; install "
            "it with pip install 'kdas-edge[train]'"
        )
    manifest = open_bundle(path).manifest
    new = {_key(record) for record in accuracy}
    kept = [record for record in manifest.accuracy if _key(record) not in new]
    provenance = manifest.provenance
    notes = {**provenance.notes, KEY: benchmark.model_dump(mode="json")}
    manifest = manifest.model_copy(
        update={
            "accuracy": [*kept, *accuracy],
            "provenance": provenance.model_copy(update={"notes": notes}),
        }
    )
    with staged_directory(path, overwrite=True) as staging:
        shutil.copytree(path, staging, dirs_exist_ok=True)
        write_text_atomic(staging / CARD_NAME, model_card(manifest))
        manifest = _with_record(manifest, staging, CARD_NAME)
        others = {name: item for name, item in manifest.files.items() if name != SBOM_NAME}
        bill = bill_of_materials(manifest.model_copy(update={"files": others}))
        write_text_atomic(staging / SBOM_NAME, bill)
        manifest = _with_record(manifest, staging, SBOM_NAME)
        write_manifest(staging, manifest)
    return manifest


def _key(record: AccuracyRecord) -> tuple[str, ...]:
    return record.dataset, record.protocol, record.precision, record.runtime


def _with_record(manifest: Manifest, folder: Path, name: str) -> Manifest:
    path = folder / name
    record = FileRecord(bytes=path.stat().st_size, sha256=sha256(path))
    return manifest.model_copy(update={"files": {**manifest.files, name: record}})
