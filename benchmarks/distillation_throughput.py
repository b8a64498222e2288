"""Images per second of a KDAS step: our engine against a plain loop in the style of the release.

The plain loop is what this field's training scripts do: a `DataLoader` over image files, float32,
NCHW, and per batch one forward and backward of the student at each of three scales, the teacher
before it. Ours trains the same networks with the same loss and optimiser steps. The two take turns,
block by block. The networks have random weights: they cost the same as trained ones.

    python benchmarks/distillation_throughput.py --data DATA --json FILE

On a CPU it runs, too, with other numbers; `--compile` adds a third candidate on a GPU.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from file_loader import Files, forever
from torch import Tensor
from torch.utils.data import DataLoader

from kdas_edge.console import info, table
from kdas_edge.data.layout import training_set
from kdas_edge.data.resident import load_pairs
from kdas_edge.distill.engine import peak_memory_mib
from kdas_edge.distill.teacher import Teacher
from kdas_edge.distill.trainer import Trainer, make_fabric, set_train_mode
from kdas_edge.distill.variants import DistillationLoss
from kdas_edge.environment import describe
from kdas_edge.files import write_json
from kdas_edge.models.architecture import FullSize
from kdas_edge.models.inputs import normalise
from kdas_edge.models.zoo import build
from kdas_edge.process import one_line_errors
from kdas_edge.recipe import ModelRecipe, TrainRecipe, load_recipe
from kdas_edge.table import number

SCALES = (0.75, 1.0, 1.25)
EPOCHS = 120  # the published schedule
IMAGES = 1450  # of the PraNet split
LOSS = {"variant": "kdas", "segmentation": "bce_dice"}


def plain_loop(args: argparse.Namespace, device: torch.device) -> Callable[[], None]:
    """One batch of the plain loop, as a function."""
    teacher = FullSize(build(ModelRecipe(backbone=args.teacher), args.size))
    student = FullSize(build(ModelRecipe(backbone=args.student), args.size))
    teacher.to(device).eval()
    student.to(device).train()
    optimizer = torch.optim.AdamW(student.parameters(), 1e-4, weight_decay=1e-4)
    loss = DistillationLoss(recipe(args, False).loss)
    loader = DataLoader(
        Files(training_set(args.data).pairs, args.size),
        args.batch,
        shuffle=True,
        drop_last=True,
        num_workers=args.workers,
        pin_memory=device.type == "cuda",
        persistent_workers=args.workers > 0,
    )
    batches = forever(loader)

    def batch() -> None:
        images, masks = next(batches)
        images = images.to(device).float() / 255
        masks = masks.to(device).float()
        for scale in SCALES:
            optimizer.zero_grad()
            side = round(args.size * scale / 32) * 32
            x = at_size(images, side)
            with torch.no_grad():
                truths = teacher(normalise(x, teacher.architecture))
            outputs = student(normalise(x, student.architecture))
            parts = loss(outputs, truths, at_size(masks, side))
            parts["loss"].backward()
            torch.nn.utils.clip_grad_value_(student.parameters(), 0.5)
            optimizer.step()

    return batch


def at_size(images: Tensor, side: int) -> Tensor:
    return F.interpolate(images, (side, side), mode="bilinear", align_corners=True)


def our_engine(args: argparse.Namespace, compiled: bool) -> tuple[Callable[[], None], Trainer]:
    """One batch of ours, as a function, and its trainer."""
    teacher = Teacher(build(ModelRecipe(backbone=args.teacher), args.size), args.size)
    student = build(ModelRecipe(backbone=args.student), args.size)
    settings = recipe(args, compiled)
    trainer = Trainer(
        settings,
        student,
        teacher,
        make_fabric(settings.engine.precision),
    )
    set_train_mode(student, frozen_batch_norm=False)
    data = load_pairs(training_set(args.data).pairs, args.size).to(trainer.fabric.device)
    step = 0

    def batch() -> None:
        nonlocal step
        order = torch.randint(len(data), (args.batch,))
        trainer.step(data, order, step, 10**6)
        step += 1

    return batch, trainer


def recipe(args: argparse.Namespace, compiled: bool) -> TrainRecipe:
    values: dict[str, Any] = {
        "data": {"root": str(args.data), "size": args.size},
        "model": {"backbone": args.student},
        "teacher": args.teacher,
        "loss": LOSS,
        "schedule": {"epochs": 1, "batch_size": args.batch, "scales": list(SCALES)},
        "engine": {"precision": args.precision, "compile": compiled},
    }
    return load_recipe(TrainRecipe, values, [])


def measure(jobs: dict[str, Callable[[], None]], args: argparse.Namespace) -> dict[str, list]:
    """Images per second of each block of each candidate; the candidates take turns."""
    rates: dict[str, list[float]] = {name: [] for name in jobs}
    for name, job in jobs.items():
        info(f"warming up {name}")
        for _ in range(args.warmup):
            job()
    for block in range(args.blocks):
        info(f"block {block + 1} of {args.blocks}")
        for name, job in jobs.items():
            synchronise()
            started = time.perf_counter()
            for _ in range(args.steps):
                job()
            synchronise()
            rates[name].append(args.steps * args.batch / (time.perf_counter() - started))
    return rates


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teacher", default="pvt_v2_b2")
    parser.add_argument("--student", default="pvt_v2_b0")
    parser.add_argument("--size", type=int, default=352)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    parser.add_argument("--compile", action="store_true", help="one more candidate: compiled")
    parser.add_argument("--workers", type=int, default=4, help="of the plain loop's DataLoader")
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10, help="batches per block")
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    ours, trainer = our_engine(args, compiled=False)
    jobs = {"plain loop": plain_loop(args, trainer.fabric.device), "kdas-edge": ours}
    if args.compile:
        jobs["kdas-edge, compiled"] = our_engine(args, compiled=True)[0]
    rates = measure(jobs, args)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratios = {
        name: statistics.median(a / b for a, b in zip(values, rates["plain loop"], strict=True))
        for name, values in rates.items()
    }
    minutes = {name: EPOCHS * IMAGES / rate / 60 for name, rate in medians.items()}
    table(
        f"KDAS step, {args.teacher} to {args.student}, {args.size} pixels × {SCALES}, "
        f"batch {args.batch}, on {trainer.fabric.device}",
        [
            "candidate",
            "images/s",
            "× plain loop",
            f"minutes for {EPOCHS} epochs of {IMAGES} images",
        ],
        [[n, number(medians[n], 1), number(ratios[n], 2), number(minutes[n], 1)] for n in jobs],
    )
    if args.json:
        settings = {k: v for k, v in vars(args).items() if k not in ("json", "data")}
        write_json(
            args.json,
            {
                "settings": settings,
                "device": str(trainer.fabric.device),
                "precision": str(trainer.fabric._precision.precision),
                "blocks": rates,
                "images_per_second": medians,
                "ratio_to_plain_loop": ratios,
                "minutes_of_the_schedule": minutes,
                "peak_memory_mib": peak_memory_mib(),
                "environment": describe(),
            },
        )


if __name__ == "__main__":
    with one_line_errors():
        main()
