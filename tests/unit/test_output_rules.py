"""Outputs: what is no regular file is never replaced, no input is lost, one process writes."""

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kdas_edge.errors import UserError
from kdas_edge.files import (
    check_inputs_kept,
    check_output_directory,
    check_output_file,
    lock,
    read_json,
    read_json_lines,
    staged_directory,
    sweep,
    temporary,
    temporary_path,
    write_bytes_atomic,
    write_json,
)


def test_a_pipe_is_written_into_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    check_output_file(pipe)
    write_json(pipe, {"a": 1})
    reader.join()
    assert json.loads(got[0]) == {"a": 1}
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_pipe_that_nobody_reads_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdas_edge.files.writing._PIPE_SECONDS", 0.1)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="cannot write"):
        write_json(tmp_path / "pipe", {})


def test_a_copy_of_the_null_device_stays_one(tmp_path: Path) -> None:
    device = tmp_path / "null"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        device.open("wb").close()
    except OSError:
        pytest.skip("no right to make a device here")
    check_output_file(device)
    write_bytes_atomic(device, b"x" * 100_000)
    assert stat.S_ISCHR(device.stat().st_mode)
    with pytest.raises(UserError, match="a device"):
        check_output_directory(device, overwrite=True)


def test_the_file_that_a_link_names_is_written_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "real.json", tmp_path / "link.json"
    target.write_text("old")
    link.symlink_to(target)
    write_json(link, [1])
    assert link.is_symlink() and read_json(target) == [1]
    link.unlink()
    link.symlink_to(tmp_path / "far" / "new.json")
    write_json(link, [2])
    assert link.is_symlink() and read_json(tmp_path / "far" / "new.json") == [2]


def test_a_linked_folder_is_replaced_behind_its_link(tmp_path: Path) -> None:
    target, link = tmp_path / "real", tmp_path / "link"
    target.mkdir()
    (target / "old").write_text("old")
    link.symlink_to(target)
    with staged_directory(link, overwrite=True) as staging:
        (staging / "new").write_text("new")
    assert link.is_symlink() and [p.name for p in target.iterdir()] == ["new"]


def test_the_working_folder_is_filled_and_stays_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = tmp_path.stat().st_ino
    with staged_directory(Path()) as staging:
        (staging / "a").mkdir()
        (staging / "a" / "b").write_text("b")
    assert tmp_path.stat().st_ino == before
    assert [p.name for p in tmp_path.rglob("*")] == ["a", "b"]
    with pytest.raises(UserError, match="working folder"):
        check_output_directory(Path(), overwrite=True)
    with pytest.raises(UserError, match="working folder"):
        check_output_directory(tmp_path.parent, overwrite=True)
    check_output_directory(Path(), overwrite=True, replaces=False)


def test_a_folder_that_cannot_be_renamed_is_filled_and_gets_its_content_back_on_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "mount"
    out.mkdir()
    (out / "old").write_text("old")
    monkeypatch.setattr(Path, "is_mount", lambda path: path == out)
    with staged_directory(out, overwrite=True) as staging:
        (staging / "new").write_text("new")
    assert [p.name for p in out.rglob("*")] == ["new"]

    rename = Path.rename

    def fails(path: Path, to: Path) -> Path:
        if path.name == "second":
            raise OSError(28, "No space left on device")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", fails)
    with (
        pytest.raises(UserError, match="before is kept"),
        staged_directory(out, overwrite=True) as staging,
    ):
        (staging / "second").write_text("x")
    assert [p.name for p in out.rglob("*")] == ["new"]


def test_a_failed_swap_puts_the_old_folder_back_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("old")
    rename = Path.rename

    def fails(path: Path, to: Path) -> Path:
        if to == out and "-old." not in path.name:
            raise OSError(5, "Input/output error")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", fails)
    with (
        pytest.raises(UserError, match="before is kept"),
        staged_directory(out, overwrite=True) as staging,
    ):
        (staging / "new").write_text("new")
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "old"]


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("data", "is"),
        (".", "holds"),
        ("data/out", "lies inside"),
        ("data/images/1.png", "lies inside"),
        ("link", "is"),
        ("link/out.json", "lies inside"),
        ("hard.png", "is"),
    ],
)
def test_an_output_that_is_holds_or_lies_inside_an_input_is_refused(
    tmp_path: Path, output: str, words: str
) -> None:
    image = tmp_path / "data" / "images" / "1.png"
    image.parent.mkdir(parents=True)
    image.write_text("image")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    (tmp_path / "hard.png").hardlink_to(image)
    inputs = [tmp_path / "data", image, tmp_path / "absent"]
    with pytest.raises(UserError, match=f"{words} .*which is read"):
        check_inputs_kept(tmp_path / output, inputs)
    check_inputs_kept(tmp_path / "data2", inputs)


