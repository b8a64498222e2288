"""What do chosen calibration frames buy against random ones?

A float student is quantised after training with N frames that were chosen by k-center, stratified,
at random, or evenly spaced over the sorted names, with several seeds each, from the training images
that show no test image; or drawn from half of the frames of other hospitals (`elsewhere`).
Measured: Dice on the validation split (deploy protocol), of small polyps too, and the share of
pixels whose mask changes against the float student and how far the two masks agree, on the
validation images and on frames of other hospitals (the other half of them, where `elsewhere` is
among the choices). Test images choose nothing and measure nothing here.

    python benchmarks/calibration_sets.py --student runs/student_mnv2_256 --data DATA \
        --unlabelled FRAMES --json benchmarks/results/calibration_sets.json

Forty-eight quantisations by default: an hour or two on two cores at 256 pixels; fewer with
--counts, --seeds and --choices.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from kdas_edge.console import info, table
from kdas_edge.data.dataset import load_training_data
from kdas_edge.data.features import FEATURES, SMALL_BELOW
from kdas_edge.data.heldout import HeldOut, has_tests, read_test_images
from kdas_edge.data.layout import Pair, list_images
from kdas_edge.data.resident import ResidentSet, load_pairs
from kdas_edge.environment import describe
from kdas_edge.errors import UserError
from kdas_edge.files import write_json
from kdas_edge.models.checkpoints import load_network
from kdas_edge.process import one_line_errors
from kdas_edge.quantize.attempts import Ranges
from kdas_edge.quantize.calibration.candidates import Look, choose, look_at, screen
from kdas_edge.quantize.calibration.coverage import radius
from kdas_edge.quantize.calibration.frames import CalibrationSet
from kdas_edge.quantize.calibration.selection import feature_matrix
from kdas_edge.quantize.evaluation import Evaluation, evaluate, polyp_fractions
from kdas_edge.quantize.ptq import post_training_quantize
from kdas_edge.recipe import DataRecipe, PtqRecipe
from kdas_edge.table import number

CHOICES = ("kcenter", "stratified", "random", "even")
ELSEWHERE = "elsewhere"
MEASURES = {
    "dice_lost": "Dice lost, validation",
    "small_dice_lost": "of small polyps",
    "changed_validation": "% of mask, validation",
    "changed_validation_worst": "worst tenth",
    "agreement_validation": "agreement",
    "changed_unlabelled": "% of mask, other hospitals",
    "changed_unlabelled_worst": "worst tenth",
    "agreement_unlabelled": "agreement",
}


def pick(choice: str, looks: Sequence[Look], count: int, seed: int) -> list[int]:
    """Indices of `count` of the candidates."""
    total = len(looks)
    if choice in ("random", ELSEWHERE):
        # plain, without the floor for polyp-free frames
        drawn = np.random.default_rng(seed).choice(total, min(count, total), replace=False)
        return sorted(drawn.tolist())
    if choice == "even":
        start = np.random.default_rng(seed).random()
        return [int((start + i) * total / count) for i in range(count)]
    assert choice in ("kcenter", "stratified")
    return choose(looks, count, choice, seed)  # type: ignore[arg-type]


class Candidates:
    """Frames from which calibration frames may be taken: none that shows a test image."""

    def __init__(self, frames: ResidentSet, tests: HeldOut) -> None:
        self.frames = frames
        looks = [
            look_at(np.ascontiguousarray(image.permute(1, 2, 0).numpy()), mask[0].numpy() > 0)
            for image, mask in zip(frames.images, frames.masks, strict=True)
        ]
        refused = screen(frames.names, looks, tests, same_size=False)
        self.left_out = len(refused)
        self.eligible = [index for index in range(len(frames)) if index not in refused]
        self.looks = [looks[index] for index in self.eligible]
        self.features = feature_matrix(
            [one.appearance for one in self.looks], [one.polyp for one in self.looks]
        )

    def chosen(self, indices: Sequence[int]) -> CalibrationSet:
        places = [self.eligible[index] for index in indices]
        return CalibrationSet(
            self.frames.images[places], tuple(self.frames.names[place] for place in places)
        )


def changed(ours: Evaluation, reference: Evaluation, name: str) -> dict[str, float]:
    """Share of pixels that differ, in the worst tenth of the frames too; how masks agree."""
    per_frame = np.sort((ours.masks != reference.masks).mean(axis=(1, 2)))
    worst = per_frame[-max(1, len(per_frame) // 10) :]
    return {
        f"changed_{name}": float(per_frame.mean()),
        f"changed_{name}_worst": float(worst.mean()),
        f"agreement_{name}": ours.agreement(reference),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--unlabelled", type=Path, required=True)
    parser.add_argument("--counts", default="8,32,100,300")
    parser.add_argument("--choices", default=",".join(CHOICES), help=f"{ELSEWHERE} is one, too")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ranges", choices=("tensor", "channel"), default="tensor")
    parser.add_argument("--model-type", choices=("none", "transformer"), default="none")
    parser.add_argument(
        "--range-estimator",
        choices=get_args(PtqRecipe.model_fields["range_estimator"].annotation),
        default="default",
        help="as ptq.range_estimator of a recipe",
    )
    parser.add_argument("--limit", type=int, help="a trial: at most N frames of each set")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.manual_seed(0)

    student = load_network(args.student)
    architecture = student.architecture
    ranges: Ranges = args.ranges
    recipe = PtqRecipe(model_type=args.model_type, range_estimator=args.range_estimator)
    choices = args.choices.split(",")
    if unknown := set(choices) - {*CHOICES, ELSEWHERE}:
        parser.error(
            f"--choices: {', '.join(sorted(unknown))}; known: {', '.join(CHOICES)}, {ELSEWHERE}"
        )
    data = load_training_data(DataRecipe(root=str(args.data), size=architecture.size))
    frames = [Pair(path.stem, path, None) for path in list_images(args.unlabelled)]
    judges = frames[1::2] if ELSEWHERE in choices else frames
    sets = {
        "validation": first(data.validation, args.limit),
        "unlabelled": load_pairs(judges[: args.limit], architecture.size),
    }

    tests = read_test_images(args.data) if has_tests(args.data) else HeldOut()
    here = Candidates(data.train, tests)
    info(
        f"{len(here.eligible)} candidates, {here.left_out} left out; "
        f"features: {', '.join(FEATURES)}"
    )
    pools = dict.fromkeys(choices, here)
    if ELSEWHERE in choices:
        pools[ELSEWHERE] = Candidates(load_pairs(frames[::2], architecture.size), tests)

    reference = {name: evaluate(student, one) for name, one in sets.items()}
    float_dice = reference["validation"].mean
    small = polyp_fractions(sets["validation"]) < SMALL_BELOW
    if not small.any():
        raise UserError(
            f"none of {len(small)} validation images has a polyp below {SMALL_BELOW:.0%} of the "
            "frame; raise --limit, or leave it out"
        )
    info(f"float student: validation Dice {float_dice:.4f}")
    rows: list[dict[str, Any]] = []
    for count in map(int, args.counts.split(",")):
        for choice in choices:
            for seed in range(args.seeds):
                started = time.monotonic()
                pool = pools[choice]
                indices = pick(choice, pool.looks, count, seed)
                samples = pool.chosen(indices).samples(architecture)
                quantized = post_training_quantize(student, samples, recipe, ranges)
                row: dict[str, Any] = {"choice": choice, "count": len(indices), "seed": seed}
                for name, one in sets.items():
                    ours = evaluate(quantized, one)
                    if name == "validation":
                        row["dice"] = ours.mean
                        row["dice_lost"] = float_dice - row["dice"]
                        lost = reference[name].dice - ours.dice
                        row["small_dice_lost"] = float(lost[small].mean())
                    row |= changed(ours, reference[name], name)
                row["distance_mean"], row["distance_largest"] = radius(pool.features, indices)
                rows.append(row)
                info(
                    f"{choice} {len(indices)} seed {seed}: {row['dice_lost']:+.4f} Dice lost, "
                    f"{row['small_dice_lost']:+.4f} of small polyps, "
                    f"{row['changed_validation']:.3%} and {row['changed_unlabelled']:.3%} changed, "
                    f"agreement {row['agreement_validation']:.4f} and "
                    f"{row['agreement_unlabelled']:.4f}, "
                    f"{time.monotonic() - started:.0f} s"
                )
                if args.json:
                    # hours may be lost by an interruption
                    settings = {k: str(v) for k, v in vars(args).items() if k != "json"}
                    settings |= {key: Path(settings[key]).name for key in ("student",)}
                    for key in ("data", "unlabelled"):
                        del settings[key]
                    write_json(
                        args.json,
                        {
                            "settings": settings,
                            "ptq": recipe.model_dump(mode="json"),
                            "environment": describe(),
                            "candidates": len(here.eligible),
                            "left_out": here.left_out,
                            "frames": {name: len(one) for name, one in sets.items()},
                            "float_dice": float_dice,
                            "summary": summary(rows),
                            "rows": rows,
                        },
                    )
    show(summary(rows), float_dice, sets)


def first(data: ResidentSet, count: int | None) -> ResidentSet:
    return ResidentSet(
        data.images[:count], data.masks[:count], data.labelled[:count], data.names[:count]
    )


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over the seeds of each choice and number of frames."""
    groups: dict[tuple[int, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["count"], row["choice"]].append(row)
    found = []
    for (count, choice), members in groups.items():
        one: dict[str, Any] = {"count": count, "choice": choice, "seeds": len(members)}
        for measure in (*MEASURES, "distance_mean", "distance_largest"):
            values = np.array([row[measure] for row in members])
            spread = float(values.std(ddof=1)) if len(values) > 1 else None
            one[measure] = {"mean": float(values.mean()), "sd": spread}
        found.append(one)
    return found


def show(found: list[dict[str, Any]], float_dice: float, sets: dict[str, ResidentSet]) -> None:
    cells = []
    for one in found:
        row = [one["count"], one["choice"], one["seeds"]]
        for measure in MEASURES:
            scale, digits = (100, 3) if measure.startswith("changed") else (1, 4)
            text = f"{scale * one[measure]['mean']:.{digits}f}"
            if one[measure]["sd"] is not None:
                text += f" ± {scale * one[measure]['sd']:.{digits}f}"
            row.append(text)
        row.append(number(one["distance_largest"]["mean"], 2))
        cells.append(row)
    numbers = ", ".join(f"{len(one)} {name}" for name, one in sets.items())
    table(
        f"int8 by frames of calibration (float Dice {float_dice:.4f}; {numbers} frames; mean ± "
        "standard deviation over seeds)",
        ["frames", "choice", "seeds", *MEASURES.values(), "farthest candidate"],
        cells,
    )


if __name__ == "__main__":
    with one_line_errors():
        main()
