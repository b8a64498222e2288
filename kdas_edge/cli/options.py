"""Options that several verbs share, so that they read the same everywhere."""

from pathlib import Path
from typing import Annotated

import typer

BundleOption = Annotated[
    Path | None,
    typer.Option(
        "--bundle",
        "-b",
        help="Directory of the bundle. Default: the shipped student.",
        show_default=False,
    ),
]

TargetOption = Annotated[
    str,
    typer.Option(
        "--target",
        help="runtime:device[:option=value…]; of a list with commas the first that works, and "
        "the next one when its device fails.",
    ),
]

PrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="fp32, fp16, int8 or int8_weights; by default int8 where the bundle has it for "
        "this runtime.",
        show_default=False,
    ),
]

PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="core, or camera: preprocessing inside the graph. Default: core where the bundle "
        "has it.",
        show_default=False,
    ),
]
