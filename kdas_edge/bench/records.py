"""What a benchmark says of one bundle, in the form in which a manifest keeps it."""

from typing import Any

from kdas_edge.bundle.manifest import AccuracyRecord
from kdas_edge.bundle.reader import Bundle, model_files
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
    """The latencies of one model, its differences to the teacher, and where they were measured."""
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
    }
