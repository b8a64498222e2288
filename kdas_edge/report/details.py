"""What a page says of each row below its tables: properties, what was unavailable, the rest."""

from collections.abc import Iterator
from typing import Any

from kdas_edge.report.plots import target_label

# measurements of a row that may be unavailable, with a table each
_PARTS = ("end_to_end", "startup", "energy", "sustained")
# a row's keys that have a column or a table of their own
_SHOWN = {
    *("model", "role", "precision", "target", "machine", "status", "reason", "accuracy"),
    *("file_bytes", "load_ms", "latency", "speedup", "effective", "profile", "failure"),
    *_PARTS,
}
_LATENCY_SHOWN = {
    *("unit", "p50", "p90", "p95", "p99", "max", "min", "mean", "first", "samples"),
    *("warmup", "deadline_misses"),
}
# longer lists are curves, for the JSON file
_LISTED = 6


def unavailable_lines(results: dict[str, Any]) -> list[str]:
    """What could not be measured, and why; one line for each reason."""
    lines = [
        f"{part.replace('_', ' ')}: unavailable: {row[part]['unavailable']}"
        for part in _PARTS
        for row in results["rows"]
        if "unavailable" in row.get(part, {})
    ]
    return list(dict.fromkeys(lines))


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
