"""`kdas-edge data …` as a person calls it: exit codes, one clear line, nothing left behind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image


def _data(*arguments: object) -> subprocess.CompletedProcess[str]:
    call = "from kdas_edge.cli import main; main()"
    command = [sys.executable, "-c", call, "data", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_a_set_is_drawn_checked_and_prepared(tmp_path: Path) -> None:
    drawn, copy = tmp_path / "drawn", tmp_path / "copy"
    sizes = ["--train", 6, "--test", 2, "--size", 64]
    done = _data("synth", drawn, *sizes, "--json", tmp_path / "s.json")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "s.json").read_text())["train"] == 6

    done = _data("check", drawn, "--json", tmp_path / "c.json")
    assert done.returncode == 0, done.stderr
    assert "Synthetic" in done.stdout
    assert json.loads((tmp_path / "c.json").read_text())["errors"] == 0

    done = _data("prepare", drawn, copy, "--size", 32, "--json", tmp_path / "p.json")
    assert done.returncode == 0, done.stderr
    assert "data.size=32" in done.stderr  # the next command
    assert json.loads((tmp_path / "p.json").read_text())["sets"]["train"]["images"] == 6
    with Image.open(copy / "TrainDataset" / "images" / "00001.jpg") as image:
        assert image.size == (32, 32)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("check", "{tmp}/absent"), "not a folder"),
        (("prepare", "{tmp}/absent", "{tmp}/out"), "not a folder"),
        (("prepare", "{data}", "{tmp}/full", "--size", "32"), "--overwrite"),
        (("synth", "{tmp}/full", "--train", "1", "--test", "0", "--size", "32"), "--overwrite"),
        (("synth", "{tmp}/full/file/out", "--train", "1", "--size", "32"), "cannot write"),
    ],
)
def test_a_persons_error_is_one_line_and_exit_code_2(
    scenes: Path, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    done = _data(*(text.format(tmp=tmp_path, data=scenes) for text in arguments))
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "full"]


def test_a_check_shows_its_table_before_it_fails(scenes: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
        for path in sorted((scenes / "TrainDataset" / kind).iterdir())[:4]:
            (root / kind / path.name).write_bytes(path.read_bytes())
    first = next((root / "images").iterdir())
    (root / "images" / "copy.jpg").write_bytes(first.read_bytes())
    (root / "masks" / "copy.png").write_bytes((root / "masks" / f"{first.stem}.png").read_bytes())
    assert _data("check", root).returncode == 0
    done = _data("check", root, "--strict")
    assert done.returncode == 2
    assert "exact duplicate" in done.stderr

    (root / "masks" / "copy.png").write_bytes(b"")
    done = _data("check", root, "--json", tmp_path / "report.json")
    assert done.returncode == 2
    assert "unreadable mask" in done.stdout
    assert "masks/copy.png" in done.stderr
    assert json.loads((tmp_path / "report.json").read_text())["errors"] == 1
