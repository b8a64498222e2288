"""`kdas-edge report`: the page of one or several benchmarks."""

from pathlib import Path
from typing import Annotated

import typer

from kdas_edge.cli.options import JsonOption


def report(
    results: Annotated[
        list[Path],
        typer.Argument(help="Result files of kdas-edge bench.", metavar="RESULT.json..."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="The page, or a folder for report.html. Plots are written beside it."
        ),
    ] = Path("report.html"),
    bundle: Annotated[
        list[Path] | None,
        typer.Option("--bundle", help="Draw overlays with this model; once for each model."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="The data of the benchmark, for the overlays.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Write one page from benchmarks, also of several machines.

    The page works offline. Overlays show images of the data: leave them out of pages you publish
    if the data's terms forbid it.

    \b
    Examples:
      kdas-edge report out.json --out report.html
      kdas-edge report laptop.json jetson.json --out comparison
      kdas-edge report out.json --bundle teacher --bundle student --data DATA
    """
    from kdas_edge.bench.results import read_bench, write_result
    from kdas_edge.console import info
    from kdas_edge.errors import UserError
    from kdas_edge.report import check_installed, write_page
    from kdas_edge.report.merge import join

    page = out if out.suffix in (".html", ".htm") else out / "report.html"
    check_installed(page)
    if bool(bundle) != (data is not None):
        raise UserError("overlays need both --bundle and --data")
    if bundle and len(results) > 1:
        raise UserError("overlays are drawn for one result file; name one")
    joined = join([(path.stem, read_bench(path)) for path in results])
    cases = []
    if bundle and data is not None:
        from kdas_edge.bench.evaluation import choose_sets
        from kdas_edge.bench.models import open_model
        from kdas_edge.report.gallery import make_gallery

        chosen = choose_sets(data, list(joined.data))
        cases = make_gallery(joined, [open_model(path) for path in bundle], chosen)
    write_page(page, joined, cases)
    info(f"page: {page}")
    if json is not None:
        write_result(json, joined)
