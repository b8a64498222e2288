"""The one training loop: supervised training, KDAS distillation and quantisation-aware fine-tuning.

Everything random in step n is a function of (seed, n): the order of the images, the augmentation,
drop-path. So a run that was killed resumes from its last checkpoint and ends with the very weights
of the run that was not, and no generator state has to be saved.
"""

import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from kdas_edge.console import progress
from kdas_edge.data.dataset import TrainingData
from kdas_edge.data.resident import ResidentSet
from kdas_edge.distill.schedule import derive_seed, learning_rate
from kdas_edge.distill.teacher import CACHE_FOLDER, Teacher
from kdas_edge.distill.trainer import Progress, Trainer, make_fabric, set_train_mode
from kdas_edge.distill.validation import write_overlays
from kdas_edge.environment import thread_limit
from kdas_edge.errors import UserError
from kdas_edge.models.architecture import SegmentationNetwork
from kdas_edge.models.checkpoints import save_network
from kdas_edge.process import handle_signals
from kdas_edge.recipe import QuantizeRecipe, TrainRecipe
from kdas_edge.run import Run


@dataclass
class FitResult:
    """What a training came to; `best_dice` is on the validation split (deploy protocol)."""

    best_epoch: int
    best_dice: float
    history: list[dict[str, Any]]
    seconds: float


class Interrupted(KeyboardInterrupt):
    """The run was stopped by a signal after its state was saved."""


