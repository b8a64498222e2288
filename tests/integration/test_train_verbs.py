"""`train` and `distill` as a person calls them, and what happens when the person is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TINY = [
    "data.size=64",
    "data.validation=0.2",
    "model.backbone=test_efficientnet",
    "model.width=8",
    "schedule.epochs=1",
    "schedule.batch_size=4",
    "engine.threads=1",
]


def call(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kdas_edge", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def home(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained teacher in runs/teacher."""
    folder = tmp_path_factory.mktemp("home")
    answer = call(
        "train", "--data", scenes, "--name", "teacher", *TINY, "--json", "t.json", cwd=folder
    )
    assert answer.returncode == 0, answer.stderr
    return folder


@pytest.mark.slow
def test_a_teacher_and_its_student_are_trained_and_the_next_command_is_printed(
    home: Path, scenes: Path
) -> None:
    assert json.loads((home / "t.json").read_text())["parameters"] > 0
    answer = call(
        "distill",
        "--teacher",
        "runs/teacher",
        "--data",
        scenes,
        *TINY,
        "--json",
        "s.json",
        cwd=home,
    )
    assert answer.returncode == 0, answer.stderr
    assert "multiply-accumulates" in answer.stderr
    assert "next: kdas-edge eval runs/student" in answer.stdout
    summary = json.loads((home / "s.json").read_text())
    assert summary["kind"] == "distill"
    row = summary["history"][0]
    assert row["attention"] > 0 and row["sgm"] >= 0
    shares = [row["share_segmentation"], row["share_attention"], row["share_sgm"]]
    assert sum(shares) == pytest.approx(1)
    answer = call("info", "runs/student", "--json", "i.json", cwd=home)
    assert answer.returncode == 0, answer.stderr
    told = json.loads((home / "i.json").read_text())
    assert told["kind"] == "distill" and told["lineage"]["teacher"] == "runs/teacher"
    assert told["numbers"]["parameters"] == summary["parameters"]
    assert told["accuracy"][0]["value"] == summary["best_validation_dice"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--data", "absent", *TINY], "absent is not a folder"),
        (["train", *TINY], "'data.root' is missing"),
        (["train", "--data", "DATA", *TINY, "schedule.epoch=3"], "did you mean 'epochs'"),
        (["train", "--data", "DATA", *TINY, "model.backbone=pvt_v2_b9"], "pvt_v2_b"),
        (
            ["train", "--data", "DATA", *TINY, "model.backbone=vit_tiny_patch16_224"],
            "without a fixed size",
        ),
        (["train", "--data", "DATA", *TINY, "teacher=x"], "use `kdas-edge distill`"),
        (["train", "--data", "DATA", "--name", "teacher", *TINY], "--overwrite"),
        (["train", "--data", "DATA", "--name", "../x", *TINY], "not a folder name"),
        (["train", "--recipe", "absent.yaml"], "absent.yaml"),
        (["distill", "--data", "DATA", *TINY], "needs a teacher"),
        (
            ["distill", "--data", "DATA", "--teacher", "truncated", "--name", "s2", *TINY],
            "truncated",
        ),
        (["distill", "--data", "DATA", "--teacher", "nowhere", "--name", "s2", *TINY], "nowhere"),
    ],
)
def test_a_wrong_input_is_one_line_with_exit_code_2_and_leaves_nothing(
    home: Path, scenes: Path, arguments: list[str], message: str
) -> None:
    (home / "truncated.safetensors").write_bytes(
        (home / "runs/teacher/checkpoints/best.safetensors").read_bytes()[:4000]
    )
    before = sorted(home.rglob("*"))
    words = {"DATA": scenes, "truncated": "truncated.safetensors"}
    answer = call(*(words.get(word, word) for word in arguments), cwd=home)
    assert answer.returncode == 2, answer.stderr
    errors = [line for line in answer.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]
    assert "Traceback" not in answer.stderr
    assert sorted(home.rglob("*")) == before


@pytest.mark.slow
def test_a_bad_mask_is_named_and_leaves_no_run(home: Path, tmp_path: Path, scenes: Path) -> None:
    import shutil

    from PIL import Image

    data = tmp_path / "data"
    shutil.copytree(scenes, data)
    mask = next((data / "TrainDataset" / "masks").iterdir())
    for spoil, message in (
        (lambda: Image.new("1", (10, 10)).save(mask), "10×10"),
        (lambda: mask.write_bytes(b""), "0 bytes"),
        (lambda: mask.write_bytes(b"no picture"), "cannot be read"),
        (mask.unlink, "has no mask"),
    ):
        spoil()
        answer = call("train", "--data", data, *TINY, "--out", tmp_path / "runs", cwd=tmp_path)
        assert answer.returncode == 2
        assert message in answer.stderr
        assert not (tmp_path / "runs").exists()
