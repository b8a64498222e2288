"""Dice on corrupted images: corruption × strength against model."""

from collections.abc import Callable, Sequence

from kdas_edge.bench.accuracy_results import RobustnessEntry
from kdas_edge.table import NONE, Cell, Column, Table, build, count

Condition = tuple[str, int]


def robustness_tables(entries: Sequence[RobustnessEntry]) -> list[Table]:
    """One table per data set: Dice, and in brackets what is lost against the clean images.

    Args:
        entries: `robustness` of a result.
    """
    return [
        _of_set(name, [entry for entry in entries if entry.dataset == name])
        for name in dict.fromkeys(entry.dataset for entry in entries)
    ]


def _of_set(name: str, entries: Sequence[RobustnessEntry]) -> Table:
    networks = list(dict.fromkeys((entry.model, entry.precision) for entry in entries))
    found = {(e.corruption, e.strength, e.model, e.precision): e for e in entries}
    # the clean images stand once
    conditions = [(entries[0].corruption, 0)]
    conditions += dict.fromkeys((e.corruption, e.strength) for e in entries if e.strength)

    def score(model: str, precision: str) -> Callable[[Condition], Cell]:
        return lambda condition: _cell(found.get((*condition, model, precision)))

    columns: list[tuple[Column, Callable[[Condition], Cell]]] = [
        (
            Column("corruption"),
            lambda item: Cell(item[0].replace("_", " ") if item[1] else "clean"),
        ),
        (Column("strength", True), lambda item: count(item[1])),
    ]
    for place, network in enumerate(networks):
        # the last is the model that is meant for the device
        rank = len(networks) - 1 - place
        columns.append((Column(" ".join(network), True, rank), score(*network)))
    title = (
        f"Dice on corrupted images of {name} ({entries[0].images} images); in brackets the change "
        "from clean"
    )
    return build(title, columns, conditions)


def _cell(entry: RobustnessEntry | None) -> Cell:
    dice = entry.metrics.get("Dice") if entry is not None else None
    if entry is None or dice is None:
        return NONE
    change = entry.difference_to_clean
    if change is None:
        return Cell(f"{dice.mean:.3f}", dice.mean, f"95 %: {dice.low:.3f}–{dice.high:.3f}")
    note = f"change, 95 %: {change.low:+.3f} to {change.high:+.3f}"
    return Cell(f"{dice.mean:.3f} ({change.mean:+.3f})", dice.mean, note)
