"""`kdas-edge info`: what a bundle or a run records of itself."""

from pathlib import Path
from typing import Annotated

import typer

from kdas_edge.cli.options import JsonOption


def info(
    path: Annotated[
        Path | None,
        typer.Argument(
            help="Directory of a bundle or a run. Default: the shipped student.",
            metavar="BUNDLE|RUN",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Print size, recorded accuracy, lineage, encoder, terms and versions.

    Reads the manifest of a bundle, or the recipe and the records of a run; no weights and no
    images. `kdas-edge verify` checks the files of a bundle.

    \b
    Examples:
      kdas-edge info mybundle
      kdas-edge info runs/student --json info.json
    """
    from kdas_edge.bundle.shipped import or_shipped
    from kdas_edge.console import print_table
    from kdas_edge.files import write_json
    from kdas_edge.report.about import about, tables

    found = about(or_shipped(path))
    if json is not None:
        write_json(json, found.as_json())
    for table in tables(found):
        print_table(table)
