"""The page: one HTML file that works offline, with the plots' library inside it.

A Content-Security-Policy in the page forbids every request, so that "no CDN" is enforced by the
browser instead of promised, and every script but the two whose hashes it names. Vega interprets
its expressions, so that scripts need no `eval`.
"""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdas_edge.bench.result_base import PROTOCOLS
from kdas_edge.bench.results import BenchResult, Row
from kdas_edge.files import write_text_atomic
from kdas_edge.metrics.bootstrap import Estimate
from kdas_edge.overlay import GROUND_TRUTH, PREDICTION
from kdas_edge.report.accuracy_tables import accuracy_table, size_table
from kdas_edge.report.charts import Plot, make_plots, write_files
from kdas_edge.report.gallery import Case, Panel
from kdas_edge.report.measurement_tables import measurement_tables
from kdas_edge.report.notes import effective_lines, failures, notes
from kdas_edge.report.results_table import ratio_cell, results_table
from kdas_edge.report.robustness_table import robustness_tables
from kdas_edge.table import Cell

_TEMPLATE = "page.html.j2"
_SCRIPT = "script.js.j2"


def write(path: Path, results: BenchResult, overlays: Sequence[Case]) -> None:
    """Write the page and every plot as a file beside it; see `report.write_page`."""
    plots = make_plots(results)
    text = render(results, overlays, plots)
    write_files(path.parent, plots)
    write_text_atomic(path, text)


def render(results: BenchResult, overlays: Sequence[Case], plots: Sequence[Plot]) -> str:
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
    library = _library(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))
    specs = [(plot.name, script_json(plot.spec)) for plot in plots]
    script = environment.get_template(_SCRIPT).render(specs=specs)
    return environment.get_template(_TEMPLATE).render(
        results=results,
        table=results_table(results),
        failures=failures(results),
        headline=_headline(results),
        accuracy={
            protocol: accuracy_table(results.accuracy, protocol) for protocol in reversed(PROTOCOLS)
        },
        more=measurement_tables(results),
        remarks=notes(results),
        sizes=size_table(results.accuracy),
        robustness=robustness_tables(results.robustness),
        effective=effective_lines(results),
        environments=[(machine.label, machine.environment) for machine in results.environments]
        or [("", results.environment)],
        settings=results.settings.model_dump(),
        cases=[(case, [(panel, _source(panel)) for panel in case.panels]) for case in overlays],
        plots=plots,
        scripts=[library, script],
        hashes=[script_hash(text) for text in (library, script)],
        colors={"truth": GROUND_TRUTH, "prediction": PREDICTION},
    )


def script_json(value: object) -> str:
    """JSON for the inside of a script element: no `<`, with which every way out of one begins."""
    return json.dumps(value).replace("<", "\\u003c")


def script_hash(text: str) -> str:
    """What a Content-Security-Policy calls a script: the hash of the element's text."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _library(text: str) -> str:
    """A library for the inside of a script element, which ends at the first `</script`."""
    # a browser hashes lines that end as HTML's do
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return re.sub(r"<(/script|!--)", r"<\\\1", text, flags=re.IGNORECASE)


@dataclass(frozen=True)
class _Headline:
    """The fastest int8 student against the fp32 teacher: what was gained and lost."""

    row: Row
    ratio: Cell
    megabytes: float | None
    differences: Sequence[tuple[str, Estimate]]


def _headline(results: BenchResult) -> _Headline | None:
    students = [
        (row.latency.p50, row)
        for row in results.rows
        if row.role == "student" and row.speedup is not None and row.latency is not None
    ]
    students = [item for item in students if item[1].precision == "int8"] or students
    if not students:
        return None
    _, best = min(students, key=lambda item: item[0])
    differences = [
        (entry.dataset, entry.difference_to_teacher)
        for entry in results.accuracy
        if entry.key == best.accuracy_key
        and entry.protocol == "deploy"
        and entry.difference_to_teacher is not None
    ]
    megabytes = None if best.file_bytes is None else best.file_bytes / 1e6
    return _Headline(best, ratio_cell(best.speedup), megabytes, differences)


def _source(panel: Panel) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(panel.jpeg).decode()
