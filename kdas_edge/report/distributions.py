"""How latencies are distributed, and how they change while a machine gets warm."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kdas_edge.bench.measurement_results import Sustained
from kdas_edge.bench.results import BenchResult
from kdas_edge.report import theme
from kdas_edge.report.plots import networks

if TYPE_CHECKING:
    import altair as alt

_BINS = 30
# Beyond this percentile a single stall would squeeze all others into one bin.
_SHOWN = 99


@dataclass(frozen=True)
class Bin:
    """Inferences that took from `start` to `end` milliseconds."""

    start: float
    end: float
    count: int


def histogram(samples: Sequence[float]) -> tuple[list[Bin], int]:
    """Bins of a row's latencies.

    Args:
        samples: milliseconds.

    Returns:
        Bins of equal width from the fastest inference to the 99th percentile, and how many
        inferences were slower than that.
    """
    values = np.asarray(samples, dtype=np.float64)
    end = float(np.percentile(values, _SHOWN))
    shown = values[values <= end]
    counts, edges = np.histogram(shown, bins=min(_BINS, max(1, len(shown))))
    bins = [Bin(float(edges[i]), float(edges[i + 1]), int(count)) for i, count in enumerate(counts)]
    return bins, int(len(values) - len(shown))


def latency_chart(results: BenchResult) -> "alt.TopLevelMixin | None":
    """A histogram of every row's inferences with its median and p90; None without samples."""
    import altair as alt

    values: list[dict[str, Any]] = []
    titles: list[str] = []
    for row in results.rows:
        if row.latency is None or not row.latency.samples:
            continue
        bins, beyond = histogram(row.latency.samples)
        title = f"{row.network}, {row.place}"
        # two rows of one name (a target given twice) must not share a panel
        while title in titles:
            title += " "
        titles.append(title)
        shared = {"row": title, "model": row.network, "slower": beyond}
        values += [
            {**shared, "kind": "bin", "from": item.start, "to": item.end, "count": item.count}
            for item in bins
        ]
        values += [
            {**shared, "kind": "p50", "at": row.latency.p50},
            {**shared, "kind": "p90", "at": row.latency.p90},
        ]
    if not values:
        return None
    models = [name for name in networks(results) if name in {v["model"] for v in values}]
    x = alt.X("from:Q", title="ms", axis=alt.Axis(grid=False, tickCount=5), scale={"zero": False})
    bars = (
        alt.Chart()
        .transform_filter("datum.kind == 'bin'")
        .mark_rect(opacity=0.8)
        .encode(
            x=x,
            x2="to:Q",
            y=alt.Y("zero:Q", title="inferences", axis=alt.Axis(grid=False, tickCount=3)),
            y2="count:Q",
            color=theme.color("model", models),
            tooltip=[
                alt.Tooltip("row:N"),
                alt.Tooltip("from:Q", format=".2f", title="from ms"),
                alt.Tooltip("to:Q", format=".2f", title="to ms"),
                alt.Tooltip("count:Q", title="inferences"),
                alt.Tooltip("slower:Q", title="slower than the last bin"),
            ],
        )
    )
    lines = (
        alt.Chart()
        .transform_filter("datum.kind != 'bin'")
        .mark_rule(strokeWidth=2, color=theme.NEUTRAL)
        .encode(
            x=alt.X("at:Q", title="ms"),
            strokeDash=alt.StrokeDash("kind:N", title="line").scale(
                domain=["p50", "p90"], range=[[1, 0], [4, 3]]
            ),
            tooltip=[
                alt.Tooltip("row:N"),
                alt.Tooltip("kind:N", title="percentile"),
                alt.Tooltip("at:Q", format=".2f", title="ms"),
            ],
        )
    )
    chart = (
        alt.layer(bars, lines)
        .transform_calculate(zero="0")
        .properties(width=440, height=90)
        .facet(
            alt.Facet("row:N", title=None, sort=titles, header=alt.Header(labelAnchor="start")),
            data=alt.Data(values=values),
            columns=2,
        )
        .resolve_scale(x="independent", y="independent")
    )
    return theme.finish(chart)


def sustained_chart(results: BenchResult) -> "alt.TopLevelMixin | None":
    """Median latency over the minutes of a sustained run; None where there was none."""
    import altair as alt

    values: list[dict[str, Any]] = []
    for row in results.rows:
        for window in row.sustained.windows if isinstance(row.sustained, Sustained) else ():
            values.append(
                {
                    "model": row.network,
                    "target": row.place,
                    "minutes": window.start_s / 60,
                    "p50 ms": window.p50,
                    "p99 ms": window.p99,
                }
            )
    if not values:
        return None
    models = [name for name in networks(results) if name in {v["model"] for v in values}]
    targets = list(dict.fromkeys(value["target"] for value in values))
    # with one target nothing but the models is left to be told apart by more than colour
    dash = theme.dash("target", targets) if len(targets) > 1 else theme.dash("model", models)
    chart = (
        alt.Chart(alt.Data(values=values))
        .mark_line(point=True, strokeWidth=2)
        .encode(
            x=alt.X("minutes:Q", title="minutes", axis=alt.Axis(grid=False)),
            y=alt.Y("p50 ms:Q", title="median latency, ms"),
            color=theme.color("model", models),
            strokeDash=dash,
            tooltip=[
                alt.Tooltip("model:N"),
                alt.Tooltip("target:N"),
                alt.Tooltip("minutes:Q", format=".1f"),
                alt.Tooltip("p50 ms:Q", format=".2f"),
                alt.Tooltip("p99 ms:Q", format=".2f"),
            ],
        )
        .properties(width=720, height=260)
    )
    return theme.finish(chart)
