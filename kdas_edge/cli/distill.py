"""`kdas-edge distill`: a student learns from a teacher with KDAS."""

from pathlib import Path
from typing import Annotated

import typer

from kdas_edge.cli.options import JsonOption, OverwriteOption
from kdas_edge.cli.train import (
    DataOption,
    GroupOption,
    LeaveOption,
    NameOption,
    OutOption,
    Overrides,
    RecipeOption,
    ResumeOption,
    recipe_values,
    run_recipe,
)


def distill(
    overrides: Overrides = None,
    recipe: RecipeOption = None,
    teacher: Annotated[
        str | None, typer.Option("--teacher", help="Run or checkpoint of the teacher.")
    ] = None,
    data: DataOption = None,
    name: NameOption = None,
    group_by: GroupOption = None,
    leave_centre_out: LeaveOption = None,
    out: OutOption = Path("runs"),
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = None,
) -> None:
    """Distil a student from a trained teacher with KDAS (ICME 2024).

    \b
    Examples:
      kdas-edge distill --recipe recipes/student_mnv2_256.yaml --teacher runs/teacher --data DATA
      kdas-edge distill --teacher runs/teacher data.root=DATA loss.variant=kl loss.temperature=4
      torchrun --nproc-per-node 4 -m kdas_edge distill --recipe RECIPE --teacher RUN --data DATA
    """
    from kdas_edge.environment import let_threads_sleep

    let_threads_sleep()
    from kdas_edge.errors import UserError

    options = {"teacher": teacher, "data.root": data, "name": name, "data.group_by": group_by}
    options["data.leave_centre_out"] = leave_centre_out
    values = recipe_values(overrides, options)
    given = {value.partition("=")[0] for value in values}
    if recipe is None:
        if "teacher" not in given:
            raise UserError("distill needs a teacher; add --teacher RUN")
        values = [*([] if "name" in given else ["name=student"]), *values]
    run_recipe(recipe, values, out, resume, overwrite, json)
