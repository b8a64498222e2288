"""`quantize` as a person calls it, and what happens when the person is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_verb import only_line, run_verb
from tiny_student import SIZE, train_tiny_student

from kdas_edge.quantize.qat import CONFIG, load_quantized


@pytest.fixture(scope="module")
def checkpoint(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float student that knows the scenes by heart, so that there is Dice to lose."""
    folder = tmp_path_factory.mktemp("float")
    return train_tiny_student(root=scenes).save(folder / "student.safetensors")


FAST = ["data.validation=0.2", "calibration.samples=6", "engine.threads=1", "max_drop=1"]
TUNE = ["schedule.epochs=1", "schedule.batch_size=8", "schedule.learning_rate=1e-4"]


@pytest.mark.slow
def test_a_student_is_quantised_fine_tuned_and_judged(
    checkpoint: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run_verb(
        capsys,
        "quantize",
        "--student",
        checkpoint,
        "--teacher",
        checkpoint,
        "--data",
        scenes,
        "--out",
        tmp_path / "runs",
        "--name",
        "small",
        *FAST,
        *TUNE,
        "--json",
        tmp_path / "q.json",
    )
    assert done.code == 0, done.err
    for row in ("float", "int8 PTQ", "int8 QAT", "kept"):
        assert row in done.out
    run = tmp_path / "runs" / "small"
    assert f"next: kdas-edge export {run}" in done.out
    network, architecture = load_quantized(run)
    assert architecture.size == SIZE and not network.training
    assert not [path for path in run.rglob("*") if path.suffix in (".pt", ".pth", ".pkl")]

    summary = json.loads((tmp_path / "q.json").read_text())
    gate = summary["gate"]
    assert gate["kept"] == ("qat" if gate["qat_dice"] > gate["ptq_dice"] else "ptq")
    assert gate["drop"] == pytest.approx(
        gate["float_dice"] - max(gate["ptq_dice"], gate["qat_dice"])
    )
    # the teacher was in the loop
    assert summary["history"][0]["attention"] >= 0
    calibration = json.loads((run / "calibration.json").read_text())
    frames, tried = calibration["frames"], calibration["ranges_tried"]
    assert gate["ptq_dice"] == pytest.approx(max(tried.values()))
    assert tried[calibration["ranges_kept"]] == max(tried.values())
    split = json.loads((run / "split.json").read_text())
    assert len(frames) == 6 and set(frames) <= set(split["train"])

    # a finished run that is resumed is neither calibrated nor trained again
    before = (run / CONFIG).stat().st_mtime_ns
    again = run_verb(
        capsys,
        "quantize",
        "--student",
        checkpoint,
        "--teacher",
        checkpoint,
        "--data",
        scenes,
        "--out",
        tmp_path / "runs",
        "--name",
        "small",
        *FAST,
        *TUNE,
        "--resume",
        "--json",
        tmp_path / "again.json",
    )
    assert again.code == 0, again.err
    assert (run / CONFIG).stat().st_mtime_ns == before
    assert json.loads((tmp_path / "again.json").read_text())["gate"] == gate


def test_a_loss_above_the_gate_ends_with_code_3_and_keeps_the_attempt(
    checkpoint: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # ranges taken from black frames destroy every real one
    black = tmp_path / "black"
    black.mkdir()
    for index in range(2):
        Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(black / f"{index}.png")
    done = run_verb(
        capsys,
        "quantize",
        "--student",
        checkpoint,
        "--data",
        scenes,
        "--out",
        tmp_path,
        "--name",
        "broken",
        *FAST,
        f"calibration.source={black}",
        "max_drop=0.001",
    )
    assert done.code == 3
    assert "gate failed" in done.out and "int8 loses" in done.err
    assert json.loads((tmp_path / "broken" / "run.json").read_text())["status"] == "gate failed"
    load_quantized(tmp_path / "broken")


def test_without_a_student_the_option_is_named(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run_verb(capsys, "quantize", "--data", scenes, "--out", tmp_path / "runs")
    assert "--student RUN" in only_line(done)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.size=96", "data.size=64"),
        ("data.validation=0", "needs a validation split"),
        ("max_drop=2", "max_drop"),
        ("max_drop=-0.1", "max_drop"),
        ("ptq.presett=mixed", "did you mean 'preset'"),
        ("loss.variant=kdas", "needs a teacher"),
        ("calibration.source=nowhere", "nowhere"),
        ("student=nowhere", "nowhere"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_left(
    override: str,
    expected: str,
    checkpoint: Path,
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    values = [override, *(TUNE if "loss" in override else [])]
    student = [] if override.startswith("student=") else ["--student", checkpoint]
    done = run_verb(
        capsys, "quantize", *student, "--data", scenes, "--out", tmp_path / "runs", *FAST, *values
    )
    assert expected in only_line(done)
    assert not (tmp_path / "runs").exists()


def test_a_run_that_exists_is_not_overwritten(
    checkpoint: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    done = run_verb(
        capsys,
        "quantize",
        "--student",
        checkpoint,
        "--data",
        scenes,
        "--out",
        tmp_path,
        "--name",
        "mine",
    )
    assert "--overwrite" in only_line(done)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
