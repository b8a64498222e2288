"""The page: one HTML file that works offline, with the plot's library inside it.

A Content-Security-Policy in the page forbids every request, so that "no CDN" is enforced by the
browser instead of promised.
"""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdas_edge.bench.report.gallery import Case
from kdas_edge.bench.report.plots import pareto_chart, target_label
from kdas_edge.bench.report.tables import bench_failures, main_accuracies, ratio_text
from kdas_edge.files import write_bytes_atomic, write_text_atomic
from kdas_edge.overlay import GROUND_TRUTH, PREDICTION

_TEMPLATE = "page.html.j2"
# what the accuracy table shows for each protocol
_ACCURACY = {
    "paper": ("mDice", "mIoU", "wFmeasure", "Smeasure", "maxEmeasure", "MAE"),
    "deploy": ("Dice", "IoU", "sensitivity", "precision", "specificity"),
}


def write(path: Path, results: dict[str, Any], overlays: Sequence[Case]) -> None:
    """Write the page and `pareto.png`, `pareto.svg` beside it; see `report.write_page`."""
    import vl_convert

    spec = pareto_chart(results).to_dict()
    text = render(results, overlays, spec)
    # files are read on white paper or a white page, whatever the browser's theme
    still = {**spec, "background": "white"}
    write_bytes_atomic(path.parent / "pareto.png", vl_convert.vegalite_to_png(still, scale=2))
    write_text_atomic(path.parent / "pareto.svg", vl_convert.vegalite_to_svg(still))
    write_text_atomic(path, text)


def render(results: dict[str, Any], overlays: Sequence[Case], spec: dict[str, Any]) -> str:
    """The page as a string."""
    import jinja2
    import vl_convert

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kdas_edge.bench.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(_TEMPLATE).render(
        results=results,
        rows=_rows(results),
        failures=bench_failures(results),
        headline=_headline(results),
        accuracy=[_accuracy(results, protocol) for protocol in _ACCURACY],
        environments=results.get("environments")
        or [{"label": None, "environment": results["environment"]}],
        notes=results.get("notes", []),
        cases=[_case(case) for case in overlays],
        spec=_script_safe(json.dumps(spec)),
        library=_script_safe(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")),
        colors={"truth": GROUND_TRUTH, "prediction": PREDICTION},
    )


def _rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    dice = main_accuracies(results)
    rows = []
    for row in results["rows"]:
        ratio = row.get("speedup")
        rows.append(
            {
                "model": row["model"],
                "precision": row["precision"],
                "target": target_label(row),
                "latency": row.get("latency"),
                "load_ms": row.get("load_ms"),
                "ratio": ratio["value"] if ratio else None,
                "ratio_text": ratio_text(ratio) if ratio else "–",
                "megabytes": row["file_bytes"] / 1e6 if "file_bytes" in row else None,
                "dice": dice.get(row.get("accuracy", ""), {}),
                "effective": row.get("effective", {}),
                "failed": row["status"] != "ok",
            }
        )
    return rows


def _headline(results: dict[str, Any]) -> dict[str, Any] | None:
    """The fastest int8 student against the fp32 teacher: what was gained and lost."""
    students = [
        row
        for row in results["rows"]
        if row["role"] == "student" and row["status"] == "ok" and "speedup" in row
    ]
    students = [row for row in students if row["precision"] == "int8"] or students
    if not students:
        return None
    best = min(students, key=lambda row: row["latency"]["p50"])
    differences = [
        {"dataset": entry["dataset"], **entry["difference_to_teacher"]}
        for entry in results["accuracy"]
        if entry["key"] == best.get("accuracy")
        and entry["protocol"] == "deploy"
        and "difference_to_teacher" in entry
    ]
    return {
        "model": best["model"],
        "precision": best["precision"],
        "target": target_label(best),
        "ratio": ratio_text(best["speedup"]),
        "p50": best["latency"]["p50"],
        "megabytes": best["file_bytes"] / 1e6,
        "differences": differences,
    }


def _accuracy(results: dict[str, Any], protocol: str) -> dict[str, Any]:
    entries = []
    for entry in results["accuracy"]:
        if entry["protocol"] != protocol:
            continue
        metrics = {name: value["mean"] for name, value in entry["metrics"].items()}
        entries.append({**entry, "means": {**metrics, **entry["set_metrics"]}})
    return {"protocol": protocol, "metrics": _ACCURACY[protocol], "entries": entries}


def _case(case: Case) -> dict[str, Any]:
    panels = [
        {
            "caption": panel.caption,
            "dice": panel.dice,
            "source": "data:image/jpeg;base64," + base64.b64encode(panel.jpeg).decode(),
        }
        for panel in case.panels
    ]
    return {"dataset": case.dataset, "name": case.name, "rank": case.rank, "panels": panels}


def _script_safe(text: str) -> str:
    """Text for the inside of a script element, which ends at the first `</script`."""
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")
