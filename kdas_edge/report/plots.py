"""Accuracy against latency, and accuracy against size, with Altair."""

from typing import TYPE_CHECKING, Any

from kdas_edge.report import theme
from kdas_edge.report.tables import main_accuracies

if TYPE_CHECKING:
    import altair as alt


def points(results: dict[str, Any]) -> list[dict[str, Any]]:
    """One record per row and data set that has both a latency and an accuracy."""
    accuracies = main_accuracies(results)
    found = []
    for row in results["rows"]:
        if "latency" not in row:
            continue
        for dataset, dice in accuracies.get(row.get("accuracy", ""), {}).items():
            found.append(
                {
                    "model": f"{row['model']} {row['precision']}",
                    "target": target_label(row),
                    "runtime": row["target"].partition(":")[0],
                    "data set": dataset,
                    "p50 ms": row["latency"]["p50"],
                    "p90 ms": row["latency"]["p90"],
                    "p99 ms": row["latency"]["p99"],
                    "Dice": dice["mean"],
                    "low": dice["low"],
                    "high": dice["high"],
                    "times faster": row.get("speedup", {}).get("value"),
                    "MB": row.get("file_bytes", 0) / 1e6,
                }
            )
    return found


def sizes(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of records of `points` one per file and data set: threads and machines do not change them."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in records:
        if record["MB"] > 0:
            key = tuple(record[name] for name in ("model", "runtime", "data set", "MB"))
            found.setdefault(key, record)
    return list(found.values())


def target_label(row: dict[str, Any]) -> str:
    """The target, with the machine where results of several were joined."""
    return f"{row['target']} · {row['machine']}" if row.get("machine") else row["target"]


def model_names(results: dict[str, Any]) -> list[str]:
    """Model and precision of every row, in the order in which all plots colour them."""
    return list(dict.fromkeys(f"{row['model']} {row['precision']}" for row in results["rows"]))


def pareto_front(records: list[dict[str, Any]], cost: str = "p50 ms") -> list[dict[str, Any]]:
    """Records that no other one beats in both cost and Dice, cheapest first, per data set.

    Args:
        records: of `points` or `sizes`.
        cost: the field that should be small: `p50 ms` or `MB`.
    """
    front: list[dict[str, Any]] = []
    for dataset in dict.fromkeys(record["data set"] for record in records):
        best = -1.0
        for record in sorted(
            (r for r in records if r["data set"] == dataset),
            key=lambda r: (r[cost], -r["Dice"]),
        ):
            if record["Dice"] > best:
                front.append(record)
                best = record["Dice"]
    return front


def pareto_chart(results: dict[str, Any]) -> "alt.TopLevelMixin":
    """Dice against median latency, one panel per data set; bars of latency without accuracies."""
    records = points(results)
    if not records:
        return _latency_bars(results)
    return _tradeoff(results, records, "p50 ms", "median latency, ms (log scale)", "target")


def size_chart(results: dict[str, Any]) -> "alt.TopLevelMixin | None":
    """Dice against the size of the files on disk; None without both."""
    records = sizes(points(results))
    if not records:
        return None
    return _tradeoff(results, records, "MB", "size on disk, MB (log scale)", "runtime")


def _tradeoff(
    results: dict[str, Any],
    records: list[dict[str, Any]],
    cost: str,
    title: str,
    by_shape: str,
) -> "alt.TopLevelMixin":
    """Points with intervals and the front of those that nothing beats, one panel per data set."""
    import altair as alt

    present = {record["model"] for record in records}
    names = model_names(results)
    models = [name for name in names if name in present]
    kinds = list(dict.fromkeys(record[by_shape] for record in records))
    if len(kinds) == 1:
        # nothing to tell apart by shape but the models, which colour alone should not do
        by_shape, kinds = "model", models
    sets = list(dict.fromkeys(record["data set"] for record in records))
    least, most = min(r[cost] for r in records), max(r[cost] for r in records)
    x = alt.X(
        f"{cost}:Q",
        title=title,
        axis=alt.Axis(grid=False, tickCount=5, format="~r"),
        scale=alt.Scale(type="log", domain=[least / 1.3, most * 1.3], nice=False),
    )
    low, high = min(r["low"] for r in records), max(r["high"] for r in records)
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
    front = [id(record) for record in pareto_front(records, cost)]
    values = [{**record, "front": id(record) in front} for record in records]
    width = 560 if len(sets) == 1 else 300
    layered = alt.layer(line, bars, marks).properties(width=width, height=300)
    chart = layered.facet(
        alt.Facet("data set:N", title=None, sort=sets, header=alt.Header(labelFontWeight="bold")),
        data=alt.Data(values=values),
        columns=3,
    ).add_params(chosen)
    return theme.finish(chart)


def _latency_bars(results: dict[str, Any]) -> "alt.TopLevelMixin":
    import altair as alt

    values = [
        {
            "model": f"{row['model']} {row['precision']}",
            "target": target_label(row),
            "p50 ms": row["latency"]["p50"],
        }
        for row in results["rows"]
        if "latency" in row
    ]
    models = list(dict.fromkeys(value["model"] for value in values))
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
