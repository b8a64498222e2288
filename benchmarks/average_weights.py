"""The mean of the weights of networks that were trained from the same start.

Averaging the ends of several cycles of training finds flatter minima (Izmailov et al., Averaging
Weights Leads to Wider Optima and Better Generalization, 2018). Whether it helps is for the
validation split to say: `kdas-edge quantize` prints the float network's Dice on it first.

    python benchmarks/average_weights.py runs/student_a runs/student_b --out student.safetensors
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

from kdas_edge.console import info
from kdas_edge.errors import UserError
from kdas_edge.files import check_output_file
from kdas_edge.models.checkpoints import RECIPE, known_recipe, load_network, save_network
from kdas_edge.process import one_line_errors


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("networks", nargs="+", type=Path, help="runs or checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write")
    args = parser.parse_args()
    check_output_file(args.out)
    loaded = [load_network(path) for path in args.networks]
    architecture = loaded[0].architecture
    for path, network in zip(args.networks, loaded, strict=True):
        other = network.architecture
        # a coarser one is of the same kind: its refinement would add nothing
        kind = replace(other, stride=architecture.stride)
        if kind != architecture or other.stride < architecture.stride:
            raise UserError(
                f"{path} is {other}, the first {architecture}; average networks of one kind"
            )
    states = [network.state_dict() for network in loaded]
    nothing = {
        key: torch.zeros_like(value) if key == "refine.extend.weight" else value
        for key, value in states[0].items()
        if key.startswith("refine.")
    }
    states = [{**nothing, **state} for state in states]
    mean = states[0].copy()
    for key, first in mean.items():
        # counters of batches are whole numbers and mean nothing afterwards
        if first.is_floating_point():
            values = torch.stack([state[key].double() for state in states])
            mean[key] = values.mean(0).to(first.dtype)
    # a bundle of the mean should still say what it was trained on
    recipe = {
        **known_recipe(args.networks[0]),
        "name": args.out.stem,
        "averaged": [path.name for path in args.networks],
    }
    save_network(args.out, mean, architecture, {RECIPE: json.dumps(recipe)})
    info(f"the mean of {len(states)} networks is in {args.out}")


if __name__ == "__main__":
    with one_line_errors():
        main()
