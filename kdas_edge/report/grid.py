"""The page's tables: headings and cells, with the number that each cell is sorted by."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kdas_edge.bench.overview import overview_tables
from kdas_edge.report.plots import target_label
from kdas_edge.report.tables import main_accuracies, ratio_text

# what the accuracy table shows for each protocol
ACCURACY_METRICS = {
    "paper": ("mDice", "mIoU", "wFmeasure", "Smeasure", "maxEmeasure", "MAE"),
    "deploy": ("Dice", "IoU", "sensitivity", "precision", "specificity"),
}


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
        columns.append((f"Dice {name}", _dice(dice, name)))
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


def more_grids(results: dict[str, Any]) -> list[tuple[str, Grid]]:
    """The tables that the terminal shows below the main one, with their titles.

    Args:
        results: also of an older version, whose rows lack what a table needs; it is left out.
    """
    labelled = [{**row, "target": target_label(row)} for row in results["rows"]]
    for row in labelled:
        if not {"p95", "warmup", "deadline_misses"} <= row.get("latency", {}).keys():
            row.pop("latency", None)
    throughput = [{**row, "target": target_label(row)} for row in results.get("throughput", [])]
    found = {**results, "rows": labelled, "throughput": throughput}
    return [
        (title, _from_text(headings, cells)) for title, headings, cells in overview_tables(found)
    ]


def size_grid(results: dict[str, Any]) -> Grid | None:
    """Dice by size of polyp, and whole frames missed or falsely marked; None without them."""
    entries = [e for e in results["accuracy"] if e["protocol"] == "deploy" and "by_size" in e]
    if not entries:
        return None
    groups = {name: part["what"] for e in entries for name, part in e["by_size"].items()}
    shares = {
        "polyps found": "sensitivity",
        "found at IoU 0.5": "sensitivity_iou50",
        "polyp-free frames marked": "false_positive_frames",
    }
    headings = [(name, False) for name in ("model", "precision", "computed on", "data set")]
    headings += [(f"Dice {name} ({what})", True) for name, what in groups.items()]
    headings += [(heading, True) for heading in (*shares, "int8 − fp32 (95 %)")]
    rows = []
    for entry in entries:
        row = [Cell(entry[name]) for name in ("model", "precision", "target", "dataset")]
        for name in groups:
            dice = entry["by_size"].get(name, {}).get("metrics", {}).get("Dice")
            row.append(_estimate(dice))
        row += [_estimate(entry.get("frames", {}).get(name)) for name in shares.values()]
        own = entry.get("difference_to_fp32") if entry["precision"] == "int8" else None
        rows.append([*row, _difference(own)])
    return Grid(headings, rows)


def robustness_grid(results: dict[str, Any]) -> Grid | None:
    """Dice of each model on each corruption and strength; None where it was not measured."""
    entries = [e for e in results.get("robustness") or [] if "Dice" in e["metrics"]]
    if not entries:
        return None
    models = list(dict.fromkeys((e["model"], e["precision"]) for e in entries))
    found = {
        (e["dataset"], e["corruption"], e["strength"], e["model"], e["precision"]): e
        for e in entries
    }
    headings = [("data set", False), ("corruption", False), ("strength", True)]
    headings += [(f"{model} {precision}", True) for model, precision in models]
    rows = []
    for key in dict.fromkeys((e["dataset"], e["corruption"], e["strength"]) for e in entries):
        dataset, corruption, strength = key
        row = [Cell(dataset), Cell(corruption.replace("_", " ")), Cell(str(strength), strength)]
        for model in models:
            entry = found.get((*key, *model))
            row.append(_estimate(entry["metrics"]["Dice"] if entry else None))
        rows.append(row)
    return Grid(headings, rows)


def _at(*path: str, digits: int) -> Callable[[dict[str, Any]], Cell]:
    def cell(row: dict[str, Any]) -> Cell:
        value: Any = row
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return _number(value, digits)

    return cell


def _number(value: float | None, digits: int) -> Cell:
    return _NONE if value is None else Cell(f"{value:.{digits}f}", value)


def _megabytes(row: dict[str, Any]) -> float | None:
    return row["file_bytes"] / 1e6 if "file_bytes" in row else None


def _ratio(row: dict[str, Any]) -> Cell:
    ratio = row.get("speedup")
    return Cell(ratio_text(ratio), ratio["value"]) if ratio else _NONE


def _dice(
    dice: dict[str, dict[str, dict[str, float]]], dataset: str
) -> Callable[[dict[str, Any]], Cell]:
    return lambda row: _estimate(dice.get(row.get("accuracy", ""), {}).get(dataset))


def _metric(entry: dict[str, Any], name: str) -> Cell:
    if name in entry["set_metrics"]:
        return _number(entry["set_metrics"][name], 3)
    return _estimate(entry["metrics"].get(name))


def _estimate(found: dict[str, float] | None) -> Cell:
    if found is None:
        return _NONE
    title = f"95 %: {found['low']:.3f}–{found['high']:.3f}, {found['count']} images"
    return Cell(f"{found['mean']:.3f}", found["mean"], title)


def _from_text(headings: list[str], cells: list[list[str]]) -> Grid:
    """A grid of a table that was made for the terminal; columns of numbers are sorted as such."""
    parsed = [[Cell(text, _leading_number(text)) for text in row] for row in cells]
    numeric = [
        all(row[i].value is not None or row[i].text in ("–", "") for row in parsed)
        for i in range(len(headings))
    ]
    return Grid(list(zip(headings, numeric, strict=True)), parsed)


def _leading_number(text: str) -> float | None:
    try:
        return float(text.split()[0])
    except (ValueError, IndexError):
        return None


def _difference(found: dict[str, float] | None) -> Cell:
    if found is None:
        return _NONE
    text = f"{found['mean']:+.3f} ({found['low']:+.3f} … {found['high']:+.3f})"
    return Cell(text, found["mean"])
