"""The one training loop: supervised training, KDAS distillation and quantisation-aware fine-tuning.

Everything random in step n is a function of (seed, n): the order of the images, the augmentation,
drop-path. So a run that was killed resumes from its last checkpoint and ends with the very weights
of the run that was not, and no generator state has to be saved.

Runs on a CPU, a GPU, or several under `torchrun`; Lightning Fabric does the moving and averaging.
"""

import json
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from kdas_edge.console import progress
from kdas_edge.data import augment
from kdas_edge.data.dataset import ResidentSet, TrainingData
from kdas_edge.distill.kdas import DistillationLoss, gradient_shares
from kdas_edge.errors import UserError
from kdas_edge.files import write_bytes_atomic
from kdas_edge.models.checkpoints import save_network
from kdas_edge.models.zoo import Architecture
from kdas_edge.recipe import AugmentRecipe, QuantizeRecipe, ScheduleRecipe, TrainRecipe
from kdas_edge.run import Run

try:
    from lightning_fabric import Fabric
except ImportError:  # the umbrella package `lightning` carries the same Fabric
    from lightning.fabric import Fabric  # type: ignore[no-redef]


@dataclass
class FitResult:
    """What a training came to; `best_dice` is on the validation split (deploy protocol)."""

    best_epoch: int
    best_dice: float
    history: list[dict[str, Any]]
    seconds: float


@dataclass
class Progress:
    """Where a training stands; saved with every checkpoint."""

    step: int = 0  # optimiser-step groups done; one per batch
    best_dice: float = -1.0
    best_epoch: int = -1
    seconds: float = 0.0
    # running sums of the unfinished epoch, so that a resumed epoch reports all of its steps
    sums: dict[str, float] = field(default_factory=dict)


class Interrupted(KeyboardInterrupt):
    """The run was stopped by a signal after its state was saved."""


def make_fabric(precision: str) -> Fabric:
    """Return Fabric for this machine, or for this process of a `torchrun` job.

    Args:
        precision: `fp32`, `bf16`, or `auto`: bf16 where the hardware is faster with it.
    """
    cuda = torch.cuda.is_available()
    if precision == "auto":
        fast = torch.cuda.is_bf16_supported() if cuda else _cpu_is_faster_in_bf16()
        precision = "bf16" if fast else "fp32"
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    nodes = int(os.environ.get("WORLD_SIZE", "1")) // processes
    fabric = Fabric(
        accelerator="cuda" if cuda else "cpu",
        devices=processes,
        num_nodes=nodes,
        strategy="ddp" if processes * nodes > 1 else "auto",
        precision="bf16-mixed" if precision == "bf16" else "32-true",
    )
    fabric.launch()
    return fabric


def _cpu_is_faster_in_bf16() -> bool:
    """Time one convolution in both: a processor's flag does not tell.

    Without the instructions bf16 is emulated, ten times slower; with them it may still lose.
    """
    image = torch.ones(4, 64, 48, 48).to(memory_format=torch.channels_last)
    weight = torch.ones(64, 64, 3, 3).to(memory_format=torch.channels_last)

    def seconds(dtype: torch.dtype) -> float:
        x, w = image.to(dtype), weight.to(dtype)
        best = math.inf
        for _ in range(4):
            started = time.perf_counter()
            F.conv2d(x, w, padding=1)
            best = min(best, time.perf_counter() - started)
        return best

    with torch.no_grad():
        # well apart, so that a resumed run does not choose differently
        return seconds(torch.bfloat16) < seconds(torch.float32) / 1.3


