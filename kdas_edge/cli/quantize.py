"""`kdas-edge quantize`: a float student becomes an int8 one, within a gate."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kdas_edge.cli.train import (
    DataOption,
    JsonOption,
    NameOption,
    OutOption,
    Overrides,
    OverwriteOption,
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
    name: NameOption = None,
    out: OutOption = Path("runs"),
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = None,
) -> None:
    """Quantise a float student to int8: calibration, fine-tuning, and a gate on the Dice lost.

    Without a recipe: post-training quantisation, and fine-tuning if `schedule.epochs` is given.
    Exit code 3: more Dice was lost on the validation split than `max_drop` allows; the best
    attempt and its numbers are in the run.

    Examples:

        kdas-edge quantize --student runs/student --data DATA

        kdas-edge quantize --student runs/student --teacher runs/teacher --data DATA
        schedule.epochs=3 schedule.learning_rate=1e-5 max_drop=0.005

        kdas-edge quantize --recipe recipes/int8.yaml --student runs/student --data DATA --resume
    """
    from kdas_edge.errors import GateError, UserError
    from kdas_edge.files import read_json, write_json
    from kdas_edge.models.checkpoints import load_network
    from kdas_edge.quantize.pipeline import run_quantization
    from kdas_edge.recipe import QuantizeRecipe, load_recipe

    options = {"student": student, "teacher": teacher, "data.root": data, "name": name}
    values = recipe_values(overrides, options)
    given = {value.partition("=")[0] for value in values}
    if recipe is None:
        if student is None and "student" not in given:
            raise UserError("quantize needs a float student; add --student RUN")
        source = next(value for value in values if value.startswith("student=")).partition("=")[2]
        defaults = {
            "name": f"{_stem(Path(source))}_int8",
            # the network was made for one size; asking for it again would only invite an error
            "data.size": load_network(Path(source))[1].size,
            "loss.variant": "kdas" if "teacher" in given else "supervised",
            "loss.segmentation": "structure",
            "loss.teacher_scale": 0.005,
        }
        values = [*(f"{k}={v}" for k, v in defaults.items() if k not in given), *values]
    resolved = load_recipe(QuantizeRecipe, recipe, values)
    try:
        summary = run_quantization(resolved, out, resume, overwrite)
    except GateError:
        summary = read_json(out / resolved.name / "summary.json")
        _print(summary)
        if json is not None:
            write_json(json, summary)
        raise
    _print(summary)
    if json is not None:
        write_json(json, summary)
    run = summary["run"]
    print(f"next: kdas-edge export {run} --out bundles/{Path(run).name}")


def _print(summary: dict[str, Any]) -> None:
    from kdas_edge.console import table

    gate = summary["gate"]
    rows: list[list[object]] = []
    for label, key in (("float", "float_dice"), ("int8 PTQ", "ptq_dice"), ("int8 QAT", "qat_dice")):
        if gate[key] is None:
            continue
        lost = gate["float_dice"] - gate[key]
        kept = label == f"int8 {gate['kept'].upper()}"
        verdict = ("kept" if gate["passed"] else "kept, gate failed") if kept else ""
        rows.append([label, f"{gate[key]:.4f}", f"{lost:.4f}", verdict])
    table(
        f"{summary['run']} (Dice: deploy protocol, validation split)",
        ["network", "Dice", "Dice lost", "verdict"],
        rows,
    )
    low, high = gate["interval"]
    print(
        f"{gate['drop']:.4f} Dice lost on {gate['images']} images "
        f"(95 % interval {low:.4f} to {high:.4f}); allowed {gate['max_drop']:g}"
    )


def _stem(source: Path) -> str:
    return source.name if source.is_dir() else source.stem
