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
from kdas_edge.distill.features import FeatureHook, feature_layers
from kdas_edge.distill.schedule import derive_seed, learning_rate, side
from kdas_edge.distill.teacher import Teacher, as_outputs
from kdas_edge.distill.validation import validate
from kdas_edge.distill.variants import DistillationLoss, Outputs, gradient_shares
from kdas_edge.errors import UserError, first_line
from kdas_edge.files import write_bytes_atomic
from kdas_edge.models.architecture import FullSize, SegmentationNetwork
from kdas_edge.models.checkpoints import check_finite
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


@dataclass(frozen=True)
class StepResult:
    """What one step of training did; scalars in float64 that stay on the device until read.

    Attributes:
        losses: "loss" and its unweighted terms, means over the scales.
        shares: of each weighted term in the gradient of the outputs; empty unless asked for.
    """

    losses: dict[str, Tensor]
    shares: dict[str, Tensor]


class Trainer:
    """A student, perhaps its teacher, the loss, and one step of training.

    Args:
        recipe: loss, schedule, augmentation and sizes.
        student: the network to train.
        teacher: see `Teacher`; None for supervised training. It does not run where the training
            set holds its maps (`cache_teacher`).
        fabric: see `make_fabric`.
    """

    def __init__(
        self,
        recipe: TrainRecipe | QuantizeRecipe,
        student: SegmentationNetwork,
        teacher: Teacher | None,
        fabric: Fabric,
    ) -> None:
        assert recipe.schedule is not None
        self.schedule: ScheduleRecipe = recipe.schedule
        self.augment: AugmentRecipe = recipe.augment
        self.seed, self.size = recipe.seed, recipe.data.size
        self.fabric = fabric
        self.loss = DistillationLoss(recipe.loss)
        if self.loss.variant.needs_teacher and teacher is None:
            raise UserError(f"loss.variant {recipe.loss.variant} needs a teacher; set teacher: RUN")
        self.network = student
        if recipe.engine.channels_last:
            student.to(memory_format=torch.channels_last)
        # fused: one kernel over all weights, and none of the host's reads of the step count
        self.optimizer = torch.optim.AdamW(
            student.parameters(),
            lr=self.schedule.learning_rate,
            weight_decay=self.schedule.weight_decay,
            fused=True,
        )
        full: nn.Module = FeatureHook(
            FullSize(student), feature_layers(student, self.loss.variant.compares)
        )
        compiled: Any = torch.compile(full) if recipe.engine.compile else full
        self.student, self.optimizer = fabric.setup(compiled, self.optimizer)
        self.teacher = teacher
        if teacher is not None:
            # not `setup_module`: DDP refuses a module without a gradient
            teacher.prepare(fabric.device, recipe.engine.channels_last, recipe.engine.compile)
        self.average = (
            {key: value.detach().clone() for key, value in student.state_dict().items()}
            if self.schedule.ema
            else None
        )

    # ------------------------------------------------------------------ one step

    def step(
        self, data: ResidentSet, order: Tensor, number: int, total: int, with_shares: bool = False
    ) -> StepResult:
        """Train on one batch: one optimiser step per scale.

        Nothing here waits for the device: what happened is returned as tensors on it.

        Args:
            data: the resident training set, perhaps with the teacher's maps.
            order: (B,) indices of the batch, of all processes together.
            number: of this batch in the whole training, from 0.
            total: number of batches in the whole training.
            with_shares: measure the terms' shares in the gradient, at the last scale.
        """
        generator = torch.Generator().manual_seed(derive_seed(self.seed, number))
        drawn = augment.draw(self.augment, len(order), generator)
        mine = self._part(len(order))
        batch = data.rows(order[mine], self.fabric.device)
        drawn = augment.with_windows(drawn, batch.masks, mine)
        images, masks = augment.apply(drawn, batch.images, batch.masks, mine)
        labelled = batch.labelled
        maps = None
        if batch.teacher is not None:
            maps = augment.warp(drawn, batch.teacher.float() / 255, mine)
        torch.manual_seed(derive_seed(self.seed, number, self.fabric.global_rank))  # drop-path
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.schedule, number, total)

        scales = self.schedule.scales
        if self.schedule.scale_mode == "random":
            scales = [scales[torch.randint(len(scales), (1,), generator=generator).tolist()[0]]]
        losses: dict[str, Tensor] = {}
        shares: dict[str, Tensor] = {}
        for scale in scales:
            size = side(self.size, scale)
            mask = (resized(masks, size) > 0.5).float()
            x = network_input(images, size, self.network.architecture)
            outputs, features = self.student(x)
            truths, theirs = self._teach(images, maps, size, scale)
            parts = self.loss(outputs, truths, mask, labelled, (features, theirs))
            # what comes of features has no share in the gradient of the outputs
            if with_shares and not features:
                shares = self._shares(outputs, truths, mask, labelled)
            self.optimizer.zero_grad(set_to_none=True)
            self.fabric.backward(parts["loss"])
            if self.schedule.clip:
                nn.utils.clip_grad_value_(self.network.parameters(), self.schedule.clip)
            self.optimizer.step()
            for key, value in parts.items():
                mean = value.detach().double() / len(scales)
                losses[key] = losses[key] + mean if key in losses else mean
        self._average_weights(number)
        return StepResult(losses, shares)

    def _teach(
        self, images: Tensor, maps: Tensor | None, size: int, scale: float
    ) -> tuple[Outputs | None, tuple[Tensor, ...]]:
        """The teacher's outputs and features: from its maps, or by running it on the images."""
        if maps is not None:
            return as_outputs(resized(maps, size)), ()
        if self.teacher is None:
            return None, ()
        with self.fabric.autocast():
            return self.teacher(images, scale)

    def _shares(
        self, outputs: Outputs, truths: Outputs | None, mask: Tensor, labelled: Tensor
    ) -> dict[str, Tensor]:
        # on leaves of their own: Fabric lets nobody but itself go back through the student
        leaves = outputs[0].detach().requires_grad_(), outputs[1].detach().requires_grad_()
        again = self.loss(leaves, truths, mask, labelled)
        return gradient_shares(self.loss.weighted(again), leaves)

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

    def weights_are_finite(self) -> bool:
        """Whether weights and statistics are numbers; waits for the device."""
        values = [v for v in self.network.state_dict().values() if v.is_floating_point()]
        sums = torch.stack([value.detach().sum(dtype=torch.float64) for value in values])
        return bool(sums.isfinite().all())

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
        with self.evaluated_weights(), self.fabric.autocast():
            dice, masks = validate(self.network, data.images[part], data.masks[part], self.size)
        correct, count = self.sums([float(dice.sum()), float(len(dice))])
        return correct / count, masks

    def sums(self, values: list[float]) -> list[float]:
        """Add numbers up over the processes."""
        if self.fabric.world_size == 1:
            return values
        mine = torch.tensor(values, dtype=torch.float64, device=self.fabric.device)
        total: Any = self.fabric.all_reduce(mine, reduce_op="sum")
        found: list[float] = total.tolist()
        return found

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
            weights = _below(tensors, "network.")
            check_finite(path, weights)
            self.network.load_state_dict(weights)
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in _below(tensors, "optimizer.").items():
                index, _, name = key.partition(".")
                state.setdefault(int(index), {})[name] = value
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": state, "param_groups": groups})
            # the file is contiguous; the fused kernel goes through weights and moments in one order
            for weight, moments in self.optimizer.state.items():
                for name, value in moments.items():
                    if value.shape == weight.shape:
                        moments[name] = torch.empty_like(weight).copy_(value)
            if self.average is not None:
                for key, value in _below(tensors, "average.").items():
                    self.average[key].copy_(value)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
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
