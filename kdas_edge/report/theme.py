"""How every plot looks: colours that the colour-blind can tell apart, shapes, fonts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import altair as alt

# Okabe–Ito, without black (invisible on dark) and yellow (invisible on white)
COLORS = ("#D55E00", "#CC79A7", "#0072B2", "#009E73", "#E69F00", "#56B4E9")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3), (12, 4), (4, 8))
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
# visible on white and on dark
NEUTRAL = "#8a8f98"
# what a legend may need beside the plots, in pixels
_LABEL = 420


def color(field: str, values: Sequence[str], title: str | None = None) -> "alt.Color":
    """Colours of a nominal field, in the order of `values`, the same in every plot of a page."""
    import altair as alt

    return alt.Color(f"{field}:N", sort=list(values), title=title or field).scale(
        domain=list(values), range=[COLORS[i % len(COLORS)] for i in range(len(values))]
    )


def shape(field: str, values: Sequence[str], title: str | None = None) -> "alt.Shape":
    """Shapes of a nominal field, in the order of `values`."""
    import altair as alt

    return alt.Shape(f"{field}:N", sort=list(values), title=title or field).scale(
        domain=list(values), range=[SHAPES[i % len(SHAPES)] for i in range(len(values))]
    )


def dash(field: str, values: Sequence[str], title: str | None = None) -> "alt.StrokeDash":
    """Dashes of a nominal field, so that lines differ by more than colour."""
    import altair as alt

    return alt.StrokeDash(f"{field}:N", sort=list(values), title=title or field).scale(
        domain=list(values), range=[list(DASHES[i % len(DASHES)]) for i in range(len(values))]
    )


def finish(chart: Any) -> "alt.TopLevelMixin":
    """Give a chart the fonts, the legend and the transparent background of the page."""
    finished: alt.TopLevelMixin = (
        chart.configure(font=FONT, background="transparent")
        .configure_axis(labelFontSize=12, titleFontSize=12, titleFontWeight="normal")
        .configure_legend(
            orient="bottom",
            direction="vertical",
            labelFontSize=12,
            titleFontSize=12,
            labelLimit=_LABEL,
            symbolSize=110,
            symbolOpacity=1,
            symbolBaseFillColor=NEUTRAL,
            symbolBaseStrokeColor=NEUTRAL,
        )
        .configure_header(labelFontSize=13, labelLimit=_LABEL)
        .configure_view(stroke=None)
    )
    return finished
