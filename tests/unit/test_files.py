"""Writing: a reader sees the whole of the old or the whole of the new, and nothing else stays."""

import subprocess
import sys
from pathlib import Path

import pytest

from kdas_edge.errors import UserError
from kdas_edge.files import (
    check_output_directory,
    check_output_file,
    read_json,
    sha256,
    staged_directory,
    write_bytes_atomic,
    write_json,
)


def test_a_failed_block_leaves_no_directory(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), staged_directory(tmp_path / "out") as staging:
        (staging / "half").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_failed_replacement_keeps_the_old_directory(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("old")
    with pytest.raises(RuntimeError), staged_directory(out, overwrite=True) as staging:
        (staging / "new").write_text("new")
        raise RuntimeError
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "old"]


def test_a_replacement_leaves_only_the_new(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("old")
    with staged_directory(out, overwrite=True) as staging:
        (staging / "new").write_text("new")
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "new"]


def test_a_folder_with_content_is_refused_and_an_empty_one_is_not(tmp_path: Path) -> None:
    check_output_directory(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="--overwrite"):
        check_output_directory(tmp_path)
    with pytest.raises(UserError, match="is a file"):
        check_output_directory(tmp_path / "file")


def test_a_written_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    write_json(tmp_path / "ours.json", {"a": 1})
    (tmp_path / "other.json").write_text("")
    modes = {p.stat().st_mode for p in tmp_path.iterdir()}
    assert len(modes) == 1
    assert read_json(tmp_path / "ours.json") == {"a": 1}


def test_a_folder_below_a_file_cannot_be_written_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot write"):
        write_json(tmp_path / "file" / "a.json", {})
    with (
        pytest.raises(UserError, match="cannot write"),
        staged_directory(tmp_path / "file" / "out"),
    ):
        pass


_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from kdas_edge.errors import UserError
from kdas_edge.files import write_bytes_atomic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_bytes_atomic(Path(sys.argv[1]), b"x" * 5000)
except UserError as error:
    print(error)
"""


def test_a_disk_that_fills_up_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    # a limit on the size of files stands in for the full disk
    path = tmp_path / "result"
    write_bytes_atomic(path, b"old")
    answer = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(path)], capture_output=True, text=True, check=True
    )
    assert "cannot write" in answer.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["result"]
    assert path.read_bytes() == b"old"


def test_an_output_file_that_cannot_be_written_is_refused_early_and_nothing_is_left(
    tmp_path: Path,
) -> None:
    check_output_file(tmp_path / "new/folders/out.json")
    (tmp_path / "file").write_text("x")
    for path, words in (
        (tmp_path, "is a folder"),
        (tmp_path / "file/out.json", "cannot write"),
        (Path("/proc/out.json"), "cannot write"),
    ):
        with pytest.raises(UserError, match=words):
            check_output_file(path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_json_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(UserError, match=r"a\.json is not a JSON file"):
        read_json(tmp_path / "a.json")
    with pytest.raises(UserError, match="cannot read"):
        read_json(tmp_path / "b.json")


def test_the_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert sha256(tmp_path / "empty").startswith("e3b0c44298fc1c149afbf4c8996fb924")


def test_json_is_written_with_plain_lists_and_short_objects_on_one_line(tmp_path: Path) -> None:
    value = {
        "samples": [1.5, None, "ä"],
        "rows": [{"name": "a", "dice": {"mean": 0.5}}, {}, []],
        "long": {"text": "x" * 500},
        "numbers": {str(number): number for number in range(200)},
        3: True,
    }
    path = tmp_path / "value.json"
    write_json(path, value)
    assert read_json(path) == {**{k: v for k, v in value.items() if k != 3}, "3": True}
    lines = path.read_text().splitlines()
    assert '  "samples": [1.5, null, "ä"],' in lines
    assert '      "dice": {"mean": 0.5}' in lines
    assert len(lines) == 16
