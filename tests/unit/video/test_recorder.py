import shutil
from collections import namedtuple

import cv2
import numpy as np
import pytest

from kdas_edge.errors import UserError
from kdas_edge.video.recorder import Recorder


def grey(level: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def levels(path) -> list[int]:
    capture, found = cv2.VideoCapture(str(path)), []
    while True:
        good, frame = capture.read()
        if not good:
            return found
        found.append(round(float(frame.mean())))


def test_a_recording_has_every_frame_at_the_rate_of_the_source(tmp_path):
    recorder = Recorder(tmp_path / "new/a.mp4", 20)
    for index in range(10):
        recorder.add(grey(20 * index), index / 20)
        assert not (tmp_path / "new/a.mp4").exists()
    assert recorder.finish() and recorder.frames == 10
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.mp4"]
    capture = cv2.VideoCapture(str(tmp_path / "new/a.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == 20
    np.testing.assert_allclose(levels(tmp_path / "new/a.mp4"), 20 * np.arange(10), atol=5)


def test_where_frames_were_dropped_the_one_before_stands_longer(tmp_path):
    recorder = Recorder(tmp_path / "a.mp4", 10)
    for level, seconds in ((10, 0.0), (50, 0.11), (100, 0.5), (150, 0.6)):
        recorder.add(grey(level), seconds)
    recorder.finish()
    # 0.0 … 0.6 s in tenths
    found = levels(tmp_path / "a.mp4")
    assert len(found) == 7
    np.testing.assert_allclose(found, [10, 50, 50, 50, 50, 100, 150], atol=6)


def test_a_source_that_was_away_for_long_leaves_two_seconds(tmp_path):
    recorder = Recorder(tmp_path / "a.mp4", 10)
    recorder.add(grey(10), 0)
    recorder.add(grey(200), 3600)
    recorder.add(grey(200), 3600.1)
    recorder.finish()
    found = levels(tmp_path / "a.mp4")
    assert len(found) == 23
    assert max(found[:21]) < 20 and min(found[21:]) > 180


def test_a_source_that_is_faster_than_it_told_is_not_slowed_down(tmp_path):
    recorder = Recorder(tmp_path / "a.mp4", 25)
    for index in range(61):  # two seconds of 30 frames each
        recorder.add(grey(10), index / 30)
    recorder.finish()
    assert abs(len(levels(tmp_path / "a.mp4")) - 51) <= 1


def test_a_clock_that_is_put_back_stops_nothing(tmp_path):
    recorder = Recorder(tmp_path / "a.mp4", 10)
    for seconds in (3600.0, 3600.1, 0.0, 0.1, 0.2):
        recorder.add(grey(10), seconds)
    recorder.finish()
    assert len(levels(tmp_path / "a.mp4")) == 5


def test_frames_of_another_size_are_fitted(tmp_path):
    recorder = Recorder(tmp_path / "a.mp4", 10)
    recorder.add(grey(40), 0)
    recorder.add(grey(90, 100, 60), 0.1)
    assert recorder.finish()
    np.testing.assert_allclose(levels(tmp_path / "a.mp4"), [40, 90], atol=3)


def test_no_frame_no_file(tmp_path):
    recorder = Recorder(tmp_path / "a.mp4", 25)
    assert not recorder.finish()
    recorder.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_exists_is_kept_unless_overwritten_and_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text("old")
    with pytest.raises(UserError, match="--overwrite"):
        Recorder(path, 25)
    recorder = Recorder(path, 25, overwrite=True)
    recorder.add(grey(10), 0)
    recorder.discard()
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    again = Recorder(path, 25, overwrite=True)
    again.add(grey(10), 0)
    assert again.finish() and len(levels(path)) == 1


def test_what_is_not_whole_is_not_kept(tmp_path):
    recorder = Recorder(tmp_path / "a.mp4", 25)
    for index in range(5):
        recorder.add(grey(10), index / 25)
    # as a full disk would: less arrives than was written
    recorder.frames += 3
    with pytest.raises(UserError, match="5 of 8 frames reached the disk"):
        recorder.finish()
    assert list(tmp_path.iterdir()) == []


def test_recording_ends_while_there_is_still_room_on_the_disk(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 10 * 2**20))
    recorder = Recorder(tmp_path / "a.mp4", 25)
    for index in range(60):
        recorder.add(grey(10), index / 25)
    assert recorder.frames == 25 and "only 10 MB are free" in recorder.full
    assert recorder.finish() and len(levels(tmp_path / "a.mp4")) == 25


@pytest.mark.parametrize("name", ["a.avi", "a", "a.mp4/b.mp4"])
def test_names_that_cannot_be_are_refused(tmp_path, name):
    (tmp_path / "a.mp4").write_text("a file")
    with pytest.raises(UserError, match=r"let the name end in \.mp4|cannot write"):
        Recorder(tmp_path / name, 25)


@pytest.mark.parametrize("fps", [0.1, 7.3, 23.976, 29.97002997, 59.94006, 119.88011988, 1000.0])
def test_frame_rates_that_mpeg_4_cannot_say_are_recorded_at_the_nearest(tmp_path, fps):
    recorder = Recorder(tmp_path / "a.mp4", fps)
    for index in range(6):
        recorder.add(grey(30 * index), index / fps)
    assert recorder.finish() and recorder.frames == 6
    capture = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(fps, rel=1e-4)
    np.testing.assert_allclose(levels(tmp_path / "a.mp4"), 30 * np.arange(6), atol=6)
