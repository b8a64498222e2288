"""Is a training slower than in another checkout? Images a second, in turns.

Each round trains the same recipe on the same drawn scenes once with each checkout, in a process of
its own; what counts is the rate that a run records per epoch, the first epoch left out. Run it on a
quiet machine.

    git worktree add ../before COMMIT
    python benchmarks/paired_training.py --other ../before -- model.backbone=mobilenetv2_100
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from kdas_edge.console import info, table
from kdas_edge.data.synthetic import write_dataset
from kdas_edge.environment import describe
from kdas_edge.errors import UserError
from kdas_edge.files import read_json_lines, write_json
from kdas_edge.process import one_line_errors

HERE = Path(__file__).resolve().parents[1]


def rate(checkout: Path, folder: Path, args: argparse.Namespace) -> float:
    """Images a second of one training with the code of a checkout."""
    values = {
        "name": "run",
        "data.root": folder / "data",
        "data.size": args.size,
        "data.validation": 0,
        "model.backbone": "mobilenetv2_100",
        "schedule.epochs": args.epochs,
        "schedule.batch_size": args.batch,
    }
    given = [f"{key}={value}" for key, value in values.items()]
    command = [sys.executable, "-m", "kdas_edge", "train", "--out", "runs", "--overwrite"]
    done = subprocess.run(
        [*command, *given, *args.overrides],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(checkout.resolve())},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UserError(f"{checkout}: {done.stderr.strip().splitlines()[-1]}; mend it first")
    rows = read_json_lines(folder / "runs" / "run" / "metrics.jsonl")
    return statistics.median(row["images_per_second"] for row in rows[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--other", type=Path, required=True, help="a checkout to compare with")
    parser.add_argument("--size", type=int, default=352)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--scenes", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=4, help="of each training, at least 2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the recipe")
    args = parser.parse_args()
    rates: dict[str, list[float]] = {"other": [], "this": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dataset(folder / "data", args.scenes, 4, args.size)
        for number in range(args.rounds):
            info(f"round {number + 1} of {args.rounds}")
            for label, checkout in (("other", args.other), ("this", HERE)):
                rates[label].append(rate(checkout, folder, args))
    pairs = zip(rates["this"], rates["other"], strict=True)
    ratio = statistics.median(this / other for this, other in pairs)
    table(
        f"Training, {args.size} pixels, batch {args.batch}, median of {args.rounds} rounds",
        ["checkout", "images/s"],
        [[label, f"{statistics.median(found):.2f}"] for label, found in rates.items()],
    )
    print(f"this / other, median of the rounds: {ratio:.3f}")
    if args.json:
        settings = {k: v for k, v in vars(args).items() if k not in ("json", "other")}
        result = {"settings": settings, "rates": rates, "this_to_other": ratio}
        write_json(args.json, {**result, "environment": describe()})


if __name__ == "__main__":
    with one_line_errors():
        main()
