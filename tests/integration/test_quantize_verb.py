"""`quantize` as a person calls it, and what happens when the person is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from run_verb import only_line, run_verb
from tiny_student import SIZE, TinyStudent, train_tiny_student

from kdas_edge.data.dataset import load_training_data
from kdas_edge.models.checkpoints import BEST, load_network
from kdas_edge.quantize.evaluation import Evaluation, evaluate
from kdas_edge.quantize.gate import paired_interval
from kdas_edge.quantize.job import CHECKPOINT
from kdas_edge.quantize.qat import CONFIG, load_quantized
from kdas_edge.run import open_run


@pytest.fixture(scope="module")
def checkpoint(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float student that knows the scenes by heart, so that there is Dice to lose."""
    folder = tmp_path_factory.mktemp("float")
    return train_tiny_student(root=scenes).save(folder / "student.safetensors")


@pytest.fixture(scope="module")
def fragile(checkpoint: Path) -> Path:
    """The same function in float, but the weights of `cfm.out` span a range of a thousand."""
    network = load_network(checkpoint)
    with torch.no_grad():
        network.cfm.join234.bn.weight[0] /= 1000
        network.cfm.join234.bn.bias[0] /= 1000
        network.cfm.out.conv.weight[:, 0] *= 1000
    return TinyStudent(network, []).save(checkpoint.with_name("fragile.safetensors"))


def on_validation(run: Path, checkpoint: Path = BEST) -> Evaluation:
    """Score the network that a run delivers, or another of its checkpoints, as the gate did."""
    data = load_training_data(open_run(run)[1].data, SIZE)
    network = load_quantized(run, checkpoint)
    return evaluate(network, data.validation)


FAST = ["data.validation=0.2", "calibration.samples=6", "engine.threads=1", "max_drop=1"]
# what a resumed run must not make again
FINISHED = ("sensitivity.json", "latency.json", "calibration.json")
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
    assert not [path for path in run.rglob("*") if path.suffix in (".pt", ".pth", ".pkl")]

    summary = json.loads((tmp_path / "q.json").read_text())
    gate = summary["gate"]
    # which of the two is kept depends on the machine's arithmetic; by the rule it is the right one
    ptq, qat = (on_validation(run, CHECKPOINT[phase]) for phase in ("ptq", "qat"))
    data = load_training_data(open_run(run)[1].data, SIZE)
    reference = evaluate(load_network(checkpoint), data.validation)
    low, high = paired_interval(qat.dice - ptq.dice)
    closer = qat.agreement(reference) > ptq.agreement(reference)
    assert gate["kept"] == ("qat" if low > 0 or (high >= 0 and closer) else "ptq")
    for found, key in ((reference, "float"), (ptq, "ptq"), (qat, "qat")):
        assert found.mean == pytest.approx(gate[f"{key}_dice"])
    # and the run delivers that one
    kept_dice = gate[f"{gate['kept']}_dice"]
    assert gate["drop"] == pytest.approx(gate["float_dice"] - kept_dice)
    assert on_validation(run).mean == pytest.approx(kept_dice)
    network = load_quantized(run)
    assert network.architecture.size == SIZE and not network.training
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
        "mixed.largest_share=0.03",  # one layer in float does not mend it
        "mixed.images=2",
        "max_group_drop=0.001",  # should it happen to mend the mean
        "--max-drop",
        "0.001",
        "--json",
        tmp_path / "out.json",
    )
    assert done.code == 3, done.err
    assert "gate failed" in done.out and "int8 loses" in done.err
    run = tmp_path / "broken"
    assert json.loads((run / "run.json").read_text())["status"] == "gate failed"
    # everything that was tried is on disk and on screen, and the best of it is what the run holds
    tried = json.loads((run / "attempts.json").read_text())
    summary = json.loads((tmp_path / "out.json").read_text())
    assert (
        summary["attempts"] == tried == json.loads((run / "summary.json").read_text())["attempts"]
    )
    assert [row["phase"] for row in tried] == ["ptq", "ptq", "mixed"]
    assert "what was tried" in done.out and "1 of" in done.out
    assert not any(row["passed"] for row in tried)
    [kept] = [row for row in tried if row["kept"]]
    assert kept["dice"] == max(row["dice"] for row in tried)
    gate = summary["gate"]
    assert gate["drop"] == pytest.approx(kept["drop"]) and not gate["passed"]
    assert on_validation(run).mean == pytest.approx(kept["dice"], abs=1e-9)