def fit(
    recipe: TrainRecipe | QuantizeRecipe,
    student: SegmentationNetwork,
    data: TrainingData,
    run: Run,
    teacher: Teacher | None = None,
) -> FitResult:
    """Train until the schedule is done, resuming if the run has a checkpoint.

    The best epoch on the validation split is kept as `checkpoints/best.safetensors` (the last
    epoch, if there is no validation split).

    Args:
        recipe: the resolved recipe; `schedule` is set.
        student: the network to train, float or fake-quantised; see `Trainer`.
        data: resident at the larger of the student's and the teacher's size.
        run: where everything is written.
        teacher: for distillation.

    Raises:
        UserError: the batch does not divide over the processes, or a bad checkpoint.
        Interrupted: stopped by Ctrl-C or SIGTERM after saving; `resume` goes on.
    """
    schedule = recipe.schedule
    assert schedule is not None
    threads = recipe.engine.threads or thread_limit()
    if threads is not None:
        torch.set_num_threads(threads)
    fabric = make_fabric(recipe.engine.precision)
    if schedule.batch_size % fabric.world_size:
        raise UserError(
            f"schedule.batch_size {schedule.batch_size} does not divide over "
            f"{fabric.world_size} processes; choose a multiple"
        )
    trainer = Trainer(recipe, student, teacher, fabric)
    sampler = data.sampler()
    train, validation = data.train.to(fabric.device), data.validation.to(fabric.device)
    if recipe.cache_teacher and teacher is not None:
        train = teacher.cache(train, run.path.parent / CACHE_FOLDER, run.writes)
    batch = min(schedule.batch_size, len(train))
    per_epoch = max(1, (recipe.data.epoch_images or len(train)) // batch)
    total = schedule.epochs * per_epoch
    now = trainer.load(run.last_checkpoint) if run.last_checkpoint.exists() else Progress()
    run.rewind(now.step)
    fabric.barrier()

    saved = since = time.monotonic()
    sums, read = RunningSums(now.sums), now.step
    order = torch.empty(0, dtype=torch.int64)
    with (
        _stop_after_step() as stop,
        progress(total, f"{run.path.name}: steps of {batch} images", now.step) as advance,
    ):
        while now.step < total:
            epoch, within = divmod(now.step, per_epoch)
            if within == 0:
                sums = RunningSums()
            if within == 0 or not len(order):
                order = sampler.order(per_epoch * batch, derive_seed(recipe.seed, epoch))
                frozen = epoch >= schedule.freeze_batch_norm_from * schedule.epochs
                set_train_mode(trainer.network, frozen)
            result = trainer.step(
                train,
                order[within * batch :][:batch],
                now.step,
                total,
                with_shares=within == 0 and trainer.loss.variant.needs_teacher,
            )
            sums.add(result.losses)
            sums.add({f"share_{key}": per_epoch * share for key, share in result.shares.items()})
            now.step += 1
            ended = now.step % per_epoch == 0
            # the processes of a job leave together, at the next log
            at_once = bool(stop) and fabric.world_size == 1
            if not (ended or at_once or now.step % recipe.engine.log_interval == 0):
                continue

            # the log: here alone the host waits for the device and for the other processes
            now.sums = sums.read()
            sound = math.isfinite(now.sums["loss"]) and trainer.weights_are_finite()
            broken, signals = trainer.sums([float(not sound), float(len(stop))])
            if broken:
                raise UserError(
                    f"{run.path}: the loss or a weight became NaN or infinite between steps {read} "
                    f"and {now.step}; lower schedule.learning_rate or loss.teacher_scale, or set "
                    "engine.precision=fp32"
                )
            seconds, since = time.monotonic() - since, time.monotonic()
            now.seconds += seconds
            now.sums["seconds"] = sums.seconds = sums.seconds + seconds
            mean = now.sums["loss"] / (within + 1)
            advance(now.step - read, note=f"epoch {epoch + 1}/{schedule.epochs} loss {mean:.3f}")
            read = now.step
            if ended:
                _end_epoch(recipe, trainer, validation, run, now, per_epoch, batch)
                saved = -math.inf  # an epoch's end is always worth a checkpoint
            if signals or time.monotonic() - saved > 60 * recipe.engine.checkpoint_minutes:
                trainer.save(run, now)
                saved = time.monotonic()
            if signals:
                run.update(status="interrupted", step=now.step)
                run.log(f"stopped at step {now.step} of {total}; go on with --resume")
                raise Interrupted
            since = time.monotonic()
    run.update(
        status="finished", best_epoch=now.best_epoch, best_dice=now.best_dice, seconds=now.seconds
    )
    return FitResult(now.best_epoch, now.best_dice, run.history(), now.seconds)


class RunningSums:
    """Sums of an epoch, kept on the device until they are read.

    Args:
        known: sums of an unfinished epoch, of a resumed run.
    """

    def __init__(self, known: Mapping[str, float] = MappingProxyType({})) -> None:
        self.seconds = known.get("seconds", 0.0)
        self._known = {key: value for key, value in known.items() if key != "seconds"}
        self._sums: dict[str, Tensor] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add float64 scalars; nothing waits for the device."""
        for key, value in values.items():
            # in the order of the steps, so that a resumed epoch has the sum of an unbroken one
            before = self._sums.get(key, self._known.get(key, 0.0))
            self._sums[key] = before + value

    def read(self) -> dict[str, float]:
        """Return the sums, and wait for the device."""
        if not self._sums:
            return dict(self._known)
        values = torch.stack(list(self._sums.values())).tolist()
        return {**self._known, **dict(zip(self._sums, values, strict=True))}


def _end_epoch(
    recipe: TrainRecipe | QuantizeRecipe,
    trainer: Trainer,
    validation: ResidentSet,
    run: Run,
    now: Progress,
    per_epoch: int,
    batch: int,
) -> None:
    """Validate, keep the best network, record the curves, draw the overlays."""
    epoch = now.step // per_epoch
    means = {key: value / per_epoch for key, value in now.sums.items() if key != "seconds"}
    row: dict[str, Any] = {"epoch": epoch, "step": now.step, **means}
    schedule = trainer.schedule
    row["learning_rate"] = learning_rate(schedule, now.step - 1, schedule.epochs * per_epoch)
    row["images_per_second"] = per_epoch * batch / now.sums["seconds"]
    row["peak_memory_mib"] = peak_memory_mib()
    dice = math.nan
    if len(validation):
        dice, masks = trainer.validate(validation)
        row["validation_dice"] = dice
        every = recipe.engine.overlay_every
        if every and (epoch % every == 0 or epoch == schedule.epochs) and run.writes:
            write_overlays(run.path / "overlays" / f"epoch_{epoch:03d}.png", validation, masks)
    if math.isnan(dice) or dice > now.best_dice:
        now.best_dice, now.best_epoch = (-1.0 if math.isnan(dice) else dice), epoch
        if run.writes:
            save_network(run.best_checkpoint, trainer.best_state(), trainer.network.architecture)
    run.record(row)
    run.log(
        f"epoch {epoch}/{schedule.epochs}: loss {means['loss']:.4f}, validation Dice {dice:.4f}"
        f" (best {now.best_dice:.4f}), {row['images_per_second']:.1f} images/s"
    )


def peak_memory_mib() -> float:
    """Peak memory of this process: of the GPU if one is used, else resident; NaN on Windows."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


@contextmanager
def _stop_after_step() -> Iterator[list[int]]:
    """Collect signals instead of dying, so that the step ends and is saved.

    A second signal is obeyed at once.
    """
    caught: list[int] = []

    def handler(number: int) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    with handle_signals(handler):
        yield caught
