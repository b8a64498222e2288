"""Which network is better? Dice on the validation split, where choices are made.

Scores runs or checkpoints, each asked about one or more mirror images (test-time flips, which are
for teachers), with paired differences to the first row. No test image is read.

    python benchmarks/validation_dice.py runs/teacher --data DATA --mirrors 1,2,4 --json …
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from one_line_errors import one_line_errors

from kdas_edge.bench.scores import bootstrap_mean
from kdas_edge.console import table
from kdas_edge.data.dataset import load_training_data
from kdas_edge.distill.validation import validate
from kdas_edge.environment import describe
from kdas_edge.errors import UserError
from kdas_edge.files import check_output_file, write_json
from kdas_edge.models.checkpoints import load_network
from kdas_edge.models.mirrors import with_mirrors
from kdas_edge.recipe import DataRecipe


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("networks", nargs="+", type=Path, help="runs or checkpoints")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--mirrors", default="1", help="1 to 4; several with commas between")
    parser.add_argument("--validation", type=float, default=0.1, help="share, as in the recipe")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.json is not None:
        check_output_file(args.json)
    counts = args.mirrors.split(",")
    if not set(counts) <= set("1234"):
        raise UserError(f"--mirrors {args.mirrors!r}: name whole numbers of 1 to 4")

    scores: dict[str, NDArray[np.float64]] = {}
    split = None
    for path in args.networks:
        network, architecture = load_network(path)
        recipe = DataRecipe(root=str(args.data), size=architecture.size, validation=args.validation)
        data = load_training_data(recipe)
        split = data.split.sha256
        for count in counts:
            label = f"{path.name}, mirror images: {count}"
            if label in scores:
                raise UserError(f"{label} is named twice; rename one")
            asked = with_mirrors(network, int(count)).to(memory_format=torch.channels_last)
            held_out = data.validation
            dice, _ = validate(
                asked, held_out.images, held_out.masks, architecture.size, architecture
            )
            scores[label] = dice

    first = next(iter(scores.values()))
    rows: dict[str, Any] = {}
    for name, dice in scores.items():
        difference = None if dice is first else bootstrap_mean(dice - first).as_json()
        rows[name] = {"dice": bootstrap_mean(dice).as_json(), "minus_first": difference}
    table(
        f"Dice on {len(first)} validation images, 95 % intervals; paired difference to the first",
        ["network", "Dice", "difference"],
        [
            [name, text(row["dice"], ""), text(row["minus_first"], "+")]
            for name, row in rows.items()
        ],
    )
    if args.json is not None:
        write_json(args.json, {"split_sha256": split, "rows": rows, "environment": describe()})


def text(estimate: dict[str, float] | None, sign: str) -> str:
    if estimate is None:
        return ""
    mean, low, high = (f"{estimate[key]:{sign}.4f}" for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


if __name__ == "__main__":
    with one_line_errors():
        main()
