"""The plots of a page, in their order, and the same as PNG and SVG files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdas_edge.bench.results import BenchResult
from kdas_edge.files import write_bytes_atomic, write_text_atomic
from kdas_edge.report.distributions import latency_chart, sustained_chart
from kdas_edge.report.plots import pareto_chart, size_chart
from kdas_edge.report.robustness_chart import robustness_chart


@dataclass(frozen=True)
class Plot:
    """One plot.

    Attributes:
        name: of its files and of its place in the page.
        title: its heading.
        text: how to read it.
        spec: Vega-Lite.
    """

    name: str
    title: str
    text: str
    spec: dict[str, Any]


_FRONT = (
    "Up and to the left is better. Vertical lines: 95 % bootstrap interval over the images. "
    "Dashed: models that no other one beats in both. Hover over a point to see its row; click a "
    "model in the legend to single it out. The table of results holds the same numbers."
)


def make_plots(results: BenchResult) -> list[Plot]:
    """Every plot that the results have numbers for; the first is always there."""
    if results.accuracy:
        first = Plot("pareto", "Accuracy against latency", _FRONT, pareto_chart(results).to_dict())
    else:
        text = "No accuracy was computed, or none can be compared."
        first = Plot("pareto", "Latency", text, pareto_chart(results).to_dict())
    found = [first]
    for name, title, text, chart in (
        ("size", "Accuracy against size", _FRONT, size_chart(results)),
        (
            "robustness",
            "Accuracy on corrupted images",
            "Strength 0: the images as they are. Lines that fall together lose the same.",
            robustness_chart(results),
        ),
        (
            "latency",
            "Distribution of latencies",
            "One panel per row, each with its own axes. Solid: median; dashed: 90th percentile. "
            "The slowest 1 % of inferences are not drawn; the table has p99 and the maximum.",
            latency_chart(results),
        ),
        (
            "sustained",
            "Latency of a sustained run",
            "A line that rises shows a machine that becomes slower when it is warm. The axis "
            "begins at 0, so that a small change looks small.",
            sustained_chart(results),
        ),
    ):
        if chart is not None:
            found.append(Plot(name, title, text, chart.to_dict()))
    return found


def write_files(folder: Path, plots: list[Plot]) -> None:
    """Write `<name>.png` and `<name>.svg` of every plot.

    Files are read on white paper or a white page, whatever the browser's theme.
    """
    import vl_convert

    for plot in plots:
        still = {**plot.spec, "background": "white"}
        picture = vl_convert.vegalite_to_png(still, scale=2)
        write_bytes_atomic(folder / f"{plot.name}.png", picture)
        write_text_atomic(folder / f"{plot.name}.svg", vl_convert.vegalite_to_svg(still))