class Trainer:
    """A student, perhaps its teacher, the loss, and one step of training.

    Args:
        recipe: loss, schedule, augmentation and sizes.
        student: called with (B, 3, s, s) normalised images; returns two logit maps (B, 1, s, s).
        architecture: of the student; says how to normalise.
        teacher: frozen here; None for supervised training.
        teacher_architecture: of the teacher.
        fabric: see `make_fabric`.
    """

    def __init__(
        self,
        recipe: TrainRecipe | QuantizeRecipe,
        student: nn.Module,
        architecture: Architecture,
        teacher: nn.Module | None,
        teacher_architecture: Architecture | None,
        fabric: Fabric,
    ) -> None:
        assert recipe.schedule is not None
        self.schedule: ScheduleRecipe = recipe.schedule
        self.augment: AugmentRecipe = recipe.augment
        self.seed, self.size = recipe.seed, recipe.data.size
        self.teacher_size = recipe.teacher_size or recipe.data.size
        self.fabric = fabric
        self.loss = DistillationLoss(recipe.loss)
        if self.loss.needs_teacher and (teacher is None or teacher_architecture is None):
            raise UserError(f"loss.variant {recipe.loss.variant} needs a teacher; set teacher: RUN")
        self.network = student
        self.architecture = architecture
        if recipe.engine.channels_last:
            student.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(
            student.parameters(),
            lr=self.schedule.learning_rate,
            weight_decay=self.schedule.weight_decay,
        )
        compiled: Any = torch.compile(student) if recipe.engine.compile else student
        self.student, self.optimizer = fabric.setup(compiled, self.optimizer)
        self.teacher: Any = None
        if teacher is not None and teacher_architecture is not None and self.loss.needs_teacher:
            teacher.eval().requires_grad_(False)
            if recipe.engine.channels_last:
                teacher.to(memory_format=torch.channels_last)
            # not `setup_module`: DDP refuses a module without a gradient
            teacher.to(fabric.device)
            self.teacher = torch.compile(teacher) if recipe.engine.compile else teacher
            self.teacher_architecture = teacher_architecture
        self.average = (
            {key: value.detach().clone() for key, value in student.state_dict().items()}
            if self.schedule.ema
            else None
        )
        self.log_shares = False
        self.shares: dict[str, float] = {}

    # ------------------------------------------------------------------ one step

    def step(self, data: ResidentSet, order: Tensor, step: int, total: int) -> dict[str, float]:
        """Train on one batch: one optimiser step per scale.

        Args:
            data: the resident training set.
            order: (B,) indices of the batch, of all processes together.
            step: number of this batch in the whole training, from 0.
            total: number of batches in the whole training.

        Returns:
            The loss and its unweighted terms, means over the scales.
        """
        generator = torch.Generator().manual_seed(derive_seed(self.seed, step))
        drawn = augment.draw(self.augment, len(order), generator)
        mine = self._part(len(order))
        index = order[mine].to(data.images.device)
        images, masks = augment.apply(drawn, data.images[index], data.masks[index], mine)
        labelled = data.labelled[index]
        torch.manual_seed(derive_seed(self.seed, step, self.fabric.global_rank))  # drop-path
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.schedule, step, total)

        scales = self.schedule.scales
        if self.schedule.scale_mode == "random":
            chosen = torch.randint(len(scales), (1,), generator=generator)
            scales = [scales[int(chosen)]]
        sums: dict[str, float] = {}
        for scale in scales:
            parts = self._losses(images, masks, labelled, scale)
            self.optimizer.zero_grad(set_to_none=True)
            self.fabric.backward(parts["loss"])
            if self.schedule.clip:
                nn.utils.clip_grad_value_(self.network.parameters(), self.schedule.clip)
            self.optimizer.step()
            for key, value in parts.items():
                sums[key] = sums.get(key, 0.0) + float(value.detach()) / len(scales)
        self._average_weights(step)
        return sums

    def _losses(
        self, images: Tensor, masks: Tensor, labelled: Tensor, scale: float
    ) -> dict[str, Tensor]:
        size = side(self.size, scale)
        target = (resized(masks, size) > 0.5).float()
        outputs = self.student(self._input(images, size, self.architecture))
        truths = None
        if self.teacher is not None:
            teacher_size = side(self.teacher_size, scale)
            inputs = self._input(images, teacher_size, self.teacher_architecture)
            with torch.no_grad(), self.fabric.autocast():
                truths = self.teacher(inputs)
        parts = self.loss(outputs, truths, target, labelled)
        if self.log_shares:
            # on leaves of their own: Fabric lets nobody but itself go back through the student
            leaves = outputs[0].detach().requires_grad_(), outputs[1].detach().requires_grad_()
            again = self.loss(leaves, truths, target, labelled)
            self.shares = gradient_shares(self.loss.weighted(again), leaves)
            self.log_shares = False
        return parts

    def _input(self, images: Tensor, size: int, architecture: Architecture) -> Tensor:
        """Resize as PIL does (antialiased bilinear) and normalise; images are 0…1."""
        x = normalise(resized(images, size), architecture)
        return x.to(memory_format=torch.channels_last)

    def _part(self, batch: int) -> slice:
        """Which images of the batch this process takes; the batch divides evenly (checked)."""
        share = batch // self.fabric.world_size
        return slice(self.fabric.global_rank * share, (self.fabric.global_rank + 1) * share)

    def _average_weights(self, step: int) -> None:
        if self.average is None:
            return
        # the average follows quickly at first, when the weights are still far from good
        decay = min(self.schedule.ema, (1 + step) / (10 + step))
        for key, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.average[key].lerp_(value.detach(), 1 - decay)
            else:
                self.average[key].copy_(value)

    # ------------------------------------------------------------------ validation

    def best_state(self) -> dict[str, Tensor]:
        """Return the weights that are evaluated and delivered: the average, if there is one."""
        return self.network.state_dict() if self.average is None else self.average

    @contextmanager
    def evaluated_weights(self) -> Iterator[None]:
        """Put the averaged weights into the student for the time of an evaluation."""
        if self.average is None:
            yield
            return
        own = {key: value.detach().clone() for key, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        try:
            yield
        finally:
            self.network.load_state_dict(own)

    def validate(self, data: ResidentSet) -> tuple[float, np.ndarray]:
        """Return mean Dice (deploy protocol, at the network's size) and the masks (N, S, S) bool.

        Under `torchrun` each process takes its part and the mean is over all; the masks returned
        are those of this process's part.
        """
        part = slice(self.fabric.global_rank, None, self.fabric.world_size)
        with self.evaluated_weights():
            dice, masks = validate(
                self.student, data.images[part], data.masks[part], self.size, self.architecture
            )
        return self.sum(float(dice.sum())) / self.sum(len(dice)), masks

    def sum(self, value: float) -> float:
        """Add a number up over the processes."""
        total: Any = self.fabric.all_reduce(torch.tensor(float(value)), reduce_op="sum")
        return float(total)

    # ------------------------------------------------------------------ checkpoints

    def save(self, run: Run, progress_: Progress) -> None:
        """Write everything that resuming needs, atomically, in one safetensors file."""
        if not run.writes:
            return
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in values.items()}
        if self.average is not None:
            tensors |= {f"average.{k}": v for k, v in self.average.items()}
        # safetensors refuses tensors that share memory; a copy of each costs little
        copies = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        header = {"progress": json.dumps(vars(progress_))}
        write_bytes_atomic(run.last_checkpoint, save(copies, metadata=header))

    def load(self, path: Path) -> Progress:
        """Restore what `save` wrote.

        Raises:
            UserError: the file is absent, truncated or of another network.
        """
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            progress_ = Progress(**json.loads(header["progress"]))
            self.network.load_state_dict(_below(tensors, "network."))
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in _below(tensors, "optimizer.").items():
                index, _, name = key.partition(".")
                state.setdefault(int(index), {})[name] = value
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": state, "param_groups": groups})
            if self.average is not None:
                for key, value in _below(tensors, "average.").items():
                    self.average[key].copy_(value)
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
            reason = str(error).split("\n")[0][:120]
            raise UserError(
                f"{path} cannot be resumed ({reason}); start again with --overwrite"
            ) from None
        return progress_


