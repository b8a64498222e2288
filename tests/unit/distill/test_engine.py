"""The training loop: resuming, distributing, scheduling, and what it leaves on disk."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from own_process import passed_alone
from safetensors.torch import load_file

from kdas_edge.distill import engine
from kdas_edge.distill.training import run_training
from kdas_edge.errors import UserError
from kdas_edge.models.architecture import FullSize
from kdas_edge.models.checkpoints import load_network
from kdas_edge.recipe import TrainRecipe, dump_recipe, load_recipe
from kdas_edge.run import Run, open_run


def tiny(scenes: Path, **changes: object) -> TrainRecipe:
    """A recipe that trains in seconds, with everything random switched on."""
    values = {
        "name": "tiny",
        "data": {"root": str(scenes), "size": 64, "validation": 0.2},
        "model": {"backbone": "test_efficientnet", "width": 8, "drop_path": 0.1},
        "augment": {"scale": [0.8, 1.2], "hue": 0.1, "blur": 0.5, "noise": 0.05},
        "schedule": {
            "epochs": 2,
            "batch_size": 4,
            "learning_rate": 1e-3,
            "ema": 0.9,
            "scales": [0.5, 1.0],
        },
        "engine": {"precision": "fp32", "threads": 1},
    }
    overrides = [f"{key.replace('__', '.')}={json.dumps(value)}" for key, value in changes.items()]
    return load_recipe(TrainRecipe, values, overrides)


@pytest.fixture(scope="module")
def teacher(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("teacher")
    run_training(tiny(scenes, name="teacher"), out)
    return out / "teacher"


def test_a_run_holds_all_that_made_it_and_all_that_was_measured(teacher: Path) -> None:
    run, recipe = open_run(teacher)
    assert run.state()["status"] == "finished"
    assert recipe.model.backbone == "test_efficientnet"
    rows = run.history()
    assert [row["epoch"] for row in rows] == [1, 2]
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    assert len((teacher / "metrics.csv").read_text().splitlines()) == 3
    assert list((teacher / "tensorboard").iterdir())
    assert (teacher / "overlays" / "epoch_002.png").stat().st_size > 1000
    assert json.loads((teacher / "environment.json").read_text())["packages"]["torch"]
    assert json.loads((teacher / "split.json").read_text())["validation"]
    network = load_network(teacher)
    architecture = network.architecture
    assert (architecture.size, architecture.width) == (64, 8)
    with torch.no_grad():
        z1, z2 = FullSize(network)(torch.zeros(1, 3, 64, 64))
    assert z1.shape == z2.shape == (1, 1, 64, 64)


def test_a_run_stopped_at_any_step_resumes_to_the_same_weights(
    scenes: Path,
    teacher: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if passed_alone(request):
        return
    recipe = tiny(scenes, teacher=str(teacher), loss__variant="kdas", schedule__epochs=2)
    whole = run_training(recipe, tmp_path / "whole")
    step = engine.Trainer.step
    for stop_after in (1, 3, 6):

        def stopping(self, data, order, number, total, stop_after=stop_after, **options):
            result = step(self, data, order, number, total, **options)
            if number + 1 == stop_after:
                signal.raise_signal(signal.SIGINT)
            return result

        folder = tmp_path / f"stopped_after_{stop_after}"
        with monkeypatch.context() as patch:
            patch.setattr(engine.Trainer, "step", stopping)
            with pytest.raises(engine.Interrupted):
                run_training(recipe, folder)
        assert open_run(folder / "tiny")[0].state()["status"] == "interrupted"
        parts = run_training(recipe, folder, resume=True)

        for name in ("last", "best"):
            file = f"tiny/checkpoints/{name}.safetensors"
            one, two = load_file(tmp_path / "whole" / file), load_file(folder / file)
            assert one.keys() == two.keys()
            for key in one:
                assert torch.equal(one[key], two[key]), key
        for before, after in zip(whole["history"], parts["history"], strict=True):
            for key in ("epoch", "step", "loss", "attention", "sgm", "validation_dice"):
                assert before[key] == after[key]


@pytest.mark.slow
def test_a_run_killed_without_warning_resumes_to_the_same_weights(
    scenes: Path, tmp_path: Path
) -> None:
    recipe = tiny(
        scenes, schedule__epochs=6, engine__checkpoint_minutes=1e-4, engine__log_interval=1
    )
    run_training(recipe, tmp_path / "whole")
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    command = [sys.executable, "-m", "kdas_edge", "train", "--recipe", "recipe.yaml"]
    process = subprocess.Popen([*command, "--out", "parts"], cwd=tmp_path)
    checkpoint = tmp_path / "parts" / "tiny" / "checkpoints" / "last.safetensors"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, "the training ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert open_run(tmp_path / "parts" / "tiny")[0].state()["status"] == "running"
    subprocess.run([*command, "--out", "parts", "--resume"], cwd=tmp_path, check=True)
    one = load_file(tmp_path / "whole/tiny/checkpoints/best.safetensors")
    two = load_file(tmp_path / "parts/tiny/checkpoints/best.safetensors")
    assert all(torch.equal(one[key], two[key]) for key in one)


_AVERAGED_GRADIENT = """
import sys, torch
from kdas_edge.data.dataset import load_training_data
from kdas_edge.distill.teacher import Teacher
from kdas_edge.distill.trainer import Trainer, make_fabric, set_train_mode
from kdas_edge.models.checkpoints import load_network
from kdas_edge.recipe import TrainRecipe, load_recipe
from pathlib import Path
recipe = load_recipe(TrainRecipe, Path(sys.argv[1]), [])
torch.set_num_threads(1)
fabric = make_fabric("fp32")
student, teacher = (load_network(Path(recipe.teacher)) for _ in range(2))
trainer = Trainer(recipe, student, Teacher(teacher, 64), fabric)
set_train_mode(student, frozen_batch_norm=True)
data = load_training_data(recipe.data).train
trainer.step(data, torch.arange(recipe.schedule.batch_size), 0, 10)
if fabric.global_rank == 0:
    torch.save({k: p.grad for k, p in student.named_parameters()}, sys.argv[2])
