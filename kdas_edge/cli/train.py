"""`kdas-edge train`: one network, supervised."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from kdas_edge.cli.options import JsonOption, OverwriteOption

RecipeOption = Annotated[
    Path | None, typer.Option("--recipe", "-r", help="YAML recipe; see the recipes/ folder.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Recipe values as key=value.", metavar="[KEY=VALUE]...")
]
DataOption = Annotated[str | None, typer.Option("--data", help="Same as data.root=DIR.")]
NameOption = Annotated[str | None, typer.Option("--name", help="Same as name=NAME.")]
GroupOption = Annotated[
    str | None,
    typer.Option(
        "--group-by",
        help="Same as data.group_by=RULE: patients or videos stay on one side of the split.",
        show_default=False,
    ),
]
LeaveOption = Annotated[
    str | None,
    typer.Option(
        "--leave-centre-out",
        metavar="NAME",
        help="Same as data.leave_centre_out=NAME: test on a centre instead of training on it.",
        show_default=False,
    ),
]
OutOption = Annotated[Path, typer.Option("--out", help="Folder of all runs.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with a stopped run.")]


def train(
    overrides: Overrides = None,
    recipe: RecipeOption = None,
    data: DataOption = None,
    name: NameOption = None,
    group_by: GroupOption = None,
    leave_centre_out: LeaveOption = None,
    out: OutOption = Path("runs"),
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = None,
) -> None:
    """Train a network with ground truth only, such as a teacher.

    \b
    Examples:
      kdas-edge train --recipe recipes/teacher_effb0_256.yaml --data DATA
      kdas-edge train data.root=DATA model.backbone=mobilenetv2_100 schedule.epochs=10
      kdas-edge train --recipe recipes/teacher_effb0_256.yaml --data DATA --resume
      torchrun --nproc-per-node 4 -m kdas_edge train --recipe RECIPE --data DATA
    """
    from kdas_edge.environment import let_threads_sleep

    let_threads_sleep()
    from kdas_edge.errors import UserError

    options = {"data.root": data, "name": name, "data.group_by": group_by}
    options["data.leave_centre_out"] = leave_centre_out
    values = recipe_values(overrides, options)
    if any(value.startswith("teacher=") for value in values):
        raise UserError("train is supervised and takes no teacher; use `kdas-edge distill`")
    run_recipe(recipe, values, out, resume, overwrite, json)


def recipe_values(overrides: list[str] | None, options: dict[str, str | None]) -> list[str]:
    """Join overrides with the options that were given, as key=value; an option comes last."""
    given = [f"{key}={value}" for key, value in options.items() if value]
    return [*(overrides or []), *given]


def run_recipe(
    recipe: Path | None,
    values: list[str],
    out: Path,
    resume: bool,
    overwrite: bool,
    json: Path | None,
) -> dict[str, Any]:
    """Resolve a training recipe, run it and print the result; shared by train and distill."""
    from kdas_edge.console import table
    from kdas_edge.data.heldout import has_tests
    from kdas_edge.distill.training import run_training
    from kdas_edge.files import write_json
    from kdas_edge.recipe import TrainRecipe, load_recipe
    from kdas_edge.run import check_recipe_kept
    from kdas_edge.table import number

    resolved = load_recipe(TrainRecipe, recipe, values)
    check_recipe_kept(out, resolved, recipe, resume)
    summary = run_training(resolved, out, resume, overwrite)
    if json is not None:
        write_json(json, summary)
    table(
        f"{summary['run']} (Dice: deploy protocol, validation split)",
        ["best epoch", "Dice", "M parameters", "G MACs", "minutes"],
        [
            [
                summary["best_epoch"],
                number(summary["best_validation_dice"], 4),
                number(summary["parameters"] / 1e6, 2),
                number(summary["multiply_accumulates"] / 1e9, 2),
                number(summary["seconds"] / 60, 1),
            ]
        ],
    )
    run, root = shlex.quote(summary["run"]), shlex.quote(resolved.data.root)
    # a folder without test sets holds what the network was trained on
    tests = root if has_tests(Path(resolved.data.root)) else "OTHER_IMAGES"
    print(f"next: kdas-edge eval {run} --data {tests}")
    if resolved.teacher is None:
        print(f"      kdas-edge distill --teacher {run} --data {root}")
    else:
        print(f"      kdas-edge quantize --student {run} --data {root}")
    return summary
