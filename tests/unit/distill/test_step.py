"""One step of training: what it returns, and that the host does not wait for the device in it."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from test_engine import tiny
from torch.utils._python_dispatch import TorchDispatchMode

from kdas_edge.data.dataset import load_training_data
from kdas_edge.distill import engine
from kdas_edge.distill.engine import RunningSums
from kdas_edge.distill.teacher import Teacher
from kdas_edge.distill.trainer import StepResult, Trainer, make_fabric
from kdas_edge.distill.training import run_training
from kdas_edge.errors import UserError
from kdas_edge.models.zoo import build
from kdas_edge.recipe import TrainRecipe, dump_recipe


class Counts(TorchDispatchMode):
    """Counts the operators that make the host wait: scalar reads and collectives."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        if "_local_scalar_dense" in name or name.startswith("c10d."):
            self.waits[name] += 1
        return func(*args, **(kwargs or {}))


def all_switched_on(scenes: Path, **changes: object) -> TrainRecipe:
    """Every augmentation, several scales, averaged weights, KDAS."""
    settings: dict[str, object] = {
        "teacher": "unused",
        "loss__variant": "kdas",
        "augment__bubbles": 0.5,
        "augment__brightness": 0.2,
        "augment__contrast": 0.2,
        "augment__saturation": 0.2,
        "schedule__scale_mode": "random",
        "schedule__freeze_batch_norm_from": 0.5,
    }
    return tiny(scenes, **{**settings, **changes})


def trainer_of(recipe: TrainRecipe) -> Trainer:
    torch.manual_seed(0)
    student, network = (build(recipe.model, recipe.data.size) for _ in range(2))
    return Trainer(recipe, student, Teacher(network, 64, tta=2), make_fabric("fp32"))


def test_twenty_steps_read_no_scalar_and_call_no_collective(scenes: Path) -> None:
    recipe = all_switched_on(scenes)
    trainer = trainer_of(recipe)
    data = load_training_data(recipe.data).train
    sums = RunningSums()
    with Counts() as counts:
        for number in range(20):
            order = torch.arange(4) + number % 8
            result = trainer.step(data, order, number, 40, with_shares=number == 0)
            sums.add(result.losses)
            sums.add({f"share_{key}": share for key, share in result.shares.items()})
    assert counts.waits == {}
    # the counter does see what it counts, and the sums are there to be read
    with Counts() as counts:
        assert float(result.losses["loss"]) > 0
    assert sum(counts.waits.values()) == 1
    assert set(sums.read()) == {
        "loss", "segmentation", "attention", "sgm",
        "share_segmentation", "share_attention", "share_sgm",
    }  # fmt: skip


def test_a_step_returns_its_losses_and_the_shares_only_when_asked(scenes: Path) -> None:
    recipe = all_switched_on(scenes, schedule__scale_mode="each")
    trainer = trainer_of(recipe)
    data = load_training_data(recipe.data).train
    plain = trainer.step(data, torch.arange(4), 0, 10)
    asked = trainer.step(data, torch.arange(4), 1, 10, with_shares=True)
    assert set(plain.losses) == {"loss", "segmentation", "attention", "sgm"} and not plain.shares
    assert all(
        one.dtype == torch.float64 and not one.requires_grad for one in plain.losses.values()
    )
    weighted = recipe.loss.segmentation_weight * plain.losses["segmentation"]
    weighted += recipe.loss.teacher_weight * (plain.losses["attention"] + plain.losses["sgm"])
    torch.testing.assert_close(plain.losses["loss"], weighted, rtol=1e-5, atol=0)
    assert float(sum(asked.shares.values())) == pytest.approx(1)


