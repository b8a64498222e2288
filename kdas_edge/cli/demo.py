"""`kdas-edge demo`: the whole road in a few minutes."""

from pathlib import Path
from typing import Annotated

import typer

from kdas_edge.cli.options import JsonOption, OverwriteOption


def demo(
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Real images (PraNet layout); scenes are drawn without it."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", help="Folder of pretrained encoders; random weights without."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of everything it makes.")] = Path(
        "demo"
    ),
    quick: Annotated[
        bool, typer.Option("--quick", help="A few steps of everything; the masks will be poor.")
    ] = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = None,
) -> None:
    """Run every step on a small scale, from images to the page.

    \b
    Examples:
      kdas-edge demo
      kdas-edge demo --data DATA --weights WEIGHTS --out demo-real
    """
    from kdas_edge.bench.results import write_result
    from kdas_edge.environment import let_threads_sleep

    let_threads_sleep()
    from kdas_edge.demo import run_demo

    made = run_demo(out, data, weights, quick, overwrite)
    if json is not None:
        write_result(json, made.results)
    where = data or out / "data"
    print(f"page: {made.page}")
    print(f"next: kdas-edge verify {made.student}")
    print(f"      kdas-edge predict {made.frames} --bundle {made.student} --out masks")
    print(f"      kdas-edge bench {made.student} --teacher {made.teacher} --data {where}")
    print("      kdas-edge train --help, distill --help, quantize --help, export --help")
