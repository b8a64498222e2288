"""The page's tables: headings and cells, with the number that each cell is sorted by."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from kdas_edge.bench.report.plots import target_label
from kdas_edge.bench.report.tables import main_accuracies, ratio_text

# what the accuracy table shows for each protocol
ACCURACY_METRICS = {
    "paper": ("mDice", "mIoU", "wFmeasure", "Smeasure", "maxEmeasure", "MAE"),
    "deploy": ("Dice", "IoU", "sensitivity", "precision", "specificity"),
}
# a row's keys that have a column or a table of their own
_SHOWN = {
    *("model", "role", "precision", "target", "machine", "status", "reason", "accuracy"),
    *("file_bytes", "load_ms", "latency", "speedup", "effective", "profile"),
}
_LATENCY_SHOWN = {*("unit", "p50", "p90", "p95", "p99", "max", "first", "samples")}
# frames a second whose missed deadlines have a column; the others stand under the further numbers
_DEADLINES = ("25", "60")
# longer lists are curves, for the JSON file
_LISTED = 6


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: as it is shown.
        value: what a numeric column is sorted by; None sorts to the end.
        title: shown on hovering.
    """

    text: str
    value: float | None = None
    title: str = ""


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        headings: text and whether the column holds numbers.
        rows: cells, as many as headings.
        failed: numbers of the rows that failed.
    """

    headings: list[tuple[str, bool]]
    rows: list[list[Cell]]
    failed: frozenset[int] = frozenset()


_NONE = Cell("–")


def results_grid(results: dict[str, Any]) -> Grid:
    """One row per model × precision × target; columns that no row has are left out."""
    dice = main_accuracies(results)
    rows = results["rows"]
    columns: list[tuple[str, Callable[[dict[str, Any]], Cell]]] = []
    for name in ("p50", "p90", "p95", "p99", "max"):
        columns.append((f"{name} ms", _at("latency", name, digits=2)))
    columns.append(("× teacher", _ratio))
    columns.append(("MB", lambda row: _number(_megabytes(row), 2)))
    for name in results["data"]:
        columns.append((f"Dice {name}", lambda row, name=name: _dice(dice, row, name)))
    for fps in _DEADLINES:
        columns.append((f"late at {fps}/s, %", _late(fps)))
    columns.append(("first ms", _at("latency", "first", digits=2)))
    columns.append(("load ms", _at("load_ms", digits=0)))
    kept = [
        (heading, cell)
        for heading, cell in columns
        if heading == "p50 ms" or any(cell(row) is not _NONE for row in rows)
    ]
    headings = [("model", False), ("precision", False), ("target", False)]
    headings += [(heading, True) for heading, _ in kept]
    cells = []
    for row in rows:
        names = [Cell(row["model"]), Cell(row["precision"]), Cell(target_label(row))]
        values = [cell(row) for _, cell in kept]
        if row["status"] != "ok":
            values[0] = Cell("FAILED", title=str(row["reason"]))
        cells.append([*names, *values])
    failed = frozenset(i for i, row in enumerate(rows) if row["status"] != "ok")
    return Grid(headings, cells, failed)


def accuracy_grid(results: dict[str, Any], protocol: str) -> Grid | None:
    """One row per model × precision × runtime × data set of a protocol; None if there is none."""
    entries = [entry for entry in results["accuracy"] if entry["protocol"] == protocol]
    if not entries:
        return None
    names = ACCURACY_METRICS[protocol]
    headings = [(name, False) for name in ("model", "precision", "computed on", "data set")]
    headings += [(name, True) for name in ("images", *names, "difference (95 %)")]
    rows = []
    for entry in entries:
        row = [Cell(entry[name]) for name in ("model", "precision", "target", "dataset")]
        row.append(Cell(str(entry["images"]), entry["images"]))
        row += [_metric(entry, name) for name in names]
        row.append(_difference(entry.get("difference_to_teacher")))
        rows.append(row)
    return Grid(headings, rows)


def effective_lines(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Each row's name and what its runtime says it does."""
    return [
        (_name(row), "; ".join(f"{key}: {value}" for key, value in row["effective"].items()))
        for row in results["rows"]
        if row.get("effective")
    ]


def further_lines(results: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """What else each row holds, whatever this version of the benchmark measured.

    Returns:
        Name of the row, and names and values; lists of samples are left to the JSON file.
    """
    found = []
    for row in results["rows"]:
        rest = {key: value for key, value in row.items() if key not in _SHOWN}
        latency = row.get("latency", {})
        rest |= {
            f"latency {key}": value for key, value in latency.items() if key not in _LATENCY_SHOWN
        }
        lines = [line for key, value in rest.items() for line in _flat(key, value)]
        if lines:
            found.append((_name(row), lines))
    return found


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    name = name.replace("_", " ")
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{name} {key}", inner)
    elif isinstance(value, list):
        if len(value) <= _LISTED and not any(isinstance(item, dict | list) for item in value):
            yield name, ", ".join(_short(item) for item in value)
    else:
        yield name, _short(value)


def _short(value: Any) -> str:
    if value is None:
        return "not told"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _name(row: dict[str, Any]) -> str:
    return f"{row['model']} {row['precision']}, {target_label(row)}"


def _at(*path: str, digits: int) -> Callable[[dict[str, Any]], Cell]:
    def cell(row: dict[str, Any]) -> Cell:
        value: Any = row
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return _number(value, digits)

    return cell


def _late(fps: str) -> Callable[[dict[str, Any]], Cell]:
    def cell(row: dict[str, Any]) -> Cell:
        fraction = row.get("latency", {}).get("deadline_misses", {}).get(fps)
        return _NONE if fraction is None else _number(100 * fraction, 1)

    return cell


def _number(value: float | None, digits: int) -> Cell:
    return _NONE if value is None else Cell(f"{value:.{digits}f}", value)


def _megabytes(row: dict[str, Any]) -> float | None:
    return row["file_bytes"] / 1e6 if "file_bytes" in row else None


def _ratio(row: dict[str, Any]) -> Cell:
    ratio = row.get("speedup")
    return Cell(ratio_text(ratio), ratio["value"]) if ratio else _NONE


def _dice(dice: dict[str, dict[str, dict[str, float]]], row: dict[str, Any], name: str) -> Cell:
    found = dice.get(row.get("accuracy", ""), {}).get(name)
    if found is None:
        return _NONE
    title = f"95 %: {found['low']:.3f}–{found['high']:.3f}"
    return Cell(f"{found['mean']:.3f}", found["mean"], title)


def _metric(entry: dict[str, Any], name: str) -> Cell:
    if name in entry["set_metrics"]:
        return _number(entry["set_metrics"][name], 3)
    found = entry["metrics"].get(name)
    if found is None:
        return _NONE
    title = f"95 %: {found['low']:.3f}–{found['high']:.3f}, {found['count']} images"
    return Cell(f"{found['mean']:.3f}", found["mean"], title)


def _difference(found: dict[str, float] | None) -> Cell:
    if found is None:
        return _NONE
    text = f"{found['mean']:+.3f} ({found['low']:+.3f} … {found['high']:+.3f})"
    return Cell(text, found["mean"])
