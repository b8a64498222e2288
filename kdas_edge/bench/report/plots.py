"""Plots of a benchmark with Altair: for the page, and as PNG and SVG files."""

from typing import TYPE_CHECKING, Any

from kdas_edge.bench.report.tables import main_accuracies

if TYPE_CHECKING:
    import altair as alt

# Okabe–Ito, without black (invisible on dark) and yellow (invisible on white)
COLORS = ("#D55E00", "#CC79A7", "#0072B2", "#009E73", "#E69F00", "#56B4E9")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


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


def target_label(row: dict[str, Any]) -> str:
    """The target, with the machine where results of several were joined."""
    return f"{row['target']} · {row['machine']}" if row.get("machine") else row["target"]


def pareto_front(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records that no other one beats in both latency and Dice, fastest first, per data set."""
    front: list[dict[str, Any]] = []
    for dataset in dict.fromkeys(record["data set"] for record in records):
        best = -1.0
        for record in sorted(
            (r for r in records if r["data set"] == dataset),
            key=lambda r: (r["p50 ms"], -r["Dice"]),
        ):
            if record["Dice"] > best:
                front.append(record)
                best = record["Dice"]
    return front


def pareto_chart(results: dict[str, Any]) -> "alt.TopLevelMixin":
    """Dice against median latency, one panel per data set; bars of latency without accuracies."""
    import altair as alt

    records = points(results)
    if not records:
        return _latency_bars(results)
    models = list(dict.fromkeys(record["model"] for record in records))
    targets = list(dict.fromkeys(record["target"] for record in records))
    sets = list(dict.fromkeys(record["data set"] for record in records))
    fast, slow = min(r["p50 ms"] for r in records), max(r["p50 ms"] for r in records)
    x = alt.X(
        "p50 ms:Q",
        title="median latency, ms (log scale)",
        axis=alt.Axis(grid=False, tickCount=5, format="~r"),
        scale=alt.Scale(type="log", domain=[fast / 1.3, slow * 1.3], nice=False),
    )
    y_title = "Dice, protocol deploy"
    low, high = min(r["low"] for r in records), max(r["high"] for r in records)
    pad = max(0.01, (high - low) * 0.05)
    y_scale = alt.Scale(domain=[max(0, low - pad), min(1, high + pad)], zero=False, nice=False)
    color = alt.Color("model:N", sort=models, title="model").scale(
        domain=models, range=[COLORS[i % len(COLORS)] for i in range(len(models))]
    )
    shape = alt.Shape("target:N", sort=targets, title="target").scale(
        domain=targets, range=[SHAPES[i % len(SHAPES)] for i in range(len(targets))]
    )
    chosen = alt.selection_point(fields=["model"], bind="legend", name="chosen")
    faint = alt.when(chosen).then(alt.value(1.0)).otherwise(alt.value(0.15))
    base = alt.Chart()
    line = (
        base.transform_filter("datum.front")
        .mark_line(interpolate="step-after", strokeDash=[4, 4], color="#8a8f98", strokeWidth=1.5)
        .encode(x=x, y=alt.Y("Dice:Q", title=y_title, scale=y_scale))
    )
    bars = base.mark_rule(strokeWidth=1.5).encode(
        x=x,
        y=alt.Y("low:Q", title=y_title, scale=y_scale),
        y2="high:Q",
        color=color,
        opacity=alt.when(chosen).then(alt.value(0.55)).otherwise(alt.value(0.1)),
    )
    marks = base.mark_point(size=110, filled=True, opacity=1).encode(
        x=x,
        y=alt.Y("Dice:Q", title=y_title, scale=y_scale),
        color=color,
        shape=shape,
        opacity=faint,
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
    front = [id(record) for record in pareto_front(records)]
    values = [{**record, "front": id(record) in front} for record in records]
    width = 560 if len(sets) == 1 else 300
    layered = alt.layer(line, bars, marks).properties(width=width, height=300)
    chart = layered.facet(
        alt.Facet("data set:N", title=None, sort=sets, header=alt.Header(labelFontWeight="bold")),
        data=alt.Data(values=values),
        columns=3,
    ).add_params(chosen)
    return _finish(chart)


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
            color=alt.Color("model:N", sort=models, legend=None).scale(
                domain=models, range=[COLORS[i % len(COLORS)] for i in range(len(models))]
            ),
            tooltip=["model:N", "target:N", alt.Tooltip("p50 ms:Q", format=".2f")],
        )
        .properties(width=560)
    )
    return _finish(chart)


def _finish(chart: Any) -> "alt.TopLevelMixin":
    finished: alt.TopLevelMixin = (
        chart.configure(font=FONT, background="transparent")
        .configure_axis(labelFontSize=12, titleFontSize=12, titleFontWeight="normal")
        .configure_legend(
            orient="bottom",
            direction="vertical",
            labelFontSize=12,
            titleFontSize=12,
            labelLimit=420,
            symbolSize=110,
            symbolOpacity=1,
            # the shapes of the targets, visible on white and on dark
            symbolBaseFillColor="#8a8f98",
            symbolBaseStrokeColor="#8a8f98",
        )
        .configure_header(labelFontSize=13)
        .configure_view(stroke=None)
    )
    return finished
