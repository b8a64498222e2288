"""How often `kdas-edge quantize`'s gate is undecided on a validation split of some 145 images.

    python benchmarks/gate_undecided.py --json benchmarks/results/gate_undecided.json

Splits are drawn from the committed Dice of each test image, fp32 against int8 of the same student
(benchmarks/results/bench.json); the true loss of such a draw is the mean over all its images.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdas_edge.bench.results import BenchResult, read_bench
from kdas_edge.files import write_json
from kdas_edge.quantize.gate import decide, paired_interval

RESULTS = Path(__file__).parent / "results" / "bench.json"
ALLOWANCES = (0.003, 0.005, 0.01)


def dice(result: BenchResult, model: str, precision: str) -> NDArray[np.float64]:
    """Dice of every image of all sets, OpenVINO, deploy protocol."""
    return np.concatenate(
        [
            np.array(entry.per_image.metrics["Dice"], dtype=np.float64)
            for entry in result.accuracy
            if (entry.model, entry.precision) == (model, precision)
            and entry.target.startswith("openvino")
            and entry.protocol == "deploy"
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--images", type=int, default=145)
    parser.add_argument("--splits", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = read_bench(arguments.results)
    rng = np.random.default_rng(arguments.seed)
    rows = []
    for model in ("student", "student-effb0"):
        lost = dice(result, model, "fp32") - dice(result, model, "int8")
        draws = rng.integers(0, len(lost), (arguments.splits, arguments.images))
        intervals = [paired_interval(lost[draw], seed) for seed, draw in enumerate(draws)]
        for allowance in ALLOWANCES:
            found = Counter(decide(interval, allowance) for interval in intervals)
            shares = {verdict: count / len(draws) for verdict, count in sorted(found.items())}
            row = {"model": model, "lost": float(lost.mean()), "allowance": allowance, **shares}
            rows.append(row)
            print(row)
    if arguments.json:
        settings = {"images": arguments.images, "splits": arguments.splits, "seed": arguments.seed}
        write_json(arguments.json, {"settings": settings, "rows": rows})


if __name__ == "__main__":
    main()