def test_names_that_no_file_system_takes_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("a\0b", "n" * 300, "loop", "loop/x"):
        for check in (check_output_file, check_output_directory):
            with pytest.raises(UserError, match="cannot write") as caught:
                check(tmp_path / name)
            assert "\n" not in str(caught.value) and "\0" not in str(caught.value)
    with pytest.raises(UserError, match="cannot read"):
        read_json(tmp_path / "a\0b")


def test_a_name_of_the_longest_length_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 125 + ".json")
    write_json(path, [1])
    assert read_json(path) == [1] and list(tmp_path.iterdir()) == [path]


def test_a_file_name_that_is_not_utf8_survives_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"pr\xe9cision.png")
    write_json(tmp_path / "a.json", {"name": name})
    (tmp_path / "a.json").read_bytes().decode()  # the file itself is UTF-8
    assert read_json(tmp_path / "a.json") == {"name": name}


def test_json_that_could_exhaust_the_reader_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text in ("[" * 100_000, "[" * 100 + "]" * 100, '{"a":' * 5000, "9" * 5000):
        path.write_text(text)
        with pytest.raises(UserError, match="again"):
            read_json(path)
    path.write_text("[1, 2, 3]")
    with pytest.raises(UserError, match="at most 5"):
        read_json(path, largest=5)
    os.mkfifo(tmp_path / "pipe")
    for odd in ("pipe", ".", "/dev/zero"):
        with pytest.raises(UserError):
            read_json(tmp_path / odd)


def test_a_line_that_was_cut_is_read_past(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b'{"a": 1}\n{"a": 2\n\xff\xfe\n{"a": 3}\n{"a"')
    assert read_json_lines(tmp_path / "log") == [{"a": 1}, {"a": 3}]


_HOLDER = """
import sys, time
from pathlib import Path
from kdas_edge.files import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_and_told_which_one_writes(tmp_path: Path) -> None:
    out = tmp_path / "new" / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(out)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"process {holder.pid} "), lock(out):
            pass
    finally:
        holder.kill()
        holder.wait()
    # killed: what it left is taken over, and goes
    with lock(out), lock(out):
        assert len(list(out.parent.iterdir())) == 1
    assert list(tmp_path.iterdir()) in ([], [out.parent])


def test_a_lock_leaves_neither_files_nor_folders(tmp_path: Path) -> None:
    with lock(tmp_path / "a" / "b" / "out.json"):
        pass
    assert list(tmp_path.iterdir()) == []
    with lock(tmp_path / "a" / "out.json"):
        write_json(tmp_path / "a" / "out.json", 1)
    assert [p.name for p in tmp_path.rglob("*")] == ["a", "out.json"]


_KILLED = """
import os, sys
from pathlib import Path
from kdas_edge.files import staged_directory, temporary_path
folder = Path(sys.argv[1])
temporary_path(folder / "half.json").write_text("half")
with staged_directory(folder / "out", overwrite=True) as staging:
    (staging / "half").write_text("half")
    retired = temporary_path(folder / "lost", retired=True)
    (folder / "lost").rename(retired)
    os._exit(9)
"""


def test_what_a_killed_process_left_is_swept_and_what_it_set_aside_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporary, "_swept", set())
    (tmp_path / "lost").mkdir()
    (tmp_path / "lost" / "old").write_text("old")
    (tmp_path / "out").mkdir()
    subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], check=False)
    assert sum(p.name.startswith(".kdas-") for p in tmp_path.iterdir()) == 3
    own = temporary_path(tmp_path / "own.json")
    own.write_text("in use")
    sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == sorted([own.name, "lost", "old", "out"])