"""


@pytest.mark.slow
def test_two_processes_average_to_the_gradient_of_one_on_the_joined_batch(
    scenes: Path, teacher: Path, tmp_path: Path
) -> None:
    # batch-norm statistics are frozen: they are the one thing that does depend on the share
    recipe = tiny(
        scenes,
        teacher=str(teacher),
        loss__variant="kdas",
        schedule__clip=0,
        model__drop_path=0,
        schedule__scales=[1.0],
    )
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    (tmp_path / "step.py").write_text(_AVERAGED_GRADIENT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for processes in (1, 2):
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [sys.executable, *launch, "step.py", "recipe.yaml", f"grad{processes}.pt"]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=300)
    one, two = (
        torch.load(tmp_path / f"grad{processes}.pt", weights_only=True) for processes in (1, 2)
    )
    largest = max(float(gradient.abs().max()) for gradient in one.values())
    assert largest > 1e-4
    for key in one:
        assert torch.allclose(one[key], two[key], atol=1e-5 * largest, rtol=1e-4), key


def test_resuming_with_another_recipe_is_refused_and_names_the_key(
    scenes: Path, tmp_path: Path
) -> None:
    Run.create(tmp_path, tiny(scenes))
    with pytest.raises(UserError, match=r"schedule\.learning_rate"):
        Run.create(tmp_path, tiny(scenes, schedule__learning_rate=0.5), resume=True)
    # how it runs may change between a workstation and another; what it learns may not
    Run.create(tmp_path, tiny(scenes, engine__checkpoint_minutes=9.0), resume=True)


def test_a_run_that_exists_is_not_touched_without_overwrite(scenes: Path, tmp_path: Path) -> None:
    run = Run.create(tmp_path, tiny(scenes))
    with pytest.raises(UserError, match="--overwrite"):
        run_training(tiny(scenes), tmp_path)
    assert (run.path / "recipe.yaml").exists()


def test_a_truncated_checkpoint_is_one_clear_error(scenes: Path, tmp_path: Path) -> None:
    recipe = tiny(scenes, schedule__epochs=1)
    run_training(recipe, tmp_path)
    last = tmp_path / "tiny" / "checkpoints" / "last.safetensors"
    last.write_bytes(last.read_bytes()[:5000])
    with pytest.raises(UserError, match="cannot be resumed"):
        run_training(recipe, tmp_path, resume=True)


def test_a_bad_folder_or_backbone_leaves_no_run_behind(scenes: Path, tmp_path: Path) -> None:
    for change in ({"data__root": str(tmp_path / "absent")}, {"model__backbone": "pvt_v3"}):
        with pytest.raises(UserError):
            run_training(tiny(scenes, **change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_distillation_in_bf16_trains_and_logs_the_gradient_shares(
    scenes: Path, teacher: Path, tmp_path: Path
) -> None:
    recipe = tiny(scenes, teacher=str(teacher), schedule__epochs=1, engine__precision="bf16")
    row = run_training(recipe, tmp_path)["history"][0]
    shares = [row[f"share_{term}"] for term in ("segmentation", "attention", "sgm")]
    assert sum(shares) == pytest.approx(1)
    assert min(shares) > 0


def test_accuracy_of_a_training_at_two_sizes_uses_the_teachers_larger_image(
    scenes: Path, teacher: Path, tmp_path: Path
) -> None:
    recipe = tiny(
        scenes,
        teacher=str(teacher),
        loss__variant="soft_labels",
        teacher_size=96,
        schedule__epochs=1,
    )
    summary = run_training(recipe, tmp_path)
    assert summary["history"][0]["soft_labels"] > 0


def test_a_teacher_is_asked_about_mirror_images_where_the_recipe_says_so(
    scenes: Path, teacher: Path, tmp_path: Path
) -> None:
    terms = []
    for count in (1, 4):
        recipe = tiny(
            scenes,
            name=f"mirrors{count}",
            teacher=str(teacher),
            teacher_tta=count,
            loss__variant="soft_labels",
            schedule__epochs=1,
            schedule__learning_rate=1e-30,
        )
        terms.append(run_training(recipe, tmp_path)["history"][0])
    one, four = terms
    assert one["segmentation"] == pytest.approx(four["segmentation"], abs=1e-6)
    assert abs(one["soft_labels"] - four["soft_labels"]) > 1e-5


def test_a_training_starts_from_the_whole_network_of_another_run_at_another_size(
    scenes: Path, tmp_path: Path, teacher: Path
) -> None:
    recipe = tiny(
        scenes, model__init_from=str(teacher), data__size=96, schedule__learning_rate=1e-30
    )
    run_training(recipe, tmp_path)
    expected = load_file(teacher / "checkpoints" / "best.safetensors")
    found = load_file(tmp_path / "tiny" / "checkpoints" / "best.safetensors")
    weights = [key for key in expected if key.endswith(".weight")]
    assert weights
    for key in weights:
        torch.testing.assert_close(found[key], expected[key])


def test_a_finer_network_goes_on_from_a_coarse_one_and_its_refinement_learns(
    scenes: Path, tmp_path: Path, teacher: Path
) -> None:
    for name, rate in (("still", 1e-30), ("learnt", 1e-3)):
        recipe = tiny(scenes, name=name, model__init_from=str(teacher), model__stride=4)
        recipe.schedule.learning_rate = rate
        run_training(recipe, tmp_path)
    expected = load_file(teacher / "checkpoints" / "best.safetensors")
    still, learnt = (
        load_file(tmp_path / name / "checkpoints" / "best.safetensors")
        for name in ("still", "learnt")
    )
    weights = [key for key in expected if key.endswith(".weight")]
    for key in weights:
        torch.testing.assert_close(still[key], expected[key])
    assert still["refine.extend.weight"].abs().max() < 1e-20
    assert learnt["refine.extend.weight"].abs().max() > 1e-4
    assert not torch.equal(still["refine.join.conv.weight"], learnt["refine.join.conv.weight"])
    # the other way round something would be lost
    fine = tmp_path / "learnt"
    with pytest.raises(UserError, match=r"of stride 4, the recipe says 8; set model\.stride=4"):
        run_training(tiny(scenes, model__init_from=str(fine)), tmp_path)
    with pytest.raises(UserError, match=r"of stride 4, the recipe says 8; set model\.stride=4"):
        run_training(tiny(scenes, model__init_decoder_from=str(fine)), tmp_path)
    run_training(tiny(scenes, model__init_decoder_from=str(fine), model__stride=4), tmp_path)


def test_a_start_of_another_architecture_is_refused(
    scenes: Path, tmp_path: Path, teacher: Path
) -> None:
    with pytest.raises(UserError, match=r"test_efficientnet of width 8, the recipe says .* 16"):
        run_training(tiny(scenes, model__init_from=str(teacher), model__width=16), tmp_path)
    assert not (tmp_path / "tiny").exists()


def test_a_student_begins_with_the_decoder_of_its_teacher_and_its_own_encoder(
    scenes: Path, tmp_path: Path, teacher: Path
) -> None:
    networks = {}
    for name, decoder in (("own", None), ("taken", str(teacher))):
        recipe = tiny(
            scenes,
            name=name,
            seed=5,
            model__init_decoder_from=decoder,
            schedule__learning_rate=1e-30,
        )
        run_training(recipe, tmp_path)
        networks[name] = load_file(tmp_path / name / "checkpoints" / "best.safetensors")
    theirs = load_file(teacher / "checkpoints" / "best.safetensors")
    own, taken = networks["own"], networks["taken"]
    for key in own:
        if not key.endswith((".weight", ".bias")):
            continue  # counts and means of batch normalisation move in any training
        decoder = not key.startswith(("backbone", "cim")) and "translate" not in key
        expects = key.startswith("translate") and ".bn." in key
        expected = theirs if decoder or expects else own
        torch.testing.assert_close(taken[key], expected[key], msg=key)
    assert not torch.equal(own["head2.weight"], taken["head2.weight"])


def test_a_decoder_of_another_width_or_beside_a_whole_start_is_refused(
    scenes: Path, tmp_path: Path, teacher: Path
) -> None:
    with pytest.raises(UserError, match=r"has width 8, the recipe says 16"):
        run_training(tiny(scenes, model__init_decoder_from=str(teacher), model__width=16), tmp_path)
    assert not (tmp_path / "tiny").exists()
    with pytest.raises(UserError, match="brings a decoder"):
        tiny(scenes, model__init_decoder_from=str(teacher), model__init_from=str(teacher))


def test_a_run_made_before_a_key_existed_still_resumes(scenes: Path, tmp_path: Path) -> None:
    run_training(tiny(scenes, schedule__epochs=1), tmp_path)
    recipe = tmp_path / "tiny" / "recipe.yaml"
    lines = recipe.read_text().splitlines(keepends=True)
    older = [line for line in lines if "epoch_images" not in line and "init_from:" not in line]
    assert len(older) == len(lines) - 2
    recipe.write_text("".join(older))
    assert run_training(tiny(scenes, schedule__epochs=1), tmp_path, resume=True)["best_epoch"] == 1
