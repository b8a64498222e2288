"""Are networks better than a first one, image by image?

Takes what `kdas-edge eval … --json` wrote of the same data, and prints for every data set the mean
Dice of each network and the paired difference to the first, with 95 % bootstrap intervals over the
images.

    python benchmarks/compare_evals.py supervised=eval_a.json KDAS=eval_b.json --json long.json
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from readme_table import comparison_table

from kdas_edge.bench.results import read_evaluation
from kdas_edge.errors import UserError
from kdas_edge.files import write_json
from kdas_edge.metrics.bootstrap import bootstrap_mean
from kdas_edge.process import one_line_errors


def dice_by_image(path: Path, protocol: str) -> dict[str, dict[str, float]]:
    """Dice of every image, by data set and name."""
    found = {
        entry.dataset: entry.per_image.defined("Dice")
        for entry in read_evaluation(path).accuracy
        if entry.protocol == protocol
    }
    if not found:
        raise UserError(f"{path}: no result of protocol {protocol}; run kdas-edge eval with it")
    return found


def named(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r}: say NAME=FILE")
    return name, Path(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("evals", nargs="+", type=named, metavar="NAME=FILE")
    parser.add_argument("--protocol", default="deploy")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    scores = {name: dice_by_image(path, arguments.protocol) for name, path in arguments.evals}
    first = next(iter(scores))
    rows: dict[str, Any] = {name: {} for name in scores}
    for image_set, images in scores[first].items():
        baseline = np.array(list(images.values()))
        for name, found in scores.items():
            if found.get(image_set, {}).keys() != images.keys():
                raise UserError(f"{name} has other images of {image_set} than {first}")
            dice = np.array([found[image_set][image] for image in images])
            rows[name][image_set] = {"dice": asdict(bootstrap_mean(dice))}
            if name != first:
                rows[name][image_set]["difference"] = asdict(bootstrap_mean(dice - baseline))
    result = {"baseline": first, "protocol": arguments.protocol, "rows": rows}
    print(comparison_table(result))
    if arguments.json:
        write_json(arguments.json, result)


if __name__ == "__main__":
    with one_line_errors():
        main()
