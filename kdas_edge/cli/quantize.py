"""`kdas-edge quantize`: a float student becomes an int8 one, within a gate."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kdas_edge.cli.options import JsonOption, OverwriteOption
from kdas_edge.cli.train import (
    DataOption,
    NameOption,
    OutOption,
    Overrides,
    RecipeOption,
    ResumeOption,
    recipe_values,
)


def quantize(
    overrides: Overrides = None,
    recipe: RecipeOption = None,
    student: Annotated[
        str | None, typer.Option("--student", help="Float run or checkpoint to quantise.")
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option("--teacher", help="Run or checkpoint that helps in the fine-tuning."),
    ] = None,
    data: DataOption = None,
    search: Annotated[
        bool, typer.Option("--search", help="Try about ten settings of PTQ, keep the best.")
    ] = False,
    max_drop: Annotated[
        float | None,
        typer.Option("--max-drop", help="Mean Dice that may be lost on validation (default 0.01)."),
    ] = None,
    accept_undecided: Annotated[
        bool,
        typer.Option(
            "--accept-undecided", help="Go on where the images are too few for a verdict."
        ),
    ] = False,
    name: NameOption = None,
    out: OutOption = Path("runs"),
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = None,
) -> None:
    """Quantise a student to int8, gated on the Dice lost.

    Without a recipe: post-training quantisation, and fine-tuning if `schedule.epochs` is given.
    The gate passes where the 95 % interval of the Dice lost on the validation split ends within
    `max_drop`, fails where it begins above, and is undecided in between. If int8 does not pass, the
    layers that it hurts most return to float, as few as are enough, and what that costs in time is
    measured. The Dice lost is reported by size of polyp as well. Exit code 3: the gate failed, or
    is undecided without `--accept-undecided`; the best attempt and all numbers are in the run.

    \b
    Examples:
      kdas-edge quantize --student runs/student --data DATA
      kdas-edge quantize --student runs/student --data DATA --search --max-drop 0.002
      kdas-edge quantize --student runs/student --teacher runs/teacher --data DATA
          schedule.epochs=3 schedule.learning_rate=1e-5
      kdas-edge quantize --student runs/student --data DATA ptq.activation_ranges=tensor
          ptq.range_estimator=quantile ptq.ignored=[head1,head2]
      kdas-edge quantize --recipe recipes/int8.yaml --student runs/student --data DATA --resume
    """
    from kdas_edge.environment import let_threads_sleep

    let_threads_sleep()
    from kdas_edge.errors import GateError, UserError
    from kdas_edge.export.agreement import openvino_agreement
    from kdas_edge.export.cost import openvino_latencies
    from kdas_edge.files import read_json, write_json
    from kdas_edge.models.checkpoints import load_network
    from kdas_edge.quantize.pipeline import run_quantization
    from kdas_edge.recipe import QuantizeRecipe, load_recipe
    from kdas_edge.run import check_recipe_kept

    options = {
        "student": student,
        "teacher": teacher,
        "data.root": data,
        "name": name,
        "search": "true" if search else None,
        "max_drop": None if max_drop is None else str(max_drop),
        "accept_undecided": "true" if accept_undecided else None,
    }
    values = recipe_values(overrides, options)
    given = {value.partition("=")[0] for value in values}
    if recipe is None:
        if student is None and "student" not in given:
            raise UserError("quantize needs a float student; add --student RUN")
        source = next(value for value in values if value.startswith("student=")).partition("=")[2]
        defaults = {
            "name": f"{_stem(Path(source))}_int8",
            # the network was made for one size; asking for it again would only invite an error
            "data.size": load_network(Path(source)).architecture.size,
            "loss.variant": "kdas" if "teacher" in given else "supervised",
            "loss.segmentation": "structure",
            "loss.teacher_scale": 0.005,
        }
        values = [*(f"{k}={v}" for k, v in defaults.items() if k not in given), *values]
    resolved = load_recipe(QuantizeRecipe, recipe, values)
    check_recipe_kept(out, resolved, recipe, resume)
    try:
        summary = run_quantization(
            resolved,
            out,
            resume,
            overwrite,
            openvino_latencies,
            lambda network, images: openvino_agreement(network, images).disagreement,
        )
    except GateError:
        summary = read_json(out / resolved.name / "summary.json")
        if json is not None:
            write_json(json, summary)
        _print(summary)
        raise
    if json is not None:
        write_json(json, summary)
    _print(summary)
    run = summary["run"]
    print(f"next: kdas-edge export {run} --out bundles/{Path(run).name}")


def _print(summary: dict[str, Any]) -> None:
    from kdas_edge.console import print_table
    from kdas_edge.quantize import tables

    print_table(tables.attempts(summary))
    print_table(tables.groups(summary))
    print_table(tables.verdict(summary))
    if summary["mixed"] is not None:
        print_table(tables.ranking(summary))
        if summary["mixed"]["latency"] is not None:
            print_table(tables.latency(summary))
    print(tables.sentence(summary))


def _stem(source: Path) -> str:
    return source.name if source.is_dir() else source.stem
