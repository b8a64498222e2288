"""Folders and videos as sources of frames."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from video_files import moving_bars, write_coded

from kdas_edge.data.frames import find_sources, read_video_frames, sample_video
from kdas_edge.data.synthetic import scene
from kdas_edge.errors import UserError

FRAMES = 37


@pytest.fixture(scope="module", params=["avi", "mp4"])
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video whose frame n has a bright bar at column 2 n."""
    path = tmp_path_factory.mktemp("video") / f"tuesday.{request.param}"
    codec = cv2.VideoWriter.fourcc(*("MJPG" if request.param == "avi" else "mp4v"))
    writer = cv2.VideoWriter(str(path), codec, 25, (96, 64))
    if not writer.isOpened():
        pytest.skip(f"this OpenCV writes no {request.param}")
    for number in range(FRAMES):
        frame = np.full((64, 96, 3), 40, np.uint8)
        frame[:, 2 * number : 2 * number + 2] = 230
        writer.write(frame)
    writer.release()
    return path


def _number(image: np.ndarray) -> int:
    return int(image.mean(axis=(0, 2)).argmax()) // 2


def test_every_nth_frame_is_seen(video: Path) -> None:
    seen, stride = sample_video(video, _number, stride=5)
    assert stride == 5
    assert seen == [(number, number) for number in range(0, FRAMES, 5)]


def test_a_long_video_is_thinned_but_covered_to_its_end(video: Path) -> None:
    seen, stride = sample_video(video, _number, stride=1, most=10)
    assert stride == 4
    assert seen == [(number, number) for number in range(0, FRAMES, 4)]


def test_chosen_frames_are_the_very_ones_that_were_seen(video: Path) -> None:
    seen, _ = sample_video(video, lambda image: image.copy(), stride=7)
    wanted = [number for number, _ in seen][1:4]
    again = list(read_video_frames(video, wanted))
    assert [number for number, _ in again] == wanted
    for number, image in again:
        np.testing.assert_array_equal(image, dict(seen)[number])


def test_colours_come_as_rgb(tmp_path: Path) -> None:
    path = tmp_path / "red.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 64))
    for _ in range(3):
        writer.write(np.full((64, 64, 3), (20, 40, 200), np.uint8))
    writer.release()
    (_, colour), *_ = sample_video(path, lambda image: image.mean(axis=(0, 1)))[0]
    np.testing.assert_allclose(colour, (200, 40, 20), atol=4)


def test_a_frame_beyond_the_end_is_an_error(video: Path) -> None:
    with pytest.raises(UserError, match="ends before frame 40"):
        list(read_video_frames(video, [3, 40]))


def test_frames_that_cannot_be_decoded_are_not_seen_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = moving_bars(36)
    path = write_coded(tmp_path / "a.m2v", frames, "mpeg2video", g="12")
    whole, _ = sample_video(path, lambda image: image.copy(), stride=1)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(range(100, 140))
    path.write_bytes(content)
    seen, _ = sample_video(path, lambda image: image.copy(), stride=1)
    bad = {number for number, _ in whole} - {number for number, _ in seen}
    assert 1 <= len(bad) <= 14  # up to the next key frame
    assert f"{len(bad)} of 36 frames cannot be decoded" in capsys.readouterr().err
    for number, image in seen:
        np.testing.assert_array_equal(image, dict(whole)[number])
    with pytest.raises(UserError, match=f"frame {min(bad)} cannot be decoded"):
        list(read_video_frames(path, [0, min(bad)]))


def test_a_file_that_is_no_video_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"not a video" * 100)
    with pytest.raises(UserError, match=r"broken\.mp4 cannot be opened as a video"):
        sample_video(path, _number)


def test_a_folder_gives_its_images_and_its_videos(video: Path, tmp_path: Path) -> None:
    Image.fromarray(scene(0, 64)[0]).save(tmp_path / "b.png")
    Image.fromarray(scene(1, 64)[0]).save(tmp_path / "a.jpg")
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no frame")
    (tmp_path / video.name).write_bytes(video.read_bytes())
    images, film = find_sources(tmp_path)
    assert [pair.name for pair in images.pairs] == ["a", "b"]
    assert (images.kind, film.kind, film.path) == ("folder", "video", tmp_path / video.name)
    assert images.relative(tmp_path / "b.png") == "b.png" and film.relative(film.path) == video.name


def test_a_data_root_gives_its_training_images_only(scenes: Path) -> None:
    (source,) = find_sources(scenes)
    assert source.kind == "training" and len(source.pairs) == 24
    assert all(pair.mask is not None for pair in source.pairs)
    assert source.relative(source.pairs[0].image).startswith("TrainDataset/images/")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        ("absent", "does not exist"),
        ("empty", "holds no image"),
        ("notes.txt", "not a video file"),
        ("TestDataset/Kvasir/images", "test images set no ranges"),
    ],
)
def test_what_is_no_source_is_refused(tmp_path: Path, make: str, words: str) -> None:
    if make == "notes.txt":
        (tmp_path / make).write_text("")
    elif make != "absent":
        (tmp_path / make).mkdir(parents=True)
    with pytest.raises(UserError, match=words):
        find_sources(tmp_path / make)
