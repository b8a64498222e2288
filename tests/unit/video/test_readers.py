import threading
import time

import numpy as np
import pytest
from PIL import Image
from tiny_bundle import scene
from video_files import clip, write_video

from kdas_edge.errors import UserError
from kdas_edge.video.camera import as_bgr
from kdas_edge.video.readers import FileReader, FolderReader


def read(reader, stop=None):
    try:
        return list(reader.frames(stop or threading.Event()))
    finally:
        reader.close()


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv", "a.ts"])
def test_every_frame_of_a_file_comes_in_order_at_its_time(tmp_path, name):
    frames = clip(30)
    for index, frame in enumerate(frames):
        frame[:12, :12] = 8 * index  # a number that survives coding
    reader = FileReader(write_video(tmp_path / name, frames, fps=20))
    assert reader.fps == 20 and reader.size == (48, 64) and not reader.live
    found = read(reader)
    assert [frame.index for frame in found] == list(range(30)) and reader.problem is None
    np.testing.assert_allclose([frame.seconds for frame in found], np.arange(30) / 20, atol=1e-3)
    marks = [float(frame.image[2:9, 2:9].mean()) for frame in found]
    np.testing.assert_allclose(marks, 8 * np.arange(30), atol=4)
    assert found[0].image.dtype == np.uint8 and found[0].image.shape == (48, 64, 3)


def test_a_given_frame_rate_overrides_that_of_the_file(tmp_path):
    reader = FileReader(write_video(tmp_path / "a.avi", clip(5), fps=20), fps=50)
    assert [frame.seconds for frame in read(reader)] == [0, 0.02, 0.04, 0.06, 0.08]


@pytest.mark.parametrize("name", ["a.avi", "a.mkv"])
def test_a_truncated_file_gives_what_is_there_and_says_so(tmp_path, name):
    path = write_video(tmp_path / name, clip(60))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    reader = FileReader(path)
    found = read(reader)
    assert 5 < len(found) < 50
    assert f"truncated: {len(found)} of 60 frames" in reader.problem


def test_a_container_that_only_guesses_its_length_is_not_taken_for_truncated(tmp_path):
    # one frame in ten seconds: a transport stream tells duration × rate, ten times too many
    reader = FileReader(write_video(tmp_path / "slow.ts", clip(20), fps=0.1, codec="mp4v"))
    assert reader.expected > 100
    assert len(read(reader)) == 20 and reader.problem is None


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("empty.mp4", b"", "is empty"),
        ("noise.mp4", bytes(range(256)) * 40, "cannot be opened as a video"),
        ("text.avi", b"this is no video\n" * 100, "cannot be opened as a video"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path, name, content, word):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=word):
        FileReader(tmp_path / name)


def test_a_video_cut_off_before_its_index_is_refused_with_the_reason(tmp_path):
    path = write_video(tmp_path / "a.mp4", clip(30))
    path.write_bytes(path.read_bytes()[:-800])
    with pytest.raises(UserError, match="cut off before its index"):
        FileReader(path)


def test_a_file_without_any_frame_that_can_be_decoded_is_an_error(tmp_path):
    path = write_video(tmp_path / "a.avi", clip(30))
    content = path.read_bytes()
    start = content.index(b"movi")
    path.write_bytes(content[:start] + bytes(len(content) - start))
    with pytest.raises(UserError, match=r"no frame that can be decoded|cannot be opened"):
        read(FileReader(path))


def test_at_its_own_pace_a_file_takes_its_time_and_late_frames_are_skipped(tmp_path):
    reader = FileReader(write_video(tmp_path / "a.avi", clip(20), fps=50), realtime=True)
    assert reader.live
    begun = time.perf_counter()
    found = []
    for frame in reader.frames(threading.Event()):
        found.append(frame)
        if len(found) == 3:
            time.sleep(0.15)  # who takes the frames is late for seven of them
    took = time.perf_counter() - begun
    reader.close()
    assert took > 0.3
    assert reader.skipped >= 3 and len(found) + reader.skipped == 20
    assert reader.problem is None


def test_a_gap_in_the_time_stamps_is_not_waited_out(tmp_path, monkeypatch):
    monkeypatch.setattr("kdas_edge.video.readers.LONGEST_WAIT", 0.05)
    reader = FileReader(
        write_video(tmp_path / "a.ts", clip(4), fps=0.1, codec="mp4v"), realtime=True
    )
    begun = time.perf_counter()
    assert len(read(reader)) == 4
    assert time.perf_counter() - begun < 5


def test_stop_ends_the_reading(tmp_path):
    reader = FileReader(write_video(tmp_path / "a.avi", clip(30)))
    stop = threading.Event()
    frames = reader.frames(stop)
    next(frames)
    stop.set()
    assert list(frames) == [] and reader.problem is None
    reader.close()


def test_images_become_frames_in_time_and_a_bad_one_is_told(tmp_path):
    for index in range(4):
        Image.fromarray(scene(30, 40, seed=index)).save(tmp_path / f"{index}.png")
    (tmp_path / "2.png").write_bytes(b"")
    files = sorted(tmp_path.iterdir())
    reader = FolderReader(files, "folder", fps=10)
    found = read(reader)
    assert [(frame.index, frame.seconds) for frame in found] == [(0, 0.0), (1, 0.1), (3, 0.3)]
    np.testing.assert_array_equal(found[1].image, scene(30, 40, seed=1)[..., ::-1])
    assert "1 of 4 images" in reader.problem and "2.png" in reader.problem


def test_grey_frames_become_three_channels():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for image in (grey, grey[..., None]):
        np.testing.assert_array_equal(as_bgr(image), np.repeat(grey[..., None], 3, axis=2))
