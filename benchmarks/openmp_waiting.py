"""How OpenMP's threads wait: training steps a second, spinning and asleep, idle and busy.

Two threads that wait by spinning keep the processor from the thread that they wait for as soon as
another process runs beside them. Training verbs let them sleep (`environment.PASSIVE_WAITING`),
which on an idle machine may cost a little. Here a process of each kind trains the same network on
random images; the two take turns, block by block, first on the machine as it is, then beside busy
processes of this script. Run it on a quiet machine.

    python benchmarks/openmp_waiting.py --json FILE
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from kdas_edge.console import info, table
from kdas_edge.environment import PASSIVE_WAITING, describe
from kdas_edge.files import write_json
from kdas_edge.process import one_line_errors

KINDS: dict[str, dict[str, str]] = {"spinning": {}, "asleep": PASSIVE_WAITING}


class Worker:
    """A process that trains a block of steps whenever it is told to."""

    def __init__(self, kind: str, args: argparse.Namespace) -> None:
        inherited = {k: v for k, v in os.environ.items() if k not in PASSIVE_WAITING}
        self.process = subprocess.Popen(
            [
                *(sys.executable, __file__, "--worker", "--backbone", args.backbone),
                *("--size", str(args.size), "--batch", str(args.batch)),
                *("--steps", str(args.steps), "--threads", str(args.threads)),
            ],
            env={**inherited, **KINDS[kind]},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.answer()  # warm

    def answer(self) -> float:
        assert self.process.stdout is not None
        return float(json.loads(self.process.stdout.readline()))

    def block(self) -> float:
        """Steps a second of one block."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def work(args: argparse.Namespace) -> None:
    """Train a block for each line of the standard input."""
    import torch

    from kdas_edge.data.resident import ResidentSet
    from kdas_edge.distill.trainer import Trainer, make_fabric, set_train_mode
    from kdas_edge.models.zoo import build
    from kdas_edge.recipe import TrainRecipe, load_recipe

    torch.set_num_threads(args.threads)
    values: dict[str, Any] = {
        "data": {"root": "none", "size": args.size},
        "model": {"backbone": args.backbone},
        "schedule": {"epochs": 1, "batch_size": args.batch},
    }
    recipe = load_recipe(TrainRecipe, values, [])
    network = build(recipe.model, args.size)
    trainer = Trainer(recipe, network, None, make_fabric("fp32"))
    set_train_mode(network, frozen_batch_norm=False)
    shape = (args.batch, 1, args.size, args.size)
    data = ResidentSet(
        torch.randint(256, (args.batch, 3, args.size, args.size), dtype=torch.uint8),
        torch.randint(2, shape, dtype=torch.uint8),
        torch.ones(args.batch, dtype=torch.bool),
        tuple(map(str, range(args.batch))),
    )
    step = 0

    def block() -> None:
        nonlocal step
        started = time.perf_counter()
        for _ in range(args.steps):
            result = trainer.step(data, torch.arange(args.batch), step, 10**6)
            step += 1
        float(result.losses["loss"])
        print(json.dumps(args.steps / (time.perf_counter() - started)), flush=True)

    block()
    for _ in sys.stdin:
        block()


def measure(args: argparse.Namespace, busy: int) -> dict[str, list[float]]:
    """Steps a second of each block, beside `busy` other processes."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    workers = {kind: Worker(kind, args) for kind in KINDS}
    try:
        rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for number in range(args.blocks):
            info(f"beside {busy} busy processes: block {number + 1} of {args.blocks}")
            for kind, worker in workers.items():
                rates[kind].append(worker.block())
        return rates
    finally:
        for worker in workers.values():
            worker.close()
        for other in others:
            other.kill()
            other.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--backbone", default="mobilenetv2_050", help="as in kdas-edge demo")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--steps", type=int, default=20, help="per block")
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--busy", type=int, default=1, help="busy processes beside the training")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args)
        return
    results = {}
    for name, busy in (("idle", 0), ("busy", args.busy)):
        rates = measure(args, busy)
        pairs = zip(rates["asleep"], rates["spinning"], strict=True)
        results[name] = {
            "busy_processes": busy,
            "blocks": rates,
            "steps_per_second": {kind: statistics.median(found) for kind, found in rates.items()},
            "asleep_to_spinning": statistics.median(one / other for one, other in pairs),
        }
    table(
        f"Training steps a second, {args.threads} threads, median of {args.blocks} blocks",
        ["machine", "spinning", "asleep", "ratio"],
        [
            [
                name,
                *(f"{found['steps_per_second'][kind]:.2f}" for kind in KINDS),
                f"{found['asleep_to_spinning']:.2f}",
            ]
            for name, found in results.items()
        ],
    )
    if args.json:
        settings = {k: v for k, v in vars(args).items() if k not in ("json", "worker")}
        write_json(args.json, {"settings": settings, **results, "environment": describe()})


if __name__ == "__main__":
    with one_line_errors():
        main()
