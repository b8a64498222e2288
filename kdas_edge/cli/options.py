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
    ),
]

PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="core, or camera: preprocessing inside the graph. Default: core where the bundle "
        "has it.",
    ),
]

JsonOption = Annotated[Path | None, typer.Option("--json", help="Write the result here.")]
CsvOption = Annotated[Path | None, typer.Option("--csv", help="Write one line per image here.")]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace what is already in the output's place.")
]

LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="Only the first N images of each set.")
]
SetsOption = Annotated[
    str | None, typer.Option("--sets", help="Only these test sets, with commas between.")
]
ProtocolOption = Annotated[
    str | None, typer.Option("--protocol", help="paper, deploy or both. Default: both.")
]

MaskValuesOption = Annotated[
    str | None,
    typer.Option(
        "--mask-values",
        help="Values of the masks that are polyp, such as 1,2 or 128-255 or #ff0000.",
    ),
]
