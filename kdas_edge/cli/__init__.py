"""The command line: one file per verb, thin. `--help` must answer in under 0.4 s, so that a verb
imports its machinery inside the function that runs it.
"""

from typing import Annotated

import typer

from kdas_edge import __version__
from kdas_edge.cli import (
    bench,
    calibrate,
    card,
    data,
    demo,
    dicom,
    distill,
    doctor,
    evaluate,
    export,
    info,
    predict,
    quantize,
    report,
    train,
    verify,
)
from kdas_edge.cli.verb import Verb
from kdas_edge.process import one_line_errors

app = typer.Typer(
    name="kdas-edge",
    help="Distil, quantise, export and benchmark polyp-segmentation networks for edge devices. "
    "Research software, no regulatory clearance.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    # plain help: Rich with its Markdown would take as long again as everything else together
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"kdas-edge {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


app.add_typer(data.app, name="data")
app.command("train")(train.train)
app.command("distill")(distill.distill)
app.command("calibrate")(calibrate.calibrate)
app.command("quantize")(quantize.quantize)
app.command("export")(export.export)
app.command("eval")(evaluate.evaluate)
app.command("bench")(bench.bench)
app.command("predict")(predict.predict)
app.command("dicom")(dicom.dicom)
app.command("verify")(verify.verify)
app.command("info")(info.info)
app.command("card")(card.card)
app.command("report")(report.report)
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)


for _command in (*app.registered_commands, *data.app.registered_commands):
    _command.cls = Verb


def main() -> None:
    """Run the command line; an error is one line, never a traceback."""
    with one_line_errors():
        app()
