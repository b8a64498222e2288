"""Accuracy by protocol, and by size of polyp: of `kdas-edge eval`, and of a benchmark's page."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from kdas_edge.bench.accuracy_results import AccuracyEntry, SizeGroup
from kdas_edge.bench.result_base import Protocol
from kdas_edge.metrics.bootstrap import Estimate
from kdas_edge.report.results_table import (
    TRAINED_ON,
    UNKNOWN_ALARMS,
    dice_cell,
    difference_cell,
    estimate_cell,
)
from kdas_edge.table import NONE, Cell, Column, Table, build, count, number

TITLES: dict[Protocol, str] = {
    "paper": "protocol paper: maps stretched, mean over 256 thresholds (PraNet)",
    "deploy": "protocol deploy: fixed threshold, every frame counts",
}
# metric, heading, rank; the main metric has columns of its own
_METRICS: dict[Protocol, tuple[tuple[str, str, int], ...]] = {
    "paper": (
        ("mIoU", "mIoU", 1),
        ("wFmeasure", "wF", 3),
        ("Smeasure", "S", 3),
        ("maxEmeasure", "max E", 3),
        ("MAE", "MAE", 2),
    ),
    "deploy": (
        ("IoU", "IoU", 2),
        ("sensitivity", "sensitivity", 4),
        ("precision", "precision", 5),
        ("specificity", "pixel specificity", 6),
    ),
}


def accuracy_table(
    entries: Sequence[AccuracyEntry], protocol: Protocol, title: str = ""
) -> Table | None:
    """One row per model × precision × runtime × data set.

    Args:
        entries: of a result; those of another protocol are left out.
        protocol: whose metrics are shown.
        title: before what the protocol is.

    Returns:
        None where the protocol was not computed.
    """
    chosen = [entry for entry in entries if entry.protocol == protocol]
    if not chosen:
        return None
    columns = [
        *_names(chosen),
        (Column("images", True, 3), lambda entry: count(entry.images)),
        (Column("mDice" if protocol == "paper" else "Dice", True), dice_cell),
        (Column("95 % interval", rank=1), lambda entry: _interval(entry.main)),
        *((Column(head, True, rank), _metric(name)) for name, head, rank in _METRICS[protocol]),
    ]
    if protocol == "deploy":
        columns += [
            (Column("polyps found", rank=1), lambda entry: _share(entry, "sensitivity")),
            (Column("at IoU 0.5", rank=2), lambda entry: _share(entry, "sensitivity_iou50")),
            (
                Column("polyp-free frames marked"),
                lambda entry: _share(entry, "false_positive_frames"),
            ),
        ]
    columns.append(
        (Column("difference (95 %)", True, 2), lambda e: difference_cell(e.difference_to_teacher))
    )
    below = []
    if protocol == "deploy" and not any(e.frames and e.frames.polyp_free_frames for e in chosen):
        below.append(UNKNOWN_ALARMS)
    below += known_images(chosen)
    heading = f"{title}, {TITLES[protocol]}" if title else TITLES[protocol]
    return build(heading, columns, chosen, "; ".join(dict.fromkeys(below)))


def known_images(entries: Iterable[AccuracyEntry]) -> list[str]:
    """One line for each data set of which a model knows images, or some that look like them."""
    lines = []
    for entry in entries:
        of = f"of the {entry.images} images of {entry.dataset}"
        if entry.trained_on:
            lines.append(f"{TRAINED_ON} {entry.model} was trained on {entry.trained_on} {of}")
        if entry.near_duplicates:
            lines.append(f"{entry.near_duplicates} {of} look like one it was trained on")
    return list(dict.fromkeys(lines))


def size_table(entries: Sequence[AccuracyEntry], title: str = "") -> Table | None:
    """One row per size of polyp: Dice, polyps found, and polyp-free frames marked.

    Args:
        entries: of a result; those of the paper protocol are left out.
        title: before what the table is.

    Returns:
        None without the deploy protocol.
    """
    chosen = [entry for entry in entries if entry.protocol == "deploy"]
    parts = [_Part(e, name, group) for e in chosen for name, group in e.by_size.items()]
    if not parts:
        return None
    names = [(column, lambda part, cell=cell: cell(part.entry)) for column, cell in _names(chosen)]
    columns: list[tuple[Column, Callable[[_Part], Cell]]] = [
        *names,
        (Column("polyps"), lambda part: Cell(f"{part.name} ({part.group.what})")),
        (Column("images", True), lambda part: count(part.group.images)),
        (Column("Dice", True), lambda part: estimate_cell(part.group.metrics.get("Dice"))),
        (Column("95 % interval", rank=1), lambda part: _interval(part.group.metrics.get("Dice"))),
        (Column("missed", rank=1), lambda part: _number_of(part, "missed_frame")),
        (Column("found at IoU 0.5", rank=2), lambda part: _number_of(part, "detected_frame")),
        (Column("frames marked", rank=1), lambda part: _number_of(part, "false_positive_frame")),
        (
            Column("int8 − fp32 (95 %)", True, 3),
            lambda part: difference_cell(
                part.group.difference_to_fp32 if part.entry.precision == "int8" else None
            ),
        ),
    ]
    heading = "by size of polyp, protocol deploy"
    return build(f"{title}, {heading}" if title else heading, columns, parts)


@dataclass(frozen=True)
class _Part:
    """One size group of one entry."""

    entry: AccuracyEntry
    name: str
    group: SizeGroup


def _names(
    entries: Sequence[AccuracyEntry],
) -> list[tuple[Column, Callable[[AccuracyEntry], Cell]]]:
    """Whose numbers they are, as far as the entries differ."""
    columns: list[tuple[Column, Callable[[AccuracyEntry], Cell]]] = [
        (Column("model"), lambda entry: Cell(entry.model)),
        (Column("precision"), lambda entry: Cell(entry.precision)),
        (Column("computed on"), _place),
    ]
    if len({entry.key for entry in entries}) == 1:
        columns = []
    return [*columns, (Column("data set"), lambda entry: Cell(entry.dataset))]


def _place(entry: AccuracyEntry) -> Cell:
    return Cell(f"{entry.target} · {entry.machine}" if entry.machine else entry.target)


def _metric(name: str) -> Callable[[AccuracyEntry], Cell]:
    def cell(entry: AccuracyEntry) -> Cell:
        if name in entry.set_metrics:
            return number(entry.set_metrics[name], 3)
        return estimate_cell(entry.metrics.get(name))

    return cell


def _interval(found: Estimate | None) -> Cell:
    return NONE if found is None else Cell(f"{found.low:.3f}–{found.high:.3f}")


def _share(entry: AccuracyEntry, name: str) -> Cell:
    found: Estimate | None = getattr(entry.frames, name, None)
    if found is None:
        return NONE
    text = f"{round(found.mean * found.count)} of {found.count}"
    return Cell(f"{text} ({100 * found.low:.0f}–{100 * found.high:.0f} %)", found.mean)


def _number_of(part: _Part, metric: str) -> Cell:
    found = part.group.metrics.get(metric)
    if found is None:
        return NONE
    return Cell(f"{round(found.mean * found.count)} of {found.count}", found.mean)
