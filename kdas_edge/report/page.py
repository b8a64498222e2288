"""The page: one HTML file that works offline, with the plots' library inside it.

A Content-Security-Policy in the page forbids every request, so that "no CDN" is enforced by the
browser instead of promised. Vega interprets its expressions, so that scripts need no `eval`.
"""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdas_edge.files import write_text_atomic
from kdas_edge.overlay import GROUND_TRUTH, PREDICTION
from kdas_edge.report.charts import Plot, make_plots, write_files
from kdas_edge.report.details import (
    effective_lines,
    further_lines,
    unavailable_lines,
)
from kdas_edge.report.gallery import Case
from kdas_edge.report.grid import (
    ACCURACY_METRICS,
    accuracy_grid,
    more_grids,
    results_grid,
    robustness_grid,
    size_grid,
)
from kdas_edge.report.plots import target_label
from kdas_edge.report.tables import bench_failures, ratio_text

_TEMPLATE = "page.html.j2"


def write(path: Path, results: dict[str, Any], overlays: Sequence[Case]) -> None:
    """Write the page and every plot as a file beside it; see `report.write_page`."""
    plots = make_plots(results)
    text = render(results, overlays, plots)
    write_files(path.parent, plots)
    write_text_atomic(path, text)


def render(results: dict[str, Any], overlays: Sequence[Case], plots: Sequence[Plot]) -> str:
    """The page as a string."""
    import jinja2
    import vl_convert

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kdas_edge.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(_TEMPLATE).render(
        results=results,
        table=results_grid(results),
        failures=bench_failures(results),
        headline=_headline(results),
        accuracy={name: accuracy_grid(results, name) for name in ACCURACY_METRICS},
        more=more_grids(results),
        unavailable=unavailable_lines(results),
        sizes=size_grid(results),
        robustness=robustness_grid(results),
        effective=effective_lines(results),
        further=further_lines(results),
        environments=results.get("environments")
        or [{"label": None, "environment": results["environment"]}],
        notes=results.get("notes", []),
        cases=[_case(case) for case in overlays],
        plots=[
            {
                "name": plot.name,
                "title": plot.title,
                "text": plot.text,
                "spec": _script_safe(json.dumps(plot.spec)),
            }
            for plot in plots
        ],
        library=_script_safe(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")),
        colors={"truth": GROUND_TRUTH, "prediction": PREDICTION},
    )


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
