"""Decoding video: interlaced, damaged, mixed and bare streams, and what is no video."""

import os
import struct
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from video_files import moving_bars, write_coded

from kdas_edge.errors import UserError
from kdas_edge.video.readers import FileReader
from kdas_edge.video_files import Picture, VideoDecoder


def decode(path: Path) -> list[Picture]:
    video = VideoDecoder(path)
    try:
        return list(video.pictures())
    finally:
        video.close()


def combing(image: np.ndarray) -> float:
    """How much a line differs from the two beside it: large where two fields are woven."""
    grey = image[..., 1].astype(float)
    return float(np.abs(2 * grey[1:-1] - grey[:-2] - grey[2:]).mean())


def distance(image: np.ndarray, index: int) -> float:
    """Mean difference from the bars at the time of the nearer field of a frame."""
    woven = moving_bars(index + 1, fields=True)[index]
    fields = (np.repeat(woven[part::2], 2, axis=0) for part in (0, 1))
    return min(float(np.abs(image.astype(int) - field).mean()) for field in fields)


INTERLACED = [
    ("a.mpg", "mpeg2video"),
    ("a.m2v", "mpeg2video"),
    ("a.mp4", "libx264"),
    ("a.h264", "libx264"),
    ("a.mov", "prores_ks"),
]


@pytest.mark.parametrize(("name", "codec"), INTERLACED)
def test_interlaced_video_gives_every_frame_without_combs(
    tmp_path: Path, name: str, codec: str
) -> None:
    woven = moving_bars(9, fields=True)
    found = decode(write_coded(tmp_path / name, woven, codec, interlaced=True))
    assert len(found) == 9 and all(picture.good for picture in found)
    for index, picture in enumerate(found):
        image = picture.bgr()
        assert image.shape == (96, 128, 3) and image.dtype == np.uint8
        assert combing(image) < combing(woven[index]) / 3
        # the bars are where one of the fields has them, and move from picture to picture
        assert distance(image, index) < 8
    if name not in ("a.h264",):  # a bare stream has no time stamps
        seconds = [picture.seconds for picture in found]
        np.testing.assert_allclose(seconds, np.arange(9) / 25, atol=1e-3)


def test_digital_video_of_a_camcorder_is_read(tmp_path: Path) -> None:
    frames = moving_bars(4, 576, 720, fields=True)
    found = decode(write_coded(tmp_path / "a.dv", frames, "dvvideo"))
    assert len(found) == 4 and all(picture.good for picture in found)
    assert combing(found[1].bgr()) < combing(frames[1]) / 3
    assert VideoDecoder(tmp_path / "a.dv").fps == 25


def test_each_picture_of_a_mixed_stream_is_its_own(tmp_path: Path) -> None:
    parts = [
        write_coded(tmp_path / f"{number}.m2v", frames, "mpeg2video", interlaced=bool(number % 2))
        for number, frames in enumerate((moving_bars(5), moving_bars(5, fields=True)) * 2)
    ]
    (tmp_path / "all.m2v").write_bytes(b"".join(part.read_bytes() for part in parts))
    found = decode(tmp_path / "all.m2v")
    assert len(found) == 20 and all(picture.good for picture in found)
    for index, picture in enumerate(found):
        assert distance(picture.bgr(), index % 5) < 8


def test_progressive_pictures_are_left_as_opencv_reads_them(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.mp4", moving_bars(6), "libx264")
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    for picture in decode(path):
        np.testing.assert_array_equal(picture.bgr(), capture.read()[1])


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "mpeg4"), ("a.m2v", "mpeg2video"), ("b.mp4", "libx264")]
)
def test_a_damaged_picture_is_never_given_out_as_a_good_one(
    tmp_path: Path, name: str, codec: str
) -> None:
    path = write_coded(tmp_path / name, moving_bars(48), codec, g="12")
    whole = [picture.bgr() for picture in decode(path)]
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(range(100, 140))
    path.write_bytes(content)
    found = decode(path)
    assert len(found) == 48
    bad = [index for index, picture in enumerate(found) if not picture.good]
    assert 1 <= len(bad) <= 12  # up to the next key frame
    for picture in found:
        if picture.good:
            index = round(25 * (picture.seconds or 0))
            np.testing.assert_array_equal(picture.bgr(), whole[index])
    reader = FileReader(path)
    frames = list(reader.frames(_Never()))
    assert len(frames) == 48 - len(bad) and reader.undecodable == len(bad)
    assert f"{len(bad)} of 48 frames could not be decoded" in str(reader.problem)