def test_between_two_logs_a_training_neither_reads_nor_reduces(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    read, sums, step = RunningSums.read, Trainer.sums, Trainer.step
    monkeypatch.setattr(RunningSums, "read", lambda self: (events.append("read"), read(self))[1])
    monkeypatch.setattr(Trainer, "sums", lambda self, v: (events.append("sum"), sums(self, v))[1])

    def stepping(self: Trainer, *args: Any, **options: Any) -> StepResult:
        events.append("step")
        return step(self, *args, **options)

    monkeypatch.setattr(Trainer, "step", stepping)
    recipe = tiny(scenes, data__validation=0, data__epoch_images=24, engine__log_interval=4)
    run_training(recipe, tmp_path)
    # six steps an epoch: a log after every fourth step of the training, and at an epoch's end
    steps = "".join({"step": "s", "read": "r", "sum": "c"}[event] for event in events)
    assert steps == "ssssrc" + "ssrc" + "ssrc" + "ssssrc"


@pytest.mark.parametrize("interval", [1, 3, 100])
def test_a_loss_that_is_no_number_ends_the_run_before_it_is_saved(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interval: int
) -> None:
    step = Trainer.step

    def diverging(self: Trainer, data: Any, order: Any, number: int, *rest: Any, **options: Any):
        result = step(self, data, order, number, *rest, **options)
        if number == 5:
            with torch.no_grad():
                next(self.network.parameters()).fill_(float("nan"))
        return result

    monkeypatch.setattr(Trainer, "step", diverging)
    recipe = tiny(
        scenes,
        data__epoch_images=48,  # twelve steps an epoch
        engine__log_interval=interval,
        engine__checkpoint_minutes=1e-6,
    )
    with pytest.raises(UserError, match=r"became NaN or infinite between steps \d+ and \d+; lower"):
        run_training(recipe, tmp_path)
    last = tmp_path / "tiny" / "checkpoints" / "last.safetensors"
    if interval == 1:  # what was saved before it happened can be resumed
        monkeypatch.setattr(Trainer, "step", step)
        assert last.exists()
        run_training(recipe, tmp_path, resume=True)
    assert interval != 100 or not last.exists()


def test_a_checkpoint_with_weights_that_are_no_numbers_is_not_resumed(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny(scenes, schedule__epochs=1)
    save = Trainer.save

    def damaged(self: Trainer, run: Any, progress: Any) -> None:
        with torch.no_grad():
            self.network.get_parameter("head1.bias").fill_(float("inf"))
        save(self, run, progress)

    with monkeypatch.context() as patch:
        patch.setattr(engine.Trainer, "save", damaged)
        run_training(recipe, tmp_path)
    with pytest.raises(UserError, match=r"NaN or infinity in 'head1\.bias'"):
        run_training(recipe, tmp_path, resume=True)


def test_running_sums_resume_to_the_very_number_of_an_unbroken_epoch() -> None:
    values = [torch.tensor(0.1 * n, dtype=torch.float64) / 3 for n in range(50)]
    whole, first = RunningSums(), RunningSums()
    for value in values:
        whole.add({"loss": value})
    for value in values[:20]:
        first.add({"loss": value})
    rest = RunningSums({**first.read(), "seconds": 2.5})
    assert rest.read() == first.read() and rest.seconds == 2.5
    for value in values[20:]:
        rest.add({"loss": value})
    assert rest.read() == whole.read()


_TWO_PROCESSES = """
import sys, torch
from pathlib import Path
from test_step import Counts, trainer_of
from kdas_edge.data.dataset import load_training_data
from kdas_edge.recipe import TrainRecipe, load_recipe
recipe = load_recipe(TrainRecipe, Path(sys.argv[1]), [])
trainer = trainer_of(recipe)
assert trainer.fabric.world_size == 2
data = load_training_data(recipe.data).train
with Counts() as counts:
    for number in range(20):
        trainer.step(data, torch.arange(4), number, 20)
    assert not [name for name in counts.waits if "_local_scalar_dense" in name], counts.waits
    assert trainer.sums([1.0, 2.0]) == [2.0, 4.0]
print("done", dict(counts.waits))
"""


@pytest.mark.slow
def test_two_processes_wait_for_each_other_only_in_the_gradient(
    scenes: Path, tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(dump_recipe(all_switched_on(scenes)))
    (tmp_path / "two.py").write_text(_TWO_PROCESSES)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, *launch, "two.py", "recipe.yaml"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0 and done.stdout.count("done") == 2, done.stderr
