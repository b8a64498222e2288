"""`kdas-edge card`: a benchmark's figures on the bundle's model card."""

from pathlib import Path
from typing import Annotated

import typer


def card(
    bundle: Annotated[Path, typer.Argument(help="Directory of the bundle.")],
    results: Annotated[
        Path,
        typer.Argument(
            help="Result of kdas-edge bench on this bundle.",
            metavar="RESULT.json",
        ),
    ],
) -> None:
    """Write what a benchmark measured into manifest and model card.

    The model files stay as they are. The benchmark must have measured these very files.

    \b
    Examples:
      kdas-edge bench mybundle --teacher teacher --data DATA --json out.json
      kdas-edge card mybundle out.json
    """
    from kdas_edge.bench.records import accuracy_records, benchmark_note, measured_name
    from kdas_edge.bench.results import read_bench
    from kdas_edge.bundle.reader import open_bundle
    from kdas_edge.console import info
    from kdas_edge.export.card import CARD_NAME
    from kdas_edge.export.measurements import record_measurements

    found = read_bench(results)
    name = measured_name(found, open_bundle(bundle))
    records = accuracy_records(found, name)
    record_measurements(bundle, records, benchmark_note(found, name))
    info(f"{len(records)} accuracies recorded; card: {bundle / CARD_NAME}")
