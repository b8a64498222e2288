"""Dice against the strength of each corruption: who loses how much on worse images."""

from typing import TYPE_CHECKING, Any

from kdas_edge.report import theme
from kdas_edge.report.plots import model_names

if TYPE_CHECKING:
    import altair as alt


def robustness_points(results: dict[str, Any]) -> list[dict[str, Any]]:
    """One record per model, data set, corruption and strength; strength 0 is the clean image.

    Args:
        results: the JSON object of `kdas-edge bench --robustness`; empty without that option.
    """
    found = []
    for entry in results.get("robustness") or []:
        dice = entry.get("metrics", {}).get("Dice")
        if dice is None:
            continue
        found.append(
            {
                "model": f"{entry['model']} {entry['precision']}",
                "data set": entry["dataset"],
                "corruption": entry["corruption"].replace("_", " "),
                "strength": entry["strength"],
                "Dice": dice["mean"],
                "low": dice["low"],
                "high": dice["high"],
            }
        )
    return found


def robustness_chart(results: dict[str, Any]) -> "alt.TopLevelMixin | None":
    """One panel per corruption, one line per model; None without such measurements."""
    records = robustness_points(results)
    if not records:
        return None
    import altair as alt

    present = {record["model"] for record in records}
    models = [name for name in model_names(results) if name in present]
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
    sets = list(dict.fromkeys(record["data set"] for record in records))
    corruptions = list(dict.fromkeys(record["corruption"] for record in records))
    values = [{**record, "panel": _panel(record, sets)} for record in records]
    # one row of panels for each corruption where there are several data sets
    panels = [
        _panel({"corruption": corruption, "data set": name}, sets)
        for corruption in corruptions
        for name in sets
    ]
    chart = (
        alt.layer(lines, marks)
        .properties(width=200, height=160 if len(sets) == 1 else 110)
        .facet(
            alt.Facet("panel:N", title=None, sort=panels),
            data=alt.Data(values=values),
            columns=4 if len(sets) == 1 else len(sets),
        )
    )
    return theme.finish(chart)


def _panel(record: dict[str, Any], sets: list[str]) -> str:
    corruption = record["corruption"]
    return corruption if len(sets) == 1 else f"{corruption}, {record['data set']}"
