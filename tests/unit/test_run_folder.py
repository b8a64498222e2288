"""Run folders: what a kill, a second start or another process may do to them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kdas_edge.errors import UserError
from kdas_edge.recipe import TrainRecipe, load_recipe
from kdas_edge.run import Run, check_run_directory, only_writer, open_run


def recipe(name: str = "r") -> TrainRecipe:
    return load_recipe(
        TrainRecipe, {"name": name, "data": {"root": "d"}, "schedule": {"epochs": 1}}, []
    )


def test_a_run_killed_between_its_first_files_can_be_resumed(tmp_path: Path) -> None:
    run = Run.create(tmp_path, recipe())
    (run.path / "run.json").unlink()
    (run.path / "environment.json").unlink()
    resumed = Run.create(tmp_path, recipe(), resume=True, kind="distill")
    assert resumed.state()["kind"] == "distill"
    assert open_run(run.path)[1] == recipe()


def test_a_run_appears_only_when_its_first_files_are_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kdas_edge.run.environment.describe", killed)
    with pytest.raises(KeyboardInterrupt):
        Run.create(tmp_path, recipe())
    assert list(tmp_path.iterdir()) == []


def test_resuming_a_run_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("absent", "empty"):
        with pytest.raises(UserError, match=r"no run that could be resumed; leave --resume out"):
            check_run_directory(tmp_path, recipe(name), resume=True)
        with pytest.raises(UserError, match="leave --resume out"):
            Run.create(tmp_path, recipe(name), resume=True)
    assert not (tmp_path / "absent").exists()


def test_after_an_interruption_resume_is_offered_before_overwrite(tmp_path: Path) -> None:
    run = Run.create(tmp_path, recipe())
    for status in ("running", "interrupted"):
        run.update(status=status)
        with pytest.raises(UserError, match=r"--resume .*--overwrite"):
            check_run_directory(tmp_path, recipe())
    run.update(status="finished")
    with pytest.raises(UserError) as caught:
        check_run_directory(tmp_path, recipe())
    assert "--resume" not in str(caught.value) and "--overwrite" in str(caught.value)
    Run.create(tmp_path, recipe(), overwrite=True)
    assert run.state()["status"] == "running"


def test_half_a_line_of_the_curves_is_read_past(tmp_path: Path) -> None:
    run = Run.create(tmp_path, recipe())
    for step in (1, 2):
        run.record({"epoch": step, "step": step, "loss": 0.5})
    file = run.path / "metrics.jsonl"
    file.write_bytes(file.read_bytes()[:-9])
    assert [row["step"] for row in run.history()] == [1]
    run.rewind(2)
    run.record({"epoch": 2, "step": 2, "loss": 0.25})
    assert [json.loads(line)["loss"] for line in file.read_text().splitlines()] == [0.5, 0.25]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b", "x" * 5000])
def test_a_name_that_is_no_folder_name_is_one_short_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="not a folder name") as caught:
        Run.create(tmp_path, recipe(name))
    assert len(str(caught.value)) < 300


def test_a_second_process_on_a_run_is_refused_and_the_first_is_named(tmp_path: Path) -> None:
    held = (
        "import sys, pathlib\n"
        "from kdas_edge.recipe import TrainRecipe, load_recipe\n"
        "from kdas_edge.run import only_writer\n"
        "recipe = load_recipe(TrainRecipe, None, ['name=r', 'data.root=d', 'schedule.epochs=1'])\n"
        "with only_writer(pathlib.Path(sys.argv[1]), recipe):\n"
        "    print('held', flush=True)\n"
        "    input()\n"
    )
    command = [sys.executable, "-c", held, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None and first.stdin is not None
        assert first.stdout.readline() == b"held\n"
        with (
            pytest.raises(UserError, match=f"being written by process {first.pid}"),
            only_writer(tmp_path, recipe()),
        ):
            pass
        first.communicate(b"\n")
    with only_writer(tmp_path, recipe()):
        assert first.returncode == 0


def test_a_run_never_replaces_what_it_reads(tmp_path: Path) -> None:
    (tmp_path / "r" / "images").mkdir(parents=True)
    data = recipe().model_copy(
        update={"data": recipe().data.model_copy(update={"root": str(tmp_path / "r")})}
    )
    sources = ["data.root=d", "schedule.epochs=1", f"data.sources=[{tmp_path / 'r' / 'images'}]"]
    more = load_recipe(TrainRecipe, {"name": "r"}, sources)
    teacher = recipe().model_copy(update={"teacher": str(tmp_path / "r" / "images")})
    for changed in (data, more, teacher):
        with pytest.raises(UserError, match="which is read; choose another output"):
            Run.create(tmp_path, changed, overwrite=True)
    assert (tmp_path / "r" / "images").is_dir()
