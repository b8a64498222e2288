"""What a benchmark says of one bundle, in the form in which a manifest keeps it."""

from typing import Any

from kdas_edge.bundle.manifest import AccuracyRecord
from kdas_edge.bundle.reader import Bundle, model_files
from kdas_edge.data.corruptions import STRENGTHS
from kdas_edge.errors import UserError


def measured_name(results: dict[str, Any], bundle: Bundle) -> str:
    """The name under which a benchmark measured this very bundle.

    The model files decide, not the name nor the card: a bundle may be renamed or copied.

    Raises:
        UserError: the benchmark measured none, or other files of that name.
    """
    for name, model in results["models"].items():
        if is_measured(model, bundle):
            return str(name)
    known = ", ".join(results["models"])
    raise UserError(
        f"the benchmark measured {known}, but not the model files of {bundle.path.name}; "
        "run kdas-edge bench on this bundle"
    )


def is_measured(model: dict[str, Any], bundle: Bundle) -> bool:
    """True if an entry of a result's `models` is of exactly these model files."""
    names = [name for item in bundle.manifest.models for name in model_files(item)]
    recorded = model["files"]
    return all(
        name in recorded and recorded[name]["sha256"] == bundle.manifest.files[name].sha256
        for name in names
    )


def accuracy_records(results: dict[str, Any], name: str) -> list[AccuracyRecord]:
    """The accuracies of one model, with their intervals.

    Args:
        results: the JSON object of `kdas-edge bench`.
        name: of `measured_name`.
    """
    return [
        AccuracyRecord(
            dataset=entry["dataset"],
            protocol=entry["protocol"],
            precision=entry["precision"],
            runtime=entry["target"],
            images=entry["images"],
            metrics={
                **{metric: value["mean"] for metric, value in entry["metrics"].items()},
                **entry["set_metrics"],
            },
            intervals={
                metric: (value["low"], value["high"]) for metric, value in entry["metrics"].items()
            },
        )
        for entry in results["accuracy"]
        if entry["model"] == name
    ]


def benchmark_note(results: dict[str, Any], name: str) -> dict[str, Any]:
    """The latencies of one model, its differences to the teacher, and where it fails.

    With the machine and the data on which all that was measured.
    """
    machine = results["environment"]
    return {
        "cpu": machine["cpu"],
        "created": machine["created"],
        "code_version": machine["code_version"],
        "data": results["data"],
        "rows": [
            {
                "precision": row["precision"],
                "target": row["target"],
                **{key: row["latency"][key] for key in ("p50", "p90", "p99")},
                "speedup": row["speedup"]["value"] if "speedup" in row else None,
            }
            for row in results["rows"]
            if row["model"] == name and row["status"] == "ok" and "latency" in row
        ],
        "differences": [
            {
                **{key: entry[key] for key in ("dataset", "protocol", "precision", "target")},
                **entry["difference_to_teacher"],
            }
            for entry in results["accuracy"]
            if entry["model"] == name and "difference_to_teacher" in entry
        ],
        "failures": _failures(results, name),
    }


def _failures(results: dict[str, Any], name: str) -> dict[str, Any]:
    """What a mean hides of one model: sizes of polyps, missed ones, spoilt images.

    Of its smallest precision in the first runtime that was scored: what a device runs.
    """
    deployed = [
        entry
        for entry in results["accuracy"]
        if entry["model"] == name and entry["protocol"] == "deploy"
    ]
    if not deployed:
        return {}
    targets = list(dict.fromkeys(entry["target"] for entry in deployed))
    kinds = {entry["precision"] for entry in deployed if entry["target"] == targets[0]}
    kind = "int8" if "int8" in kinds else min(kinds)

    def chosen(entry: dict[str, Any]) -> bool:
        return (entry["model"], entry["precision"], entry["target"]) == (name, kind, targets[0])

    spoilt: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for entry in filter(chosen, results.get("robustness") or []):
        spoilt.setdefault((entry["corruption"], entry["strength"]), []).append(entry)
    return {
        "precision": kind,
        "target": targets[0],
        "sizes": [
            {
                "dataset": entry["dataset"],
                "size": size,
                "what": group["what"],
                "images": group["images"],
                **{key: group["metrics"]["Dice"][key] for key in ("mean", "low", "high")},
                "detected": group["metrics"].get("detected_frame", {}).get("mean"),
            }
            for entry in deployed
            if chosen(entry)
            for size, group in entry["by_size"].items()
            if "Dice" in group["metrics"]
        ],
        "spoilt": [
            {
                "corruption": corruption,
                "images": sum(entry["images"] for entry in spoilt[corruption, 0]),
                "dice": [pooled_dice(spoilt[corruption, level]) for level in (0, *STRENGTHS)],
            }
            for corruption in dict.fromkeys(corruption for corruption, _ in spoilt)
        ],
    }


def pooled_dice(entries: list[dict[str, Any]]) -> float:
    """Mean Dice of entries of several data sets, each image counting alike."""
    dice = [entry["metrics"]["Dice"] for entry in entries if "Dice" in entry["metrics"]]
    return float(sum(one["count"] * one["mean"] for one in dice) / sum(o["count"] for o in dice))
