"""Joining the benchmarks of several machines into one result, for one page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdas_edge.bench.harness import SCHEMA
from kdas_edge.errors import UserError
from kdas_edge.files import read_json

_NEEDED = ("disclaimer", "environment", "settings", "data", "models", "rows", "accuracy")


def read(path: Path) -> dict[str, Any]:
    """Read a result file of `kdas-edge bench`.

    Raises:
        UserError: unreadable, not JSON, another schema, or incomplete.
    """
    results = read_json(path)
    schema = results.get("schema") if isinstance(results, dict) else None
    if schema != SCHEMA:
        raise UserError(
            f"{path} has schema {schema!r}, this kdas-edge reads {SCHEMA!r}; "
            "write it with kdas-edge bench of this version"
        )
    absent = [name for name in _NEEDED if name not in results]
    if absent:
        raise UserError(
            f"{path} has no {absent[0]!r}, so it is no complete result; write it again with "
            "kdas-edge bench --json"
        )
    return dict(results)


def join(parts: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Join results, for example of several machines.

    Latencies always stand side by side. Accuracies of a data set are left out, and a note says so,
    where the files were computed on other images under the same name.

    Args:
        parts: a label (the file's name) and the result of each file.

    Returns:
        One result; with more than one part, rows carry `machine`, and `environments` replaces
        `environment` on the page.
    """
    if len(parts) == 1:
        return parts[0][1]
    labels = _labels([label for label, _ in parts])
    joined: dict[str, Any] = {
        **parts[0][1],
        "environments": [],
        "rows": [],
        "accuracy": [],
        "throughput": [],
        "robustness": [],
        "models": {},
        "data": {},
        "notes": [],
    }
    conflicting = _conflicts([results for _, results in parts])
    for name in conflicting:
        joined["notes"].append(
            f"Accuracies on {name} are not compared and left out: the files were computed on "
            "different images. Latencies can still be compared."
        )
    for label, (_, results) in zip(labels, parts, strict=True):
        renamed = _renamed(joined["models"], results["models"], label)
        joined["models"].update({renamed[name]: model for name, model in results["models"].items()})
        joined["environments"].append({"label": label, "environment": results["environment"]})
        for row in results["rows"]:
            row = {**row, "model": renamed[row["model"]], "machine": label}
            if "accuracy" in row:
                row["accuracy"] = f"{label}|{row['accuracy']}"
            joined["rows"].append(row)
        for entry in results["accuracy"]:
            if entry["dataset"] not in conflicting:
                joined["accuracy"].append(
                    {
                        **entry,
                        "key": f"{label}|{entry['key']}",
                        "model": renamed[entry["model"]],
                    }
                )
        for row in results.get("throughput", []):
            joined["throughput"].append({**row, "model": renamed[row["model"]], "machine": label})
        measured = {_same_masks(entry) for entry in joined["robustness"]}
        for entry in results.get("robustness", []):
            entry = {**entry, "model": renamed[entry["model"]]}
            # the same model in the same runtime gives the same masks on another machine
            if entry["dataset"] not in conflicting and _same_masks(entry) not in measured:
                joined["robustness"].append(entry)
        for name, record in results["data"].items():
            if name not in conflicting:
                joined["data"][name] = record
    if any(results["settings"] != parts[0][1]["settings"] for _, results in parts):
        joined["notes"].append("The files were measured with different settings.")
    return joined


def _conflicts(results: Sequence[dict[str, Any]]) -> list[str]:
    """Names of data sets whose images differ between the files."""
    seen: dict[str, set[str]] = {}
    for part in results:
        for name, record in part["data"].items():
            seen.setdefault(name, set()).add(record["sha256"])
    return [name for name, digests in seen.items() if len(digests) > 1]


def _same_masks(entry: dict[str, Any]) -> tuple[str, ...]:
    return entry["model"], entry["precision"], entry["target"], entry["dataset"]


def _renamed(known: dict[str, Any], models: dict[str, Any], label: str) -> dict[str, str]:
    """New names for models that share a name with another model of an earlier file."""
    return {
        name: name
        if name not in known or known[name]["files"] == model["files"]
        else f"{name} ({label})"
        for name, model in models.items()
    }


def _labels(names: Sequence[str]) -> list[str]:
    return [
        name if names.count(name) == 1 else f"{name} {names[: index + 1].count(name)}"
        for index, name in enumerate(names)
    ]
