"""Copy what may be published of runs: recipe, environment, split, log, curves and their picture.

Overlays stay behind: they show images that are not ours to pass on. With --weights the best network
comes along as `weights.safetensors`, in half precision, so that others can distil from it or go on
with `model.start`.

    python benchmarks/collect_runs.py --weights runs/teacher_effb0_256 runs/student_mnv2_256
"""

import argparse
import json
import re
from pathlib import Path

import altair as alt
from one_line_errors import one_line_errors

from kdas_edge.files import staged_directory, write_text_atomic
from kdas_edge.models.checkpoints import RECIPE, load_network, save_network
from kdas_edge.run import open_run

RESULTS = Path(__file__).resolve().parent / "results" / "runs"
# the latter only where there was a training
FILES = ("recipe.yaml", "environment.json", "split.json", "run.json")
OPTIONAL = (
    "metrics.csv", "attempts.json", "calibration.json", "sensitivity.json", "latency.json",
)  # fmt: skip


def curves(name: str, rows: list[dict]) -> alt.TopLevelMixin:
    """Validation Dice, and the loss with its terms, by epoch."""
    skipped = ("epoch", "step", "seconds", "images_per_second", "peak_memory_mib", "learning_rate")
    long = [
        {"epoch": row["epoch"], "term": key, "value": value}
        for row in rows
        for key, value in row.items()
        if key not in skipped and isinstance(value, float)
    ]
    base = alt.Chart(alt.Data(values=long)).mark_line(point=True).properties(width=300, height=220)
    axis = alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1))

    def panel(title: str, keep: str, domain: bool) -> alt.Chart:
        return base.transform_filter(keep).encode(
            x=axis,
            y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=domain)),
            color=alt.Color("term:N", title=None),
        )

    dice = panel("Dice", "datum.term == 'validation_dice'", False)
    loss_keep = "datum.term != 'validation_dice' && indexof(datum.term, 'share_') < 0"
    panels = [dice, panel("loss and its terms", loss_keep, True)]
    if any(key.startswith("share_") for key in rows[0]):
        shares = panel("share of the gradient", "indexof(datum.term, 'share_') == 0", True)
        panels.append(shares)
    return alt.hconcat(*panels).resolve_scale(color="independent").properties(title=name)


def without_folders(text: str) -> str:
    """Absolute paths as `runs/NAME`: where runs lie on this machine is nobody's news."""
    return re.sub(r"(: \"?)/[^\s\"]*/([^\s\"/]+)", r"\1runs/\2", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument(
        "--weights", action="store_true", help="also the network, in half precision"
    )
    arguments = parser.parse_args()
    for path in arguments.runs:
        run, recipe = open_run(path)
        target = RESULTS / run.path.name
        with staged_directory(target, overwrite=True) as staging:
            found = [name for name in OPTIONAL if (run.path / name).exists()]
            for name in (*FILES, *found):
                write_text_atomic(staging / name, without_folders((run.path / name).read_text()))
            if arguments.weights:
                network, architecture = load_network(run.path)
                half = network.half().state_dict()
                header = {RECIPE: without_folders(json.dumps(recipe.model_dump(mode="json")))}
                save_network(staging / "weights.safetensors", half, architecture, header)
            rows = run.history()
            if rows:
                curves(run.path.name, rows).save(str(staging / "curves.png"), scale_factor=2)
        print(target)


if __name__ == "__main__":
    with one_line_errors():
        main()
