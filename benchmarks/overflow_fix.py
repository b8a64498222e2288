"""Which overflow handling should int8 weights have? Measured with VNNI and without.

`disable` uses all 8 bits of a weight, `enable` 7 (so that two products fit into 16 bits),
`first_layer` 7 in the first layer only. A float student is quantised after training with each, on
frames of its training side, and every path is compared with the fake-quantised torch network and
with the ground truth: what one bit costs where VNNI makes it needless, and what saturation costs
where it does not.

    python benchmarks/overflow_fix.py --student runs/student --data DATA \\
        --json benchmarks/results/overflow_fix.json
"""

import argparse
import tempfile
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from agreement_common import (
    HEADINGS,
    cells,
    dice_of,
    measure,
    read_frames,
    run_torch,
)
from torch import Tensor

from kdas_edge.console import info, table
from kdas_edge.data.layout import training_set
from kdas_edge.data.splits import read_split
from kdas_edge.environment import describe
from kdas_edge.errors import UserError
from kdas_edge.export.agreement import input_spec
from kdas_edge.files import write_json
from kdas_edge.image_files import read_image
from kdas_edge.models.architecture import Architecture
from kdas_edge.models.checkpoints import load_network
from kdas_edge.process import one_line_errors
from kdas_edge.quantize.ptq import post_training_quantize
from kdas_edge.recipe import PtqRecipe
from kdas_edge.runtime.inputs import preprocess

ESTIMATORS = get_args(PtqRecipe.model_fields["range_estimator"].annotation)
SETTINGS = ("enable", "first_layer", "disable")


def calibration_frames(
    data: Path, run: Path, count: int, architecture: Architecture
) -> list[Tensor]:
    """Training images, evenly along the list; none of the validation split."""
    names = set(read_split(run / "split.json").train)
    pairs = [pair for pair in training_set(data).pairs if pair.name in names]
    positions = np.unique(np.linspace(0, len(pairs) - 1, count).round().astype(int))
    chosen = [pairs[position] for position in positions]
    spec = input_spec(architecture)
    return [torch.from_numpy(preprocess(read_image(pair.image), spec)) for pair in chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--student", type=Path, required=True, help="float run")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--settings", default=",".join(SETTINGS))
    parser.add_argument("--model-type", choices=("transformer", "none"), default="transformer")
    parser.add_argument("--ranges", choices=("tensor", "channel"), default="tensor")
    parser.add_argument("--range-estimator", choices=ESTIMATORS, default="default")
    parser.add_argument("--samples", type=int, default=100, help="calibration frames")
    parser.add_argument("--frames", type=int, default=200, help="frames to compare on")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    settings = args.settings.split(",")
    for setting in settings:
        if setting not in SETTINGS:
            raise UserError(f"--settings {setting!r}: choose among {', '.join(SETTINGS)}")

    quantisation = {
        "model_type": args.model_type,
        "activation_ranges": args.ranges,
        "range_estimator": args.range_estimator,
    }
    results = {}
    with tempfile.TemporaryDirectory(prefix="kdas-edge-overflow-") as scratch:
        folder = Path(scratch)
        student = load_network(args.student)
        architecture = student.architecture
        samples = calibration_frames(args.data, args.student, args.samples, architecture)
        frames = read_frames(args.data, args.student, args.frames, architecture, folder)
        float_dice = float(dice_of(run_torch(student, frames), frames).mean())
        for setting in settings:
            info(f"quantising with overflow_fix={setting}")
            recipe = PtqRecipe.model_validate({**quantisation, "overflow_fix": setting})
            quantized = post_training_quantize(student, samples, recipe)
            results[setting] = measure(quantized, architecture, frames, args.threads, folder)

    title = (
        f"{args.student.name}, {architecture.backbone}, {architecture.size} px, "
        f"{len(frames.names)} frames, float Dice {float_dice:.4f}; "
        "differences are to the fake-quantised torch network of the same setting"
    )
    rows = []
    for setting, found in results.items():
        dice = found["torch"]["dice"]
        rows.append([setting, "torch, fake-quantised", "0", "0", "0", f"{dice:.4f}", "", "", ""])
        rows += [[setting, *cells(name, path)] for name, path in found["paths"].items()]
    table(title, ["overflow_fix", *HEADINGS], rows)
    print(f"not switchable: {next(iter(results.values()))['not_switchable']}")
    if args.json:
        result = {
            "run": args.student.name,
            "backbone": architecture.backbone,
            "size": architecture.size,
            "calibration_frames": len(samples),
            **quantisation,
            "frames": frames.names,
            "float_dice": float_dice,
            "environment": describe(),
            "settings": results,
        }
        write_json(args.json, result)


if __name__ == "__main__":
    with one_line_errors():
        main()
