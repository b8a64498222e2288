"""The stages by which the shipped student was trained, each with its resolved recipe.

    python benchmarks/shipped_student.py                            # the table of stages
    python benchmarks/shipped_student.py student_mnv2_352_fifth     # and the recipe of one of them

A mean of weights is made by `benchmarks/average_weights.py`; it has no recipe of its own. The
second student of the README's table, `student_effb0_352`, is the teacher of the last stage.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from kdas_edge.console import table
from kdas_edge.process import one_line_errors

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "benchmarks" / "results" / "runs"


@dataclass(frozen=True)
class Stage:
    """One training, quantisation or mean of weights.

    Attributes:
        name: of its run or checkpoint, and of its folder in `benchmarks/results/runs/`.
        recipe: the file in `recipes/` that it was made with; None for a mean of weights.
        begins_from: an earlier stage, or the file of an encoder's pretrained weights.
        teacher: an earlier stage; None where there was none.
        averages: the earlier stages whose weights it is the mean of.
        what: what is particular about it.
    """

    name: str
    recipe: str | None = None
    begins_from: str | None = None
    teacher: str | None = None
    averages: tuple[str, ...] = ()
    what: str = ""

    @property
    def resolved_recipe(self) -> Path | None:
        """Every value that the run had, the command line's included."""
        return RUNS / self.name / "recipe.yaml" if self.recipe is not None else None


STAGES = (
    Stage(
        "teacher_effb0_256",
        "teacher_effb0_256",
        "tf_efficientnet_b0.tracer_duts.safetensors",
        what="supervised, 8 epochs at 256 pixels",
    ),
    Stage(
        "student_mnv2_256",
        "student_mnv2_256",
        "mobilenetv2_100.imagenet.safetensors",
        "teacher_effb0_256",
        what="KDAS with its terms times 0.005, 8 epochs at 256 pixels",
    ),
    Stage(
        "teacher_effb0_352",
        "teacher_effb0_352",
        "teacher_effb0_256",
        what="supervised, 6 epochs at 352 pixels",
    ),
    Stage(
        "student_mnv2_352",
        "student_mnv2_352",
        "student_mnv2_256",
        "teacher_effb0_352",
        what="soft labels, 5 epochs, a seventh of the frames without masks",
    ),
    Stage(
        "student_mnv2_352_more",
        "student_mnv2_352",
        "student_mnv2_352",
        "teacher_effb0_352",
        what="soft labels, 7 epochs",
    ),
    Stage("student_mnv2_352_mean", averages=("student_mnv2_352", "student_mnv2_352_more")),
    Stage(
        "teacher_effb0_352_b8",
        "teacher_effb0_352",
        "teacher_effb0_352",
        what="10 epochs in batches of 8, with noise: the teacher of the README's table",
    ),
    Stage(
        "student_mnv2_352_b8",
        "student_mnv2_352",
        "student_mnv2_352_mean",
        "teacher_effb0_352",
        what="cached soft labels with flips, 9 epochs in batches of 8",
    ),
    Stage(
        "student_mnv2_352_bubbles",
        "student_mnv2_352",
        "student_mnv2_352_b8",
        "teacher_effb0_352_b8",
        what="8 epochs with bubbles, coding marks and more noise",
    ),
    Stage("student_mnv2_352_fourth", averages=("student_mnv2_352_bubbles", "student_mnv2_352_b8")),
    Stage(
        "student_effb0_352",
        "student_effb0_352",
        "teacher_effb0_352_b8",
        "teacher_effb0_352_b8",
        what="the teacher's own form, 8 epochs: the second student of the README's table",
    ),
    Stage(
        "student_mnv2_352_fifth",
        "student_mnv2_352",
        "student_mnv2_352_fourth",
        "student_effb0_352",
        what="8 epochs taught by that student",
    ),
    Stage(
        "student_mnv2_352_last",
        averages=("student_mnv2_352_fifth", "student_mnv2_352_fourth"),
        what="ships as fp32",
    ),
    Stage(
        "int8_mnv2_352_last_qat",
        "int8_mnv2_352",
        "student_mnv2_352_last",
        "student_mnv2_352_last",
        what="one epoch towards the float student's outputs: ships as int8",
    ),
    Stage(
        "int8_effb0_352",
        "int8_effb0_352",
        "student_effb0_352",
        what="post-training quantisation: int8 of the second student",
    ),
)


def main() -> None:
    names = [stage.name for stage in STAGES]
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("stage", nargs="?", choices=names, help="print its resolved recipe")
    wanted = parser.parse_args().stage
    if wanted is not None:
        recipe = next(stage for stage in STAGES if stage.name == wanted).resolved_recipe
        sys.stdout.write(recipe.read_text() if recipe is not None else "a mean of weights\n")
        return
    table(
        "Stages of the shipped student",
        ["stage", "recipe", "begins from", "teacher", "what"],
        [
            [
                stage.name,
                stage.recipe or "–",
                stage.begins_from or f"mean of {', '.join(stage.averages)}",
                stage.teacher or "–",
                stage.what,
            ]
            for stage in STAGES
        ],
    )


if __name__ == "__main__":
    with one_line_errors():
        main()
