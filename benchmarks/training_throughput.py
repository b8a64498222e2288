"""Images per second of a training step: our resident data path against a DataLoader over files.

Both train the same network with the same loss and batch; only where the images come from differs.
The two take turns, block by block, so that a noisy machine hurts both alike. The data paths are
also timed alone. With --memory, the peak memory of a 352×352 training at batch 16 is measured in a
process of its own.

    python benchmarks/training_throughput.py --data DATA --json benchmarks/results/throughput.json
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from file_loader import Files, forever
from torch.utils.data import DataLoader

from kdas_edge.data import augment
from kdas_edge.data.layout import training_set
from kdas_edge.data.resident import ResidentSet, load_pairs
from kdas_edge.distill.engine import peak_memory_mib
from kdas_edge.distill.trainer import Trainer, make_fabric, set_train_mode
from kdas_edge.environment import describe
from kdas_edge.files import read_json, write_json
from kdas_edge.models.inputs import network_input
from kdas_edge.models.zoo import build
from kdas_edge.process import one_line_errors
from kdas_edge.recipe import TrainRecipe, load_recipe


def make_trainer(args: argparse.Namespace) -> Trainer:
    recipe = load_recipe(
        TrainRecipe,
        {
            "data": {"root": str(args.data), "size": args.size},
            "model": {"backbone": args.backbone},
            "schedule": {"epochs": 1, "batch_size": args.batch},
            "engine": {"precision": args.precision},
        },
        [],
    )
    network = build(recipe.model, args.size)
    trainer = Trainer(recipe, network, None, make_fabric(args.precision))
    set_train_mode(network, frozen_batch_norm=False)
    return trainer


def file_step(trainer: Trainer, images: torch.Tensor, masks: torch.Tensor) -> None:
    """The same step on a batch that a DataLoader has already augmented."""
    device = trainer.fabric.device
    x, y = images.to(device).float() / 255, masks.to(device).float()
    x = network_input(x, trainer.size, trainer.network.architecture)
    outputs, _ = trainer.student(x)
    parts = trainer.loss(outputs, None, y, None)
    trainer.optimizer.zero_grad(set_to_none=True)
    trainer.fabric.backward(parts["loss"])
    torch.nn.utils.clip_grad_value_(trainer.network.parameters(), trainer.schedule.clip)
    trainer.optimizer.step()
    float(parts["loss"].detach())


def compare(args: argparse.Namespace) -> dict:
    pairs = list(training_set(args.data).pairs)[:: args.stride]
    started = time.perf_counter()
    resident = load_pairs(pairs, args.size)
    load_seconds = time.perf_counter() - started
    trainer = make_trainer(args)
    resident = resident.to(trainer.fabric.device)
    loader = DataLoader(
        Files(pairs, args.size),
        args.batch,
        shuffle=True,
        drop_last=True,
        num_workers=args.workers,
        persistent_workers=args.workers > 0,
    )
    batches = forever(loader)

    def ours(step: int) -> None:
        order = torch.randint(len(resident), (args.batch,))
        trainer.step(resident, order, step, 10**6)

    def theirs(step: int) -> None:
        file_step(trainer, *next(batches))

    def ours_data(step: int) -> None:
        fetch(resident, trainer, args.batch, step)

    def theirs_data(step: int) -> None:
        next(batches)

    rates: dict[str, list[float]] = {}
    jobs = {
        "resident: training step": ours,
        "DataLoader over files: training step": theirs,
        "resident: data alone": ours_data,
        "DataLoader over files: data alone": theirs_data,
    }
    for job in jobs.values():
        job(0)
    for block in range(args.blocks):
        for name, job in jobs.items():
            started = time.perf_counter()
            for step in range(args.steps):
                job(block * args.steps + step)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            rate = args.steps * args.batch / (time.perf_counter() - started)
            rates.setdefault(name, []).append(rate)
    names = list(jobs)
    ratios = [a / b for a, b in zip(rates[names[0]], rates[names[1]], strict=True)]
    return {
        "images": len(pairs),
        "seconds_to_make_resident": load_seconds,
        "images_per_second": {name: statistics.median(values) for name, values in rates.items()},
        "blocks": rates,
        "median_ratio_of_the_steps": statistics.median(ratios),
    }


def fetch(resident: ResidentSet, trainer: Trainer, batch: int, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    drawn = augment.draw(trainer.augment, batch, generator)
    index = torch.randint(len(resident), (batch,), generator=generator).to(resident.images.device)
    images, masks = augment.apply(drawn, resident.images[index], resident.masks[index])
    F.interpolate(masks, (trainer.size, trainer.size))
    network_input(images, trainer.size, trainer.network.architecture)


def memory(args: argparse.Namespace) -> dict:
    """Train three steps of random images; the data set is left out, its size is known."""
    args.size, args.batch = 352, 16
    trainer = make_trainer(args)
    resident = ResidentSet(
        torch.randint(256, (16, 3, 352, 352), dtype=torch.uint8),
        torch.randint(2, (16, 1, 352, 352), dtype=torch.uint8),
        torch.ones(16, dtype=torch.bool),
        tuple(map(str, range(16))),
    ).to(trainer.fabric.device)
    for step in range(3):
        trainer.step(resident, torch.arange(16), step, 10)
    return {
        "backbone": args.backbone,
        "size": 352,
        "batch": 16,
        "precision": args.precision,
        "peak_mib": peak_memory_mib(),
        "of": "GPU" if torch.cuda.is_available() else "process",
        "resident_set_of_1450_images_mib": 1450 * 4 * 352 * 352 / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=6, help="per block")
    parser.add_argument("--blocks", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--stride", type=int, default=4, help="use every Nth image")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory", action="store_true", help="only the peak memory")
    args = parser.parse_args()
    if args.memory:
        write_json(args.json, memory(args))
        return
    settings = {k: v for k, v in vars(args).items() if k not in ("json", "data", "memory")}
    result = {"settings": settings, "environment": describe(), **compare(args)}
    peaks = []
    for backbone in (args.backbone, "pvt_v2_b2"):
        path = Path(f"{args.json or 'throughput'}.{backbone}.memory")
        subprocess.run(
            [sys.executable, __file__, "--memory", "--data", str(args.data), "--json", str(path),
             "--backbone", backbone, "--precision", args.precision],
            check=True,
        )  # fmt: skip
        peaks.append(read_json(path))
        path.unlink()
    result["peak_memory"] = peaks
    for name, value in result["images_per_second"].items():
        print(f"{name:42s} {value:8.1f} images/s")
    print(
        f"ratio of the training steps, median of blocks: {result['median_ratio_of_the_steps']:.2f}"
    )
    for peak in peaks:
        print(f"peak memory, {peak['backbone']}, 352, batch 16: {peak['peak_mib']:.0f} MiB")
    if args.json:
        write_json(args.json, result)


if __name__ == "__main__":
    with one_line_errors():
        main()
