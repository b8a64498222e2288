"""The tables of the model card: what they show, from the manifest."""

from collections.abc import Callable, Sequence

from kdas_edge.bundle.benchmark_note import (
    CorruptionNote,
    DifferenceNote,
    LatencyNote,
    SizeNote,
)
from kdas_edge.bundle.manifest import AccuracyRecord, Manifest, ModelFile
from kdas_edge.table import NONE, Cell, Column, Table, build, count, number

# which metrics of each protocol the card shows, in this order; others follow in the manifest
_METRICS = {
    "deploy": ("Dice", "IoU", "sensitivity", "precision", "specificity"),
    "paper": ("mDice", "mIoU", "wFmeasure", "Smeasure", "maxEmeasure", "MAE"),
}
_HEADINGS = {"specificity": "pixel specificity"}


def files(manifest: Manifest) -> Table:
    """Every model file."""

    def megabytes(model: ModelFile) -> Cell:
        weights = model.path.removesuffix(".xml") + ".bin"
        names = {model.path, weights} if model.path.endswith(".xml") else {model.path}
        found = [manifest.files[name].bytes for name in names if name in manifest.files]
        return number(sum(found) / 1e6)

    columns: list[tuple[Column, Callable[[ModelFile], Cell]]] = [
        (Column("file"), lambda model: Cell(model.path)),
        (Column("precision"), lambda model: Cell(model.precision)),
        (Column("format"), lambda model: Cell(model.format)),
        (Column("preset"), lambda model: Cell(model.preset)),
        (Column("MB", True), megabytes),
        (Column("IR version", True), lambda model: count(model.ir_version)),
        (Column("opset", True), lambda model: count(model.opset)),
    ]
    return build("files", columns, manifest.models)


def accuracies(records: Sequence[AccuracyRecord], protocol: str) -> Table:
    """Metrics with their intervals, one row per data set, precision and runtime."""

    def metric(name: str) -> Callable[[AccuracyRecord], Cell]:
        def cell(record: AccuracyRecord) -> Cell:
            value = record.metrics.get(name)
            if value is None or name not in record.intervals:
                return number(value, 3)
            low, high = record.intervals[name]
            return Cell(f"{value:.3f} ({low:.3f}–{high:.3f})", value)

        return cell

    columns: list[tuple[Column, Callable[[AccuracyRecord], Cell]]] = [
        (Column("data set"), lambda record: Cell(record.dataset)),
        (Column("precision"), lambda record: Cell(record.precision)),
        (Column("runtime"), lambda record: Cell(record.runtime)),
        (Column("images", True), lambda record: count(record.images)),
    ]
    # rank 1: left out where no record has the metric
    columns += [
        (Column(_HEADINGS.get(name, name), True, 1), metric(name)) for name in _METRICS[protocol]
    ]
    return build(f"protocol {protocol}", columns, records)


def differences(notes: Sequence[DifferenceNote]) -> Table:
    """Paired differences to the fp32 teacher."""
    columns: list[tuple[Column, Callable[[DifferenceNote], Cell]]] = [
        (Column("data set"), lambda note: Cell(note.dataset)),
        (Column("protocol"), lambda note: Cell(note.protocol)),
        (Column("precision"), lambda note: Cell(note.precision)),
        (Column("runtime"), lambda note: Cell(note.target)),
        (
            Column("difference (95 %)"),
            lambda note: Cell(
                f"{note.metric} {note.mean:+.3f} ({note.low:+.3f} … {note.high:+.3f})", note.mean
            ),
        ),
    ]
    return build("difference to the fp32 teacher", columns, notes)


def sizes(notes: Sequence[SizeNote]) -> Table:
    """Dice by size of polyp."""
    columns: list[tuple[Column, Callable[[SizeNote], Cell]]] = [
        (Column("data set"), lambda note: Cell(note.dataset)),
        (Column("polyp"), lambda note: Cell(f"{note.size}, {note.what}")),
        (Column("images", True), lambda note: count(note.images)),
        (
            Column("Dice", True),
            lambda note: Cell(f"{note.mean:.3f} ({note.low:.3f}–{note.high:.3f})", note.mean),
        ),
        (
            Column("found (IoU of at least 0.5)", True),
            lambda note: number(note.detected, 0, " %", scale=100),
        ),
    ]
    return build("by size of polyp", columns, notes)


def corruptions(notes: Sequence[CorruptionNote]) -> Table:
    """Dice under each corruption, what costs most first."""

    def strength(level: int) -> Callable[[CorruptionNote], Cell]:
        return lambda note: number(note.dice[level], 3) if level < len(note.dice) else NONE

    columns: list[tuple[Column, Callable[[CorruptionNote], Cell]]] = [
        (Column("what"), lambda note: Cell(note.corruption.replace("_", " "))),
        (Column("everyday", True), strength(1)),
        (Column("poor", True), strength(2)),
        (Column("bad", True), strength(3)),
    ]
    return build("corrupted images", columns, sorted(notes, key=lambda note: sum(note.dice[1:])))


def latencies(notes: Sequence[LatencyNote]) -> Table:
    """Latencies and the ratio to the teacher."""
    columns: list[tuple[Column, Callable[[LatencyNote], Cell]]] = [
        (Column("precision"), lambda note: Cell(note.precision)),
        (Column("target"), lambda note: Cell(note.target)),
        (Column("p50 ms", True), lambda note: number(note.p50)),
        (Column("p90 ms", True), lambda note: number(note.p90)),
        (Column("p99 ms", True), lambda note: number(note.p99)),
        (Column("× teacher", True), lambda note: number(note.speedup)),
    ]
    return build("latency", columns, notes)
