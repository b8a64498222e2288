"""Copy what may be published of runs: recipe, environment, log and summary, and the split once.

Overlays stay behind: they show images that are not ours to pass on. With --weights the best network
comes along as `weights.safetensors`, in half precision, so that others can distil from it or go on
with `model.init_from`.

    python benchmarks/collect_runs.py --weights runs/teacher_effb0_256 runs/student_mnv2_256
"""

import argparse
import json
import re
from pathlib import Path

from kdas_edge.files import staged_directory, write_text_atomic
from kdas_edge.models.checkpoints import RECIPE, load_network, save_network
from kdas_edge.process import one_line_errors
from kdas_edge.run import open_run

RESULTS = Path(__file__).resolve().parent / "results"
FILES = ("recipe.yaml", "environment.json", "run.json")
# only where there was a training, a calibration or a search
OPTIONAL = (
    "metrics.csv", "attempts.json", "calibration.json", "sensitivity.json", "latency.json",
)  # fmt: skip


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
        target = RESULTS / "runs" / run.path.name
        split = (run.path / "split.json").read_text()
        published = RESULTS / "split.json"
        if not published.exists():
            write_text_atomic(published, split)
        with staged_directory(target, overwrite=True) as staging:
            found = [name for name in OPTIONAL if (run.path / name).exists()]
            if split != published.read_text():
                write_text_atomic(staging / "split.json", split)
            for name in (*FILES, *found):
                write_text_atomic(staging / name, without_folders((run.path / name).read_text()))
            if arguments.weights:
                network = load_network(run.path)
                half = network.half().state_dict()
                header = {RECIPE: without_folders(json.dumps(recipe.model_dump(mode="json")))}
                save_network(staging / "weights.safetensors", half, network.architecture, header)
        print(target)


if __name__ == "__main__":
    with one_line_errors():
        main()
