"""The command line: one file per verb, thin. `--help` must answer in under 0.4 s, so that a verb
imports its machinery inside the function that runs it.
"""

import os
import sys

import typer

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
    predict,
    quantize,
    report,
    train,
    verify,
)
from kdas_edge.errors import KdasEdgeError

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
app.command("card")(card.card)
app.command("report")(report.report)
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)


def main() -> None:
    """Run the command line; a person's error is one line and exit code 2, never a traceback."""
    try:
        app()
    except KdasEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # `kdas-edge … | head` closed the pipe; nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
