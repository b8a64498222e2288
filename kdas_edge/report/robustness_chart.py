"""Dice against the strength of each corruption: who loses how much on worse images."""

from typing import TYPE_CHECKING, Any

from kdas_edge.bench.accuracy_results import RobustnessEntry
from kdas_edge.bench.results import BenchResult
from kdas_edge.report import theme
from kdas_edge.report.plots import networks

if TYPE_CHECKING:
    import altair as alt


def robustness_chart(results: BenchResult) -> "alt.TopLevelMixin | None":
    """One panel per corruption, one line per model; None without such measurements."""
    entries = [entry for entry in results.robustness if "Dice" in entry.metrics]
    if not entries:
        return None
    sets = list(dict.fromkeys(entry.dataset for entry in entries))
    corruptions = list(dict.fromkeys(entry.corruption for entry in entries))
    records = [_record(entry, sets) for entry in entries]
    import altair as alt

    present = {record["model"] for record in records}
    models = [name for name in networks(results) if name in present]
    x = alt.X("strength:O", title="strength", axis=alt.Axis(labelAngle=0))
    low, high = min(r["Dice"] for r in records), max(r["Dice"] for r in records)
    pad = max(0.01, (high - low) * 0.05)
    scale = alt.Scale(domain=[max(0, low - pad), min(1, high + pad)], zero=False, nice=False)
    y = alt.Y("Dice:Q", title="Dice", scale=scale)
    color = theme.color("model", models)
    base = alt.Chart()
    lines = base.mark_line(strokeWidth=2).encode(
        x=x, y=y, color=color, strokeDash=theme.dash("model", models)
    )
    marks = base.mark_point(size=70, filled=True, opacity=1).encode(
        x=x,
        y=y,
        color=color,
        shape=theme.shape("model", models),
        tooltip=[
            alt.Tooltip("model:N"),
            alt.Tooltip("data set:N"),
            alt.Tooltip("corruption:N"),
            alt.Tooltip("strength:O"),
            alt.Tooltip("Dice:Q", format=".3f"),
            alt.Tooltip("low:Q", format=".3f", title="95 % from"),
            alt.Tooltip("high:Q", format=".3f", title="95 % to"),
        ],
    )
    # one row of panels for each corruption where there are several data sets
    panels = [_panel(corruption, name, sets) for corruption in corruptions for name in sets]
    chart = (
        alt.layer(lines, marks)
        .properties(width=200, height=160 if len(sets) == 1 else 110)
        .facet(
            alt.Facet("panel:N", title=None, sort=panels),
            data=alt.Data(values=records),
            columns=4 if len(sets) == 1 else len(sets),
        )
    )
    return theme.finish(chart)


def _record(entry: RobustnessEntry, sets: list[str]) -> dict[str, Any]:
    dice = entry.metrics["Dice"]
    return {
        "model": f"{entry.model} {entry.precision}",
        "data set": entry.dataset,
        "corruption": entry.corruption.replace("_", " "),
        "strength": entry.strength,
        "Dice": dice.mean,
        "low": dice.low,
        "high": dice.high,
        "panel": _panel(entry.corruption, entry.dataset, sets),
    }


def _panel(corruption: str, dataset: str, sets: list[str]) -> str:
    name = corruption.replace("_", " ")
    return name if len(sets) == 1 else f"{name}, {dataset}"
