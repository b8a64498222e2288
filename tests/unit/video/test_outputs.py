import json

import numpy as np
import pytest

from kdas_edge.errors import UserError
from kdas_edge.image_files import write_png
from kdas_edge.video.outputs import LineFile


def test_lines_can_be_followed_while_they_are_written(tmp_path):
    lines = LineFile(tmp_path / "new/a.jsonl")
    for index in range(3):
        lines.add({"index": index, "name": "Käse"})
        text = (tmp_path / "new/a.jsonl").read_text()
        assert text.endswith("\n") and len(text.splitlines()) == index + 1
    lines.close()
    assert [json.loads(line)["index"] for line in text.splitlines()] == [0, 1, 2]


def test_a_file_of_lines_that_exists_is_kept_unless_overwritten(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("old\n")
    with pytest.raises(UserError, match="--overwrite"):
        LineFile(path)
    lines = LineFile(path, overwrite=True)
    lines.add(1)
    lines.close()
    assert path.read_text() == "1\n"


def test_a_full_disk_is_one_line_for_the_person_and_leaves_no_half_line(tmp_path):
    class Full:
        """The file, on a disk with room for a few more bytes."""

        def __init__(self, file, room: int) -> None:
            self.file, self.room = file, room

        def write(self, content: bytes) -> int:
            if self.room == 0:
                raise OSError(28, "No space left on device")
            part = content[: self.room]
            self.room -= len(part)
            return self.file.write(part)

        def truncate(self, size: int) -> None:
            self.file.truncate(size)

    lines = LineFile(tmp_path / "a.jsonl")
    lines._file = Full(lines._file, 25)
    lines.add({"index": 0})
    with pytest.raises(UserError, match="No space left on device; make room"):
        lines.add({"index": 1, "boxes": [[1, 2, 3, 4]]})
    assert (tmp_path / "a.jsonl").read_text() == '{"index": 0}\n'


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        LineFile(tmp_path / "file/a.jsonl")
    with pytest.raises(UserError, match="cannot write"):
        write_png(tmp_path / "file/a.png", np.zeros((4, 4, 3), np.uint8))
