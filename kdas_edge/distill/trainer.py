"""One step of training, on a CPU, a GPU, or several under `torchrun`, and what a checkpoint holds.

Lightning Fabric does the moving and averaging.
"""

import json
import math
import os
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

from kdas_edge.data import augment
from kdas_edge.data.resident import ResidentSet
from kdas_edge.distill.features import Tap, tap
from kdas_edge.distill.kdas import DistillationLoss, gradient_shares
from kdas_edge.distill.schedule import derive_seed, learning_rate, side
from kdas_edge.distill.teacher_maps import as_outputs
from kdas_edge.distill.validation import validate
from kdas_edge.errors import UserError, first_line
from kdas_edge.files import write_bytes_atomic
from kdas_edge.models.architecture import FullSize, SegmentationNetwork
from kdas_edge.models.inputs import network_input, resized
from kdas_edge.recipe import AugmentRecipe, QuantizeRecipe, ScheduleRecipe, TrainRecipe
from kdas_edge.run import Run

try:
    from lightning_fabric import Fabric
except ImportError:  # the umbrella package `lightning` carries the same Fabric
    from lightning.fabric import Fabric  # type: ignore[no-redef]


@dataclass
class Progress:
    """Where a training stands; saved with every checkpoint."""

    step: int = 0  # optimiser-step groups done; one per batch
    best_dice: float = -1.0
    best_epoch: int = -1
    seconds: float = 0.0
    # running sums of the unfinished epoch, so that a resumed epoch reports all of its steps
    sums: dict[str, float] = field(default_factory=dict)


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
        student: the network to train.
        teacher: frozen here; None for supervised training, and unused where the training set holds
            the teacher's maps (`cache_teacher`).
        fabric: see `make_fabric`.
    """

    def __init__(
        self,
        recipe: TrainRecipe | QuantizeRecipe,
        student: SegmentationNetwork,
        teacher: SegmentationNetwork | None,
        fabric: Fabric,
    ) -> None:
        assert recipe.schedule is not None
        self.schedule: ScheduleRecipe = recipe.schedule
        self.augment: AugmentRecipe = recipe.augment
        self.seed, self.size = recipe.seed, recipe.data.size
        self.teacher_size = recipe.teacher_size or recipe.data.size
        self.fabric = fabric
        self.loss = DistillationLoss(recipe.loss)
        asked = self.loss.needs_teacher and not recipe.cache_teacher
        if asked and teacher is None:
            raise UserError(f"loss.variant {recipe.loss.variant} needs a teacher; set teacher: RUN")
        self.network = student
        if recipe.engine.channels_last:
            student.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(
            student.parameters(),
            lr=self.schedule.learning_rate,
            weight_decay=self.schedule.weight_decay,
        )
        self.taps: tuple[Tap, Tap] | None = None
        if self.loss.needs_features and teacher is not None:
            self.taps = tap(student, recipe.loss.variant), tap(teacher, recipe.loss.variant)
        full: nn.Module = FullSize(student)
        compiled: Any = torch.compile(full) if recipe.engine.compile else full
        self.student, self.optimizer = fabric.setup(compiled, self.optimizer)
        self.teacher: Any = None
        if teacher is not None and asked:
            teacher.eval().requires_grad_(False)
            if recipe.engine.channels_last:
                teacher.to(memory_format=torch.channels_last)
            # not `setup_module`: DDP refuses a module without a gradient
            teacher.to(fabric.device)
            full = FullSize(teacher)
            self.teacher = torch.compile(full) if recipe.engine.compile else full
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
        batch = data.rows(order[mine], self.fabric.device)
        images, masks = augment.apply(drawn, batch.images, batch.masks, mine)
        labelled = batch.labelled
        maps = None
        if batch.teacher is not None:
            maps = augment.warp(drawn, batch.teacher.float() / 255, mine)
        torch.manual_seed(derive_seed(self.seed, step, self.fabric.global_rank))  # drop-path
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.schedule, step, total)

        scales = self.schedule.scales
        if self.schedule.scale_mode == "random":
            chosen = torch.randint(len(scales), (1,), generator=generator)
            scales = [scales[int(chosen)]]
        sums: dict[str, float] = {}
        for scale in scales:
            parts = self._losses(images, masks, labelled, maps, scale)
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
        self,
        images: Tensor,
        masks: Tensor,
        labelled: Tensor,
        maps: Tensor | None,
        scale: float,
    ) -> dict[str, Tensor]:
        size = side(self.size, scale)
        target = (resized(masks, size) > 0.5).float()
        outputs = self.student(network_input(images, size, self.network.architecture))
        truths = None
        if maps is not None:
            truths = as_outputs(resized(maps, size))
        elif self.teacher is not None:
            teacher_size = side(self.teacher_size, scale)
            inputs = network_input(images, teacher_size, self.teacher.architecture)
            with torch.no_grad(), self.fabric.autocast():
                truths = self.teacher(inputs)
        features = (self.taps[0].take(), self.taps[1].take()) if self.taps else None
        parts = self.loss(outputs, truths, target, labelled, features)
        # what comes of features has no share of the gradient of the outputs
        if self.log_shares and features is None:
            # on leaves of their own: Fabric lets nobody but itself go back through the student
            leaves = outputs[0].detach().requires_grad_(), outputs[1].detach().requires_grad_()
            again = self.loss(leaves, truths, target, labelled)
            self.shares = gradient_shares(self.loss.weighted(again), leaves)
            self.log_shares = False
        return parts

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
            dice, masks = validate(self.student, data.images[part], data.masks[part], self.size)
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
            reason = first_line(error)
            raise UserError(
                f"{path} cannot be resumed ({reason}); start again with --overwrite"
            ) from None
        return progress_


def set_train_mode(network: nn.Module, frozen_batch_norm: bool) -> None:
    """Train mode, with the batch-norm statistics fixed if asked."""
    network.train()
    if frozen_batch_norm:
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
