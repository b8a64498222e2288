"""Which network is better? Dice on the validation split, where choices are made.

Scores runs or checkpoints, each on one or more flips of an image (test-time augmentation, which is
for teachers), with paired differences to the first row; with --corruptions also on corrupted copies
of the images. No test image is read.

    python benchmarks/validation_dice.py runs/teacher --data DATA --tta 1,2,4 --json …
    python benchmarks/validation_dice.py runs/one runs/other --data DATA --corruptions bubbles,jpeg
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kdas_edge.console import table
from kdas_edge.data.corruptions import STRENGTHS, check_names, corrupt
from kdas_edge.data.dataset import TrainingData, load_training_data
from kdas_edge.data.resident import ResidentSet
from kdas_edge.distill.validation import validate
from kdas_edge.environment import describe
from kdas_edge.errors import UserError
from kdas_edge.files import check_output_file, write_json
from kdas_edge.metrics.bootstrap import bootstrap_mean
from kdas_edge.models.architecture import SegmentationNetwork
from kdas_edge.models.checkpoints import load_network
from kdas_edge.models.tta import with_tta
from kdas_edge.process import one_line_errors
from kdas_edge.recipe import DataRecipe


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("networks", nargs="+", type=Path, help="runs or checkpoints")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tta", default="1", help="flips, 1 to 4; several with commas between")
    parser.add_argument("--validation", type=float, default=0.1, help="share, as in the recipe")
    parser.add_argument("--corruptions", help="also on images corrupted so; names, commas between")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.json is not None:
        check_output_file(args.json)
    counts = args.tta.split(",")
    if not set(counts) <= set("1234"):
        raise UserError(f"--tta {args.tta!r}: name whole numbers of 1 to 4")

    corruptions = check_names(args.corruptions.split(",")) if args.corruptions else []
    conditions = [("none", 0), *((name, level) for name in corruptions for level in STRENGTHS)]

    candidates: dict[str, SegmentationNetwork] = {}
    data: dict[int, TrainingData] = {}
    for path in args.networks:
        network = load_network(path)
        size = network.architecture.size
        if size not in data:
            recipe = DataRecipe(root=str(args.data), size=size, validation=args.validation)
            data[size] = load_training_data(recipe)
        for count in counts:
            label = f"{path.name}, flips: {count}"
            if label in candidates:
                raise UserError(f"{label} is named twice; rename one")
            flipped = with_tta(network, int(count)).to(memory_format=torch.channels_last)
            candidates[label] = flipped

    scores: dict[str, dict[str, NDArray[np.float64]]] = {label: {} for label in candidates}
    for corruption, strength in conditions:
        condition = f"{corruption} {strength}" if strength else "as they are"
        # once for all networks of a size: corrupting costs as much as running a network
        images = {
            size: corrupted(found.validation, corruption, strength) for size, found in data.items()
        }
        for label, network in candidates.items():
            size = network.architecture.size
            masks = data[size].validation.masks
            dice, _ = validate(network, images[size], masks, size)
            scores[label][condition] = dice

    if len(conditions) > 1:
        # what to choose by where the images will be none too clean: each condition counts the same
        for by_condition in scores.values():
            by_condition["all of these"] = np.mean(list(by_condition.values()), axis=0)

    first = next(iter(scores.values()))
    rows: dict[str, Any] = {}
    for name, by_condition in scores.items():
        rows[name] = {}
        for condition, dice in by_condition.items():
            base = first[condition]
            difference = None if dice is base else asdict(bootstrap_mean(dice - base))
            estimate = asdict(bootstrap_mean(dice))
            rows[name][condition] = {"dice": estimate, "minus_first": difference}
    count = len(next(iter(first.values())))
    table(
        f"Dice on {count} validation images, 95 % intervals; paired difference to the first",
        ["network", "images", "Dice", "difference"],
        [
            [name, condition, text(row["dice"], ""), text(row["minus_first"], "+")]
            for name, by_condition in rows.items()
            for condition, row in by_condition.items()
        ],
    )
    if args.json is not None:
        # the same at every size: it is cut by content
        split = next(iter(data.values())).split.sha256
        write_json(args.json, {"split_sha256": split, "rows": rows, "environment": describe()})


def corrupted(held_out: ResidentSet, corruption: str, strength: int) -> torch.Tensor:
    """The images (N, 3, S, S) uint8, each corrupted in its own way."""
    if not strength:
        return held_out.images
    frames = [
        corrupt(image.permute(1, 2, 0).numpy(), corruption, strength, name)
        for name, image in zip(held_out.names, held_out.images, strict=True)
    ]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def text(estimate: dict[str, float] | None, sign: str) -> str:
    if estimate is None:
        return ""
    mean, low, high = (f"{estimate[key]:{sign}.4f}" for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


if __name__ == "__main__":
    with one_line_errors():
        main()