@pytest.mark.slow
def test_the_fewest_layers_return_to_float_and_a_stopped_run_repeats_nothing(
    fragile: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["quantize", "--student", fragile, "--data", scenes, "--out", tmp_path, "--name"]
    arguments += ["mixed", *FAST, "mixed.images=4", "--max-drop", "0.01"]
    arguments += ["--json", tmp_path / "out.json"]
    done = run_verb(capsys, *arguments)
    assert done.code == 0, done.err
    summary = json.loads((tmp_path / "out.json").read_text())
    gate, mixed = summary["gate"], summary["mixed"]
    assert gate["kept"] == "mixed" and gate["passed"] and gate["drop"] <= 0.01
    assert gate["float_dice"] - gate["ptq_dice"] > 0.01
    assert (
        mixed["layers"] == [e["layer"] for e in mixed["ranking"]["effects"]][: len(mixed["layers"])]
    )
    assert "cfm.out.conv" in mixed["layers"][:2] and len(mixed["layers"]) <= mixed["of"] / 2
    # one layer fewer was tried and failed, unless it is one
    rows = [row for row in summary["attempts"] if row["phase"] == "mixed"]
    fewer = [row for row in rows if len(row["layers"]) == len(mixed["layers"]) - 1]
    assert len(mixed["layers"]) == 1 or not fewer[0]["passed"]
    assert set(mixed["latency"]["networks"]) == {"float", "int8", "mixed"}
    for text in ("layers that int8 hurts most", "by size of polyp", "threads=1", "in float"):
        assert text in done.out, text

    # killed after the ranking: what is done is read, what is missing is made
    run = tmp_path / "mixed"
    tried = json.loads((run / "attempts.json").read_text())
    (run / "summary.json").unlink()
    for name in ("best", "mixed"):
        (run / "checkpoints" / f"{name}.safetensors").unlink()
    made = {name: (run / name).stat().st_mtime_ns for name in FINISHED}
    again = run_verb(capsys, *arguments, "--resume")
    assert again.code == 0, again.err
    assert made == {name: (run / name).stat().st_mtime_ns for name in FINISHED}
    assert json.loads((run / "attempts.json").read_text()) == tried
    repeated = json.loads((tmp_path / "out.json").read_text())
    assert repeated["gate"] == gate and repeated["mixed"] == mixed
    load_quantized(run)


@pytest.mark.slow
def test_a_search_prints_all_settings_keeps_one_and_goes_on_where_it_stopped(
    checkpoint: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["quantize", "--student", checkpoint, "--data", scenes, "--out", tmp_path, "--name"]
    arguments += ["searched", *FAST, "--search", "--json", tmp_path / "out.json"]
    done = run_verb(capsys, *arguments)
    assert done.code == 0, done.err
    run = tmp_path / "searched"
    rows = json.loads((run / "attempts.json").read_text())
    assert 5 <= len(rows) <= 10 and sum(row["kept"] for row in rows) == 1
    for word in ("per tensor", "per channel", "performance", "histogram", "no bias correction"):
        assert word in done.out, word
    [kept] = [row for row in rows if row["kept"]]
    assert max(0, kept["drop"]) <= max(0, min(row["drop"] for row in rows)) + 0.0011
    setting = json.loads((run / "calibration.json").read_text())["setting"]
    assert setting == kept["setting"]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "best.safetensors",
        "float.safetensors",
        "ptq.safetensors",
    ]
    gate = json.loads((tmp_path / "out.json").read_text())["gate"]
    assert gate["ptq_dice"] == pytest.approx(kept["dice"])

    # stopped when the last two settings were missing
    (run / CONFIG).unlink()
    (run / "checkpoints" / "ptq.safetensors").rename(
        run / "checkpoints" / f"tried_{kept['ranges']}.safetensors"
    )
    (run / "attempts.json").write_text(json.dumps(rows[:-2]))
    again = run_verb(capsys, *arguments, "--resume")
    assert again.code == 0, again.err
    after = json.loads((run / "attempts.json").read_text())
    assert after[:-2] == rows[:-2]
    assert [row["label"] for row in after] == [row["label"] for row in rows]
    for new, old in zip(after[-2:], rows[-2:], strict=True):
        assert new["dice"] == pytest.approx(old["dice"])


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
        ("max_group_drop=-1", "max_group_drop"),
        ("ptq.ignored=[backbone.nose]", "ptq.ignored"),
        ("ptq.range_estimator=best", "ptq.range_estimator"),
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
