"""Results as tables: the same rows for the terminal and for the page."""

from typing import Any

# what each protocol's table shows: heading, metric, decimals
_EVAL_COLUMNS = {
    "paper": (
        ("mDice", "mDice"),
        ("mIoU", "mIoU"),
        ("wF", "wFmeasure"),
        ("S", "Smeasure"),
        ("max E", "maxEmeasure"),
        ("MAE", "MAE"),
    ),
    "deploy": (
        ("Dice", "Dice"),
        ("IoU", "IoU"),
        ("sensitivity", "sensitivity"),
        ("precision", "precision"),
        ("specificity", "specificity"),
        ("missed", "missed_frame"),
        ("false-positive frames", "false_positive_frame"),
    ),
}
_TITLES = {
    "paper": "protocol paper: maps stretched, mean over 256 thresholds (PraNet)",
    "deploy": "protocol deploy: fixed threshold {threshold:g}, every frame counts",
}


def evaluation_table(
    results: dict[str, Any], protocol: str
) -> tuple[str, list[str], list[list[str]]] | None:
    """Title, headings and cells of one protocol's table, or None if it was not computed.

    Args:
        results: the JSON object of `kdas-edge eval`.
        protocol: `paper` or `deploy`.
    """
    found = [entry for entry in results["results"] if entry["protocol"] == protocol]
    if not found:
        return None
    columns = _EVAL_COLUMNS[protocol]
    rows = []
    for entry in found:
        main = entry["metrics"].get(columns[0][1])
        interval = f"{main['low']:.3f}–{main['high']:.3f}" if main else "–"
        cells = [_metric(entry, metric) for _, metric in columns]
        rows.append([entry["dataset"], str(entry["images"]), cells[0], interval, *cells[1:]])
    headings = ["data set", "images", columns[0][0], "95 % interval"]
    headings += [heading for heading, _ in columns[1:]]
    return _TITLES[protocol].format(threshold=results["threshold"]), headings, rows


def _metric(entry: dict[str, Any], name: str) -> str:
    if name in entry["set_metrics"]:
        return f"{entry['set_metrics'][name]:.3f}"
    value = entry["metrics"].get(name)
    if value is None:
        return "–"
    if name in ("missed_frame", "false_positive_frame"):
        return f"{round(value['mean'] * value['count'])} of {value['count']}"
    return f"{value['mean']:.3f}"


def bench_table(results: dict[str, Any]) -> tuple[str, list[str], list[list[str]]]:
    """Title, headings and cells of a benchmark, one row per model × precision × target.

    Args:
        results: the JSON object of `kdas-edge bench`.
    """
    sets = list(results["data"])
    dice = main_accuracies(results)
    headings = ["model", "precision", "target", "p50 ms", "p90 ms", "p99 ms", "× teacher (95 %)"]
    headings += ["MB", *(f"Dice {name}" for name in sets), "status"]
    cells = []
    for row in results["rows"]:
        timing, ratio = row.get("latency"), row.get("speedup")
        accuracy = dice.get(row.get("accuracy", ""), {})
        cells.append(
            [
                row["model"],
                row["precision"],
                row["target"],
                *(f"{timing[name]:.2f}" if timing else "–" for name in ("p50", "p90", "p99")),
                ratio_text(ratio) if ratio else "–",
                f"{row['file_bytes'] / 1e6:.2f}" if "file_bytes" in row else "–",
                *(f"{accuracy[name]['mean']:.3f}" if name in accuracy else "–" for name in sets),
                _status(row),
            ]
        )
    batched = any(":batch=" in row["target"] for row in results["rows"])
    title = (
        f"latency: synchronous, batch {'as the target says, else 1' if batched else 1}, model only"
    )
    if sets:
        title += "; Dice: protocol deploy, fixed threshold"
    return title, headings, cells


def _status(row: dict[str, Any]) -> str:
    if row["status"] == "ok":
        return "ok"
    return f"FAILED: {row['failure']}" if row.get("failure") else "FAILED"


def ratio_text(ratio: dict[str, float]) -> str:
    """A ratio with its interval, with as many digits as the interval is worth."""
    digits = 1 if ratio["value"] >= 10 else 2
    value, low, high = (f"{ratio[name]:.{digits}f}" for name in ("value", "low", "high"))
    return value if low == high else f"{value} ({low}–{high})"


def bench_failures(results: dict[str, Any]) -> list[str]:
    """One line for each row that failed, with the reason."""
    return [
        f"FAILED {row['model']} {row['precision']} on {row['target']}: {row['reason']}"
        for row in results["rows"]
        if row["status"] != "ok"
    ]


def main_accuracies(results: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Accuracy key -> data set -> mean Dice of the deploy protocol with its interval."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for entry in results["accuracy"]:
        if entry["protocol"] == "deploy" and "Dice" in entry["metrics"]:
            found.setdefault(entry["key"], {})[entry["dataset"]] = entry["metrics"]["Dice"]
    return found