@pytest.mark.parametrize("codec", ["mpeg2video", "libx264", "libx265"])
def test_pictures_with_packets_lost_on_the_way_and_those_that_need_them_are_bad(
    tmp_path: Path, codec: str
) -> None:
    rng = np.random.default_rng(0)
    noise = [
        np.clip(frame + rng.normal(0, 20, frame.shape), 0, 255).astype(np.uint8)
        for frame in moving_bars(48)
    ]
    path = write_coded(tmp_path / "a.ts", noise, codec, g="12")
    whole = {picture.seconds: picture.bgr() for picture in decode(path)}
    content, size = path.read_bytes(), 188
    packets = len(content) // size
    for lost in ({packets // 2}, {packets // 3, packets // 3 + 1}, {packets // 2, packets // 4}):
        kept = (content[size * n : size * n + size] for n in range(packets) if n not in lost)
        (tmp_path / "lossy.ts").write_bytes(b"".join(kept))
        found = decode(tmp_path / "lossy.ts")
        assert 1 <= sum(not picture.good for picture in found) <= 14 * len(lost)
        for picture in found:
            if picture.good:
                np.testing.assert_array_equal(picture.bgr(), whole[picture.seconds])


@pytest.mark.parametrize("part", [slice(0, 4), slice(4, 6)], ids=["length", "type"])
def test_pictures_of_hevc_that_the_decoder_leaves_out_are_counted(
    tmp_path: Path, part: slice
) -> None:
    path = write_coded(tmp_path / "a.mp4", moving_bars(36), "libx265", g="12")
    with av.open(str(path)) as container:
        keys = [packet.pos for packet in container.demux() if packet.is_keyframe and packet.size]
    whole = {picture.seconds: picture.bgr() for picture in decode(path)}
    content = bytearray(path.read_bytes())
    start = keys[1] or 0
    content[start + (part.start or 0) : start + part.stop] = b"\x7f" * (part.stop - part.start)
    path.write_bytes(content)
    found = decode(path)
    assert len(found) == 36
    # a group, and the pictures around it that are predicted from its key frame
    assert 1 <= sum(not picture.good for picture in found) <= 16
    for picture in found:
        if picture.good:
            np.testing.assert_array_equal(picture.bgr(), whole[picture.seconds])


def test_a_codec_without_a_decoder_is_no_video(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.avi", moving_bars(2), "mjpeg")
    path.write_bytes(path.read_bytes().replace(b"MJPG", b"XQ9Z"))
    with pytest.raises(UserError, match="of a codec without a decoder"):
        VideoDecoder(path)


class _Never:
    """A stop that nobody asks for."""

    def is_set(self) -> bool:
        return False


@pytest.mark.parametrize("name", ["a.mjpeg", "a.m2v", "a.h264"])
def test_streams_without_a_container_are_read_at_their_rate(tmp_path: Path, name: str) -> None:
    codec = {".mjpeg": "mjpeg", ".m2v": "mpeg2video", ".h264": "libx264"}[Path(name).suffix]
    reader = FileReader(write_coded(tmp_path / name, moving_bars(7), codec))
    seconds = [frame.seconds for frame in reader.frames(_Never())]
    np.testing.assert_allclose(seconds, np.arange(7) / 25, atol=1e-3)
    assert reader.problem is None


def test_jpeg_files_one_after_the_other_are_a_video(tmp_path: Path) -> None:
    frames = moving_bars(5)
    content = b"".join(cv2.imencode(".jpg", frame)[1].tobytes() for frame in frames)
    (tmp_path / "a.mjpeg").write_bytes(content)
    found = decode(tmp_path / "a.mjpeg")
    assert len(found) == 5
    for picture, frame in zip(found, frames, strict=True):
        assert np.abs(picture.bgr().astype(int) - frame).mean() < 3


@pytest.mark.parametrize(
    ("matrix", "quarters"),
    [
        ((0, 65536, 0, -65536, 0, 0, 96 * 65536, 0, 1 << 30), 3),
        ((-65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30), 2),
        ((0, -65536, 0, 65536, 0, 0, 0, 0, 1 << 30), 1),
    ],
)
def test_a_video_is_turned_as_it_says_it_was_held(
    tmp_path: Path, matrix: tuple[int, ...], quarters: int
) -> None:
    path = write_coded(tmp_path / "a.mp4", moving_bars(2), "libx264")
    upright = decode(path)[0].bgr()
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44
    content[start : start + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(content)
    np.testing.assert_array_equal(decode(path)[0].bgr(), np.rot90(upright, quarters))


@pytest.mark.parametrize(
    "content",
    [
        b"text is a picture for one of FFmpeg's readers\n" * 9,
        b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nother.ts\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile other.ts\n",
        b"\x00" * 5000,
    ],
)
def test_text_and_lists_of_other_files_are_no_video(tmp_path: Path, content: bytes) -> None:
    write_coded(tmp_path / "other.ts", moving_bars(3), "mpeg2video")
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.txt cannot be opened as a video") as caught:
        VideoDecoder(tmp_path / "a.txt")
    assert "\n" not in str(caught.value)


def test_a_video_of_huge_pictures_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_coded(tmp_path / "a.mp4", moving_bars(2), "libx264")
    monkeypatch.setenv("KDAS_EDGE_MAX_PIXELS", "12287")
    with pytest.raises(UserError, match="128×96 pixels, more than the limit of 12287"):
        VideoDecoder(path)
    monkeypatch.setenv("KDAS_EDGE_MAX_PIXELS", "12288")
    assert len(decode(path)) == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(UserError, match="not a regular file"):
        VideoDecoder(tmp_path / "a.mp4")


def test_a_name_with_a_colon_or_with_digits_is_a_file(tmp_path: Path) -> None:
    for name in ("http:a.mp4", "frame%03d.mp4", "concat:a|b.mp4"):
        assert len(decode(write_coded(tmp_path / name, moving_bars(2), "mpeg4"))) == 2
