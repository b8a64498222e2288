"""No verb writes where it reads, with or without --overwrite; what was there stays bit for bit."""

import hashlib
import os
from pathlib import Path

import cv2
import pytest
from run_verb import only_line, run_verb
from tiny_bundle import make_tiny_bundle, scene, write_discs
from tiny_student import train_tiny_student

FEW = ("schedule.epochs=1", "data.size=64", "model.backbone=test_efficientnet", "model.width=8")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_tiny_bundle(tmp_path / "bundle")
    write_discs(tmp_path / "set", 8)
    cv2.imwrite("i.png", scene(70, 90))
    train_tiny_student(steps=2).save(tmp_path / "net" / "net.safetensors")
    (tmp_path / "link").symlink_to("set")
    (tmp_path / "r.json").write_text("{}")
    return tmp_path


def everything(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize(
    "command",
    [
        "train data.root=set --out . --name set",
        "train --data link --out . --name set",
        "train data.root=set/images/.. --out set --name run",
        "distill --teacher net/net.safetensors --data set --out . --name net",
        "quantize --student net/net.safetensors --data set --out . --name net",
        "quantize --student net/net.safetensors --data set --out . --name set",
        "export net/net.safetensors --out net",
        "export bundle --layout ovms --out bundle",
        "export bundle --layout triton --out .",
        "predict i.png --json i.png",
        "predict i.png --out . --bundle bundle",
        "predict set/images --out set/images/o --bundle bundle",
        "predict i.png --jsonl bundle/manifest.json --bundle bundle",
        "verify bundle --json bundle/manifest.json",
        "verify bundle --report bundle/report",
        "bench bundle --data set --csv set/images/0.png",
        "eval bundle --data set --maps-out set/maps",
        "data prepare set link",
        "data check set --json set/masks/0.png",
        "data corrupt i.png --out i.png",
        "calibrate set --out set",
        "report r.json --json r.json",
    ],
)
def test_an_output_that_is_an_input_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], command: str, overwrite: bool
) -> None:
    words = command.split()
    if words[0] in ("train", "distill"):
        words += FEW
    from kdas_edge.cli import app  # the verbs without the option replace nothing

    import typer  # isort: skip

    verb = typer.main.get_command(app)
    for word in words[: 2 if words[0] == "data" else 1]:
        verb = verb.commands[word]  # type: ignore[attr-defined]
    if overwrite and any("--overwrite" in one.opts for one in verb.params):
        words.append("--overwrite")
    before = everything(here)
    line = only_line(run_verb(capsys, *words))
    assert "which is read" in line or "not empty" in line or "exists" in line
    assert not overwrite or "which is read" in line
    assert everything(here) == before and os.getcwd() == str(here)  # noqa: PTH109


@pytest.mark.parametrize("verb", ["train", "quantize"])
def test_a_run_is_not_overwritten_by_the_recipe_that_it_holds(
    here: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    run = here / "runs" / "r"
    run.mkdir(parents=True)
    student = "student: net/net.safetensors\n" if verb == "quantize" else "schedule: {epochs: 1}\n"
    (run / "recipe.yaml").write_text(f"name: r\ndata: {{root: set, size: 64}}\n{student}")
    (run / "run.json").write_text('{"kind": "train", "status": "finished"}')
    before = everything(here)
    line = only_line(run_verb(capsys, verb, "--recipe", run / "recipe.yaml", "--overwrite"))
    assert "runs/r holds" in line and "recipe.yaml, which is read" in line
    assert everything(here) == before
