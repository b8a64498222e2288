"""Accuracy against latency, and accuracy against size, with Altair."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdas_edge.bench.results import BenchResult
from kdas_edge.report import theme

if TYPE_CHECKING:
    import altair as alt


@dataclass(frozen=True)
class Point:
    """A row of a benchmark on one data set: one mark of a plot.

    Attributes:
        network: model and precision.
        target: where it ran.
        dataset: where the Dice comes from.
        p50, p90, p99: milliseconds.
        dice, low, high: mean Dice and its interval.
        speedup: against the teacher, where there is one.
        megabytes: of the files; None where that is not known.
    """

    network: str
    target: str
    dataset: str
    p50: float
    p90: float
    p99: float
    dice: float
    low: float
    high: float
    speedup: float | None
    megabytes: float | None

    @property
    def runtime(self) -> str:
        """The first word of the target."""
        return self.target.partition(":")[0]

    def vega(self, front: bool) -> dict[str, Any]:
        """The record of the plot, with the names that axes and tooltips show."""
        return {
            "model": self.network,
            "target": self.target,
            "runtime": self.runtime,
            "data set": self.dataset,
            "p50 ms": self.p50,
            "p90 ms": self.p90,
            "p99 ms": self.p99,
            "Dice": self.dice,
            "low": self.low,
            "high": self.high,
            "times faster": self.speedup,
            "MB": self.megabytes,
            "front": front,
        }


@dataclass(frozen=True)
class Cost:
    """What a plot sets accuracy against: a field of `Point.vega`, its axis, and its value."""

    field: str
    title: str
    of: Callable[[Point], float]
    shape: str


LATENCY = Cost("p50 ms", "median latency, ms (log scale)", lambda point: point.p50, "target")
SIZE = Cost("MB", "size on disk, MB (log scale)", lambda point: point.megabytes or 0.0, "runtime")


def points(results: BenchResult) -> list[Point]:
    """One point per row and data set that has both a latency and an accuracy."""
    dice = results.dice
    found = []
    for row in results.rows:
        if row.latency is None or row.accuracy_key is None:
            continue
        for dataset, entry in dice.get(row.accuracy_key, {}).items():
            assert entry.main is not None
            found.append(
                Point(
                    network=row.network,
                    target=row.place,
                    dataset=dataset,
                    p50=row.latency.p50,
                    p90=row.latency.p90,
                    p99=row.latency.p99,
                    dice=entry.main.mean,
                    low=entry.main.low,
                    high=entry.main.high,
                    speedup=row.speedup.value if row.speedup is not None else None,
                    megabytes=None if row.file_bytes is None else row.file_bytes / 1e6,
                )
            )
    return found


def sizes(found: Iterable[Point]) -> list[Point]:
    """One point per file and data set: threads and machines do not change them."""
    kept: dict[tuple[str, str, str, float], Point] = {}
    for point in found:
        if point.megabytes:
            key = point.network, point.runtime, point.dataset, point.megabytes
            kept.setdefault(key, point)
    return list(kept.values())


def networks(results: BenchResult) -> list[str]:
    """Model and precision of every row, in the order in which all plots colour them."""
    return list(dict.fromkeys(row.network for row in results.rows))


def pareto_front(found: Sequence[Point], cost: Cost = LATENCY) -> list[Point]:
    """Points that no other one beats in both cost and Dice, cheapest first, per data set."""
    front: list[Point] = []
    for dataset in dict.fromkeys(point.dataset for point in found):
        best = -1.0
        mine = [point for point in found if point.dataset == dataset]
        for point in sorted(mine, key=lambda point: (cost.of(point), -point.dice)):
            if point.dice > best:
                front.append(point)
                best = point.dice
    return front


def pareto_chart(results: BenchResult) -> "alt.TopLevelMixin":
    """Dice against median latency, one panel per data set; bars of latency without accuracies."""
    found = points(results)
    return _tradeoff(results, found, LATENCY) if found else _latency_bars(results)


def size_chart(results: BenchResult) -> "alt.TopLevelMixin | None":
    """Dice against the size of the files on disk; None without both."""
    found = sizes(points(results))
    return _tradeoff(results, found, SIZE) if found else None


def _tradeoff(results: BenchResult, found: Sequence[Point], cost: Cost) -> "alt.TopLevelMixin":
    """Points with intervals and the front of those that nothing beats, one panel per data set."""
    import altair as alt

    front = {id(point) for point in pareto_front(found, cost)}
    records = [point.vega(front=id(point) in front) for point in found]
    present = {point.network for point in found}
    models = [name for name in networks(results) if name in present]
    by_shape, kinds = cost.shape, list(dict.fromkeys(record[cost.shape] for record in records))
    if len(kinds) == 1:
        # nothing to tell apart by shape but the models, which colour alone should not do
        by_shape, kinds = "model", models
    sets = list(dict.fromkeys(point.dataset for point in found))
    least, most = min(map(cost.of, found)), max(map(cost.of, found))
    x = alt.X(
        f"{cost.field}:Q",
        title=cost.title,
        axis=alt.Axis(grid=False, tickCount=5, format="~r"),
        scale=alt.Scale(type="log", domain=[least / 1.3, most * 1.3], nice=False),
    )
    low, high = min(point.low for point in found), max(point.high for point in found)
    pad = max(0.01, (high - low) * 0.05)
    y_title = "Dice, protocol deploy"
    y_scale = alt.Scale(domain=[max(0, low - pad), min(1, high + pad)], zero=False, nice=False)
    color = theme.color("model", models)
    chosen = alt.selection_point(fields=["model"], bind="legend", name="chosen")
    base = alt.Chart()
    line = (
        base.transform_filter("datum.front")
        .mark_line(
            interpolate="step-after", strokeDash=[4, 4], color=theme.NEUTRAL, strokeWidth=1.5
        )
        .encode(x=x, y=alt.Y("Dice:Q", title=y_title, scale=y_scale))
    )
    bars = base.mark_rule(strokeWidth=1.5).encode(
        x=x,
        y=alt.Y("low:Q", title=y_title, scale=y_scale),
        y2="high:Q",
        color=color,
        opacity=alt.when(chosen).then(alt.value(0.75)).otherwise(alt.value(0.1)),
    )
    marks = base.mark_point(size=110, filled=True, opacity=1).encode(
        x=x,
        y=alt.Y("Dice:Q", title=y_title, scale=y_scale),
        color=color,
        shape=theme.shape(by_shape, kinds),
        opacity=alt.when(chosen).then(alt.value(1.0)).otherwise(alt.value(0.15)),
        tooltip=[
            alt.Tooltip("model:N"),
            alt.Tooltip("target:N"),
            alt.Tooltip("data set:N"),
            alt.Tooltip("Dice:Q", format=".3f"),
            alt.Tooltip("low:Q", format=".3f", title="95 % from"),
            alt.Tooltip("high:Q", format=".3f", title="95 % to"),
            alt.Tooltip("p50 ms:Q", format=".2f"),
            alt.Tooltip("p90 ms:Q", format=".2f"),
            alt.Tooltip("p99 ms:Q", format=".2f"),
            alt.Tooltip("times faster:Q", format=".2f", title="× teacher"),
            alt.Tooltip("MB:Q", format=".2f"),
        ],
    )
    width = 560 if len(sets) == 1 else 300
    layered = alt.layer(line, bars, marks).properties(width=width, height=300)
    chart = layered.facet(
        alt.Facet("data set:N", title=None, sort=sets, header=alt.Header(labelFontWeight="bold")),
        data=alt.Data(values=records),
        columns=3,
    ).add_params(chosen)
    return theme.finish(chart)


def _latency_bars(results: BenchResult) -> "alt.TopLevelMixin":
    import altair as alt

    values = [
        {
            "model": row.network,
            "target": row.place,
            "p50 ms": row.latency.p50,
        }
        for row in results.rows
        if row.latency is not None
    ]
    models = list(dict.fromkeys(row.network for row in results.rows if row.latency is not None))
    chart = (
        alt.Chart(alt.Data(values=values))
        .mark_bar()
        .encode(
            x=alt.X("p50 ms:Q", title="median latency, ms"),
            y=alt.Y("model:N", sort=models, title=None),
            row=alt.Row("target:N", title=None),
            color=theme.color("model", models).legend(None),
            tooltip=["model:N", "target:N", alt.Tooltip("p50 ms:Q", format=".2f")],
        )
        .properties(width=560)
    )
    return theme.finish(chart)