def fit(
    recipe: TrainRecipe | QuantizeRecipe,
    student: nn.Module,
    architecture: Architecture,
    data: TrainingData,
    run: Run,
    teacher: nn.Module | None = None,
    teacher_architecture: Architecture | None = None,
) -> FitResult:
    """Train until the schedule is done, resuming if the run has a checkpoint.

    The best epoch on the validation split is kept as `checkpoints/best.safetensors` (the last
    epoch, if there is no validation split).

    Args:
        recipe: the resolved recipe; `schedule` is set.
        student: the network to train, float or fake-quantised; see `Trainer`.
        architecture: of the student.
        data: resident at the larger of the student's and the teacher's size.
        run: where everything is written.
        teacher: the frozen teacher, for distillation.
        teacher_architecture: of the teacher.

    Raises:
        UserError: the batch does not divide over the processes, or a bad checkpoint.
        Interrupted: stopped by Ctrl-C or SIGTERM after saving; `resume` goes on.
    """
    schedule = recipe.schedule
    assert schedule is not None
    if recipe.engine.threads:
        torch.set_num_threads(recipe.engine.threads)
    fabric = make_fabric(recipe.engine.precision)
    if schedule.batch_size % fabric.world_size:
        raise UserError(
            f"schedule.batch_size {schedule.batch_size} does not divide over "
            f"{fabric.world_size} processes; choose a multiple"
        )
    trainer = Trainer(recipe, student, architecture, teacher, teacher_architecture, fabric)
    train, validation = data.train.to(fabric.device), data.validation.to(fabric.device)
    batch = min(schedule.batch_size, len(train))
    per_epoch = max(1, (recipe.data.epoch_images or len(train)) // batch)
    total = schedule.epochs * per_epoch
    now = trainer.load(run.last_checkpoint) if run.last_checkpoint.exists() else Progress()
    run.rewind(now.step)
    fabric.barrier()

    saved = time.monotonic()
    with (
        _stop_after_step() as stop,
        progress(total, f"{run.path.name}: steps of {batch} images", now.step) as advance,
    ):
        while now.step < total:
            started = time.monotonic()
            epoch, within = divmod(now.step, per_epoch)
            order = epoch_order(len(train), per_epoch * batch, derive_seed(recipe.seed, epoch))
            frozen = epoch >= schedule.freeze_batch_norm_from * schedule.epochs
            set_train_mode(trainer.network, frozen)
            if within == 0:
                now.sums, trainer.log_shares = {}, trainer.loss.needs_teacher
            parts = trainer.step(train, order[within * batch :][:batch], now.step, total)
            if not math.isfinite(parts["loss"]):
                raise UserError(
                    f"{run.path}: the loss is {parts['loss']} at step {now.step}; lower "
                    "schedule.learning_rate or loss.teacher_scale, or set engine.precision=fp32"
                )
            for key, value in parts.items():
                now.sums[key] = now.sums.get(key, 0.0) + value
            now.step += 1
            now.seconds += time.monotonic() - started
            now.sums["seconds"] = now.sums.get("seconds", 0.0) + time.monotonic() - started
            if trainer.shares:
                now.sums |= {f"share_{k}": v * per_epoch for k, v in trainer.shares.items()}
                trainer.shares = {}
            mean = now.sums["loss"] / (within + 1)
            advance(note=f"epoch {epoch + 1}/{schedule.epochs} loss {mean:.3f}")
            if now.step % per_epoch == 0:
                _end_epoch(recipe, trainer, validation, run, now, per_epoch, batch)
                saved = -math.inf  # an epoch's end is always worth a checkpoint
            stopped = trainer.sum(len(stop)) > 0  # all processes leave at the same step
            if stopped or time.monotonic() - saved > 60 * recipe.engine.checkpoint_minutes:
                trainer.save(run, now)
                saved = time.monotonic()
            if stopped:
                run.update(status="interrupted", step=now.step)
                run.log(f"stopped at step {now.step} of {total}; go on with --resume")
                raise Interrupted
    run.update(
        status="finished", best_epoch=now.best_epoch, best_dice=now.best_dice, seconds=now.seconds
    )
    return FitResult(now.best_epoch, now.best_dice, run.history(), now.seconds)


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
            save_network(run.best_checkpoint, trainer.best_state(), trainer.architecture)
    run.record(row)
    run.log(
        f"epoch {epoch}/{schedule.epochs}: loss {means['loss']:.4f}, validation Dice {dice:.4f}"
        f" (best {now.best_dice:.4f}), {row['images_per_second']:.1f} images/s"
    )


# ---------------------------------------------------------------------- small parts


def derive_seed(*numbers: int) -> int:
    """Mix whole numbers into one seed, so that neighbours share nothing (numpy's SeedSequence)."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def epoch_order(images: int, length: int, seed: int) -> Tensor:
    """Shuffle an epoch: `length` indices, each image once before any comes again."""
    generator = torch.Generator().manual_seed(seed)
    rounds = [torch.randperm(images, generator=generator) for _ in range(-(-length // images))]
    return torch.cat(rounds)[:length]


def learning_rate(schedule: ScheduleRecipe, step: int, total: int) -> float:
    """Learning rate at a step: linear warm-up, then constant or a cosine to zero."""
    warm = schedule.warmup * total
    if step < warm:
        return schedule.learning_rate * (step + 1) / warm
    if schedule.decay == "constant":
        return schedule.learning_rate
    done = (step - warm) / max(1.0, total - warm)
    return schedule.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def side(size: int, scale: float) -> int:
    """The training size at a scale: the nearest multiple of 32, at least 32."""
    return max(32, round(size * scale / 32) * 32)


def resized(x: Tensor, size: int) -> Tensor:
    """Resize (B, C, S, S) to size×size as PIL does (antialiased bilinear), if it is another."""
    if size == x.shape[-1]:
        return x
    return F.interpolate(x, (size, size), mode="bilinear", antialias=True)


def normalise(images: Tensor, architecture: Architecture) -> Tensor:
    """`(x - mean) / std` for images (B, 3, H, W) in 0…1."""
    mean = images.new_tensor(architecture.mean).view(1, 3, 1, 1)
    std = images.new_tensor(architecture.std).view(1, 3, 1, 1)
    return (images - mean) / std


def set_train_mode(network: nn.Module, frozen_batch_norm: bool) -> None:
    """Train mode, with the batch-norm statistics fixed if asked."""
    network.train()
    if frozen_batch_norm:
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def outputs_in_batches(
    network: nn.Module,
    images: Tensor,
    masks: Tensor,
    size: int,
    architecture: Architecture,
    batch: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Run a network in evaluation mode over resident images; it is left in the mode it was in.

    Yields:
        z₁ + z₂ as (b, 1, size, size) float32 at least, and the truth as bool, b ≤ `batch` images
        at a time. The other arguments are those of `validate`.
    """
    was_training = network.training
    network.eval()
    for start in range(0, len(images), batch):
        x = resized(images[start : start + batch].float() / 255, size)
        truth = resized(masks[start : start + batch].float(), size) > 0.5
        z1, z2 = network(normalise(x, architecture).to(memory_format=torch.channels_last))
        yield (z1 + z2).float(), truth
    network.train(was_training)


@torch.no_grad()
def validate(
    network: nn.Module,
    images: Tensor,
    masks: Tensor,
    size: int,
    architecture: Architecture,
    batch: int = 8,
    threshold: float = 0.5,
) -> tuple[np.ndarray, np.ndarray]:
    """Score a network on resident images at its own size, deploy protocol.

    Args:
        network: returns two logit maps.
        images: (N, 3, S, S) uint8.
        masks: (N, 1, S, S) uint8, 0 or 1.
        size: the network's input size; the images are resized to it if they are larger.
        architecture: says how to normalise.
        batch: images at a time.
        threshold: polyp where σ(z₁ + z₂) is above it.

    Returns:
        Dice of each image (N,), 1 where prediction and truth are both empty, and the predicted
        masks (N, size, size) bool.
    """
    scores, predictions = [], []
    for logits, truth in outputs_in_batches(network, images, masks, size, architecture, batch):
        predicted = torch.sigmoid(logits) > threshold
        overlap = (predicted & truth).sum((1, 2, 3)).double()
        both = predicted.sum((1, 2, 3)).double() + truth.sum((1, 2, 3)).double()
        scores.append(torch.where(both == 0, 1.0, 2 * overlap / both.clamp(min=1)).cpu())
        predictions.append(predicted[:, 0].cpu())
    return torch.cat(scores).numpy(), torch.cat(predictions).numpy()


def write_overlays(path: Path, data: ResidentSet, masks: np.ndarray, count: int = 12) -> None:
    """Write a contact sheet: ground truth yellow, prediction blue, images spread over the set."""
    import cv2

    from kdas_edge.overlay import GROUND_TRUTH, PREDICTION, draw_contours

    chosen = np.linspace(0, len(masks) - 1, min(count, len(masks))).round().astype(int)
    tiles = []
    for index in chosen:
        image = data.images[int(index)].cpu().permute(1, 2, 0).numpy()
        truth = data.masks[int(index), 0].cpu().numpy() > 0
        predicted = masks[index]
        if predicted.shape != truth.shape:
            predicted = cv2.resize(
                predicted.astype(np.uint8), truth.shape[::-1], interpolation=cv2.INTER_NEAREST
            ).astype(bool)
        tiles.append(
            draw_contours(draw_contours(image, truth, GROUND_TRUTH, 2), predicted, PREDICTION, 2)
        )
    while len(tiles) % 4:
        tiles.append(np.zeros_like(tiles[0]))
    rows = [np.concatenate(tiles[i : i + 4], axis=1) for i in range(0, len(tiles), 4)]
    sheet = cv2.cvtColor(np.concatenate(rows, axis=0), cv2.COLOR_RGB2BGR)
    write_bytes_atomic(path, cv2.imencode(".png", sheet)[1].tobytes())


def peak_memory_mib() -> float:
    """Peak memory of this process: of the GPU if one is used, else resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


@contextmanager
def _stop_after_step() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying, so that the step ends and is saved.

    A second signal is obeyed at once.
    """
    caught: list[int] = []

    def handler(number: int, _frame: object) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, handler)
    except ValueError:  # not the main thread: leave the signals to the host program
        pass
    try:
        yield caught
    finally:
        for number, old in before.items():
            signal.signal(number, old)
