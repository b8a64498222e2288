"""What a benchmark says of one bundle, in the form in which a manifest keeps it."""

from collections.abc import Iterator
from dataclasses import asdict

from kdas_edge.bench.accuracy_results import AccuracyEntry, RobustnessEntry, pooled_dice
from kdas_edge.bench.result_base import AccuracyKey
from kdas_edge.bench.results import BenchResult, MeasuredModel
from kdas_edge.bundle.benchmark_note import (
    BenchmarkNote,
    CorruptionNote,
    DifferenceNote,
    FailureNote,
    LatencyNote,
    SizeNote,
)
from kdas_edge.bundle.manifest import AccuracyRecord
from kdas_edge.bundle.reader import Bundle, model_files
from kdas_edge.data.corruptions import STRENGTHS
from kdas_edge.errors import UserError


def measured_name(results: BenchResult, bundle: Bundle) -> str:
    """The name under which a benchmark measured this very bundle.

    The model files decide, not the name nor the card: a bundle may be renamed or copied.

    Raises:
        UserError: the benchmark measured none, or other files of that name.
    """
    for name, model in results.models.items():
        if is_measured(model, bundle):
            return str(name)
    known = ", ".join(results.models)
    raise UserError(
        f"the benchmark measured {known}, but not the model files of {bundle.path.name}; "
        "run kdas-edge bench on this bundle"
    )


def is_measured(model: MeasuredModel, bundle: Bundle) -> bool:
    """True if an entry of a result's `models` is of exactly these model files."""
    names = [name for item in bundle.manifest.models for name in model_files(item)]
    return all(
        name in model.files and model.files[name].sha256 == bundle.manifest.files[name].sha256
        for name in names
    )


def accuracy_records(results: BenchResult, name: str) -> list[AccuracyRecord]:
    """The accuracies of one model, with their intervals.

    Args:
        results: of `kdas-edge bench`.
        name: of `measured_name`.
    """
    return [
        AccuracyRecord(
            dataset=entry.dataset,
            protocol=entry.protocol,
            precision=entry.precision,
            runtime=entry.target,
            images=entry.images,
            metrics={
                **{metric: value.mean for metric, value in entry.metrics.items()},
                **entry.set_metrics,
            },
            intervals={metric: (value.low, value.high) for metric, value in entry.metrics.items()},
            trained_on=entry.trained_on,
            near_duplicates=entry.near_duplicates,
        )
        for entry in results.accuracy
        if entry.model == name
    ]


def benchmark_note(results: BenchResult, name: str) -> BenchmarkNote:
    """The latencies of one model, its differences to the teacher, and where it fails.

    With the machine and the data on which all that was measured.
    """
    machine = results.environment
    return BenchmarkNote(
        cpu=machine.cpu,
        created=machine.created,
        code_version=machine.code_version,
        data={key: record.model_dump() for key, record in results.data.items()},
        rows=[
            LatencyNote(
                precision=row.precision,
                target=row.target,
                p50=row.latency.p50,
                p90=row.latency.p90,
                p99=row.latency.p99,
                speedup=row.speedup.value if row.speedup is not None else None,
            )
            for row in results.rows
            if row.model == name and row.status == "ok" and row.latency is not None
        ],
        differences=[
            DifferenceNote(
                dataset=entry.dataset,
                protocol=entry.protocol,
                precision=entry.precision,
                target=entry.target,
                **asdict(entry.difference_to_teacher),
            )
            for entry in results.accuracy
            if entry.model == name and entry.difference_to_teacher is not None
        ],
        failures=_failures(results, name),
    )


def _failures(results: BenchResult, name: str) -> FailureNote | None:
    """What a mean hides of one model: sizes of polyps, missed ones, corrupted images.

    Of its smallest precision in the first runtime that was scored: what a device runs.
    """
    deployed = [e for e in results.accuracy if e.model == name and e.protocol == "deploy"]
    if not deployed:
        return None
    target = deployed[0].target
    kinds = {entry.precision for entry in deployed if entry.target == target}
    kind = "int8" if "int8" in kinds else min(kinds)
    chosen = AccuracyKey(name, kind, target)
    corrupted: dict[tuple[str, int], list[RobustnessEntry]] = {}
    for entry in results.robustness:
        if entry.key == chosen and "Dice" in entry.metrics:
            corrupted.setdefault((entry.corruption, entry.strength), []).append(entry)
    return FailureNote(
        precision=kind,
        target=target,
        sizes=[note for entry in deployed if entry.key == chosen for note in _size_notes(entry)],
        corrupted=[
            CorruptionNote(
                corruption=corruption,
                images=sum(entry.images for entry in corrupted[corruption, 0]),
                dice=[pooled_dice(corrupted[corruption, level]) for level in (0, *STRENGTHS)],
            )
            for corruption in dict.fromkeys(corruption for corruption, _ in corrupted)
        ],
    )


def _size_notes(entry: AccuracyEntry) -> Iterator[SizeNote]:
    for size, group in entry.by_size.items():
        dice, detected = group.metrics.get("Dice"), group.metrics.get("detected_frame")
        if dice is not None:
            yield SizeNote(
                dataset=entry.dataset,
                size=size,
                what=group.what,
                images=group.images,
                mean=dice.mean,
                low=dice.low,
                high=dice.high,
                detected=detected.mean if detected is not None else None,
            )
