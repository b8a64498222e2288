import cv2
import numpy as np
import pytest
from run_verb import only_line, run_verb

from kdas_edge.data.contact_sheet import contact_sheet
from kdas_edge.data.corruptions import corrupt
from kdas_edge.data.synthetic import scene


@pytest.fixture(scope="module")
def frame():
    return scene(3, 96, polyp=True)[0]


def test_the_sheet_shows_the_clean_image_and_the_strengths_as_a_benchmark_sees_them(frame):
    sheet = contact_sheet(frame, ["smoke", "noise"], "case", seed=4, width=96)
    assert sheet.shape == (2 * (96 + 26), 4 * 100, 3)
    assert (sheet[22:118, :96] == frame).all()
    last = sheet[122 + 22 : 122 + 118, 300:396]
    assert (last == corrupt(frame, "noise", 3, "case", seed=4)).all()


def test_the_verb_writes_the_picture(frame, tmp_path, capsys):
    source, out = tmp_path / "case.png", tmp_path / "sheet.png"
    cv2.imwrite(str(source), frame[..., ::-1])
    done = run_verb(
        capsys, "data", "corrupt", source, "--out", out, "--width", 64, "--corruptions", "smoke"
    )
    assert done.code == 0, done.err
    written = np.ascontiguousarray(cv2.imread(str(out))[..., ::-1])
    assert (written == contact_sheet(frame, ["smoke"], "case", width=64)).all()


def test_wrong_arguments_are_one_line_and_nothing_is_written(frame, tmp_path, capsys):
    source = tmp_path / "case.png"
    cv2.imwrite(str(source), frame)
    for arguments, words in (
        ([source, "--out", tmp_path / "sheet.pdf"], "end it in .png"),
        ([source, "--out", tmp_path / "s.png", "--corruptions", "fog"], "no corruption 'fog'"),
        ([tmp_path / "absent.png", "--out", tmp_path / "s.png"], "does not exist"),
    ):
        assert words in only_line(run_verb(capsys, "data", "corrupt", *arguments))
    assert list(tmp_path.iterdir()) == [source]
