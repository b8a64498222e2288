import os

import pytest
from PIL import Image
from tiny_bundle import scene
from video_files import clip, write_video

from kdas_edge.errors import UserError
from kdas_edge.video.sources import parse_source


@pytest.mark.parametrize(
    ("text", "kind", "address", "name"),
    [
        ("camera:0", "camera", "0", "camera:0"),
        ("camera:007", "camera", "7", "camera:7"),
        ("/dev/video2", "camera", "2", "camera:2"),
        ("rtsp://box/room4", "stream", "rtsp://box/room4", "rtsp://box/room4"),
        ("RTSP://box/room4", "stream", "RTSP://box/room4", "RTSP://box/room4"),
    ],
)
def test_cameras_and_streams_are_told_apart(text, kind, address, name):
    source = parse_source(text)
    assert (source.kind, source.address, source.name) == (kind, address, name)
    assert source.live


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://nurse:secret@box/room4",
        "rtsp://nurse:se@cret@box/room4",
        "rtsp://nurse:se/cret@box/room4",
        "http://box/room4?token=secret",
    ],
)
def test_a_password_is_neither_in_the_name_nor_in_the_names_of_files(url):
    source = parse_source(url)
    assert source.address == url
    assert "secret" not in source.name + source.stem and "cret" not in source.name
    assert "box/room4" in source.name and "/" not in source.stem


def test_files_are_judged_by_suffix_and_then_by_content(tmp_path):
    frames = clip(3)
    Image.fromarray(scene()).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "image.dat")
    write_video(tmp_path / "a.avi", frames).rename(tmp_path / "video.dat")
    write_video(tmp_path / "b.avi", frames)
    (tmp_path / "bad.png").write_bytes(b"no image")
    kinds = {path.name: parse_source(str(path)).kind for path in tmp_path.iterdir()}
    assert kinds == {
        "image.dat": "images", "video.dat": "video", "b.avi": "video", "bad.png": "images",
    }  # fmt: skip
    folder = parse_source(str(tmp_path))
    assert folder.kind == "images" and folder.stem == tmp_path.name and not folder.live


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("camera:", "number of the camera"),
        ("camera:x", "number of the camera"),
        ("camera:-1", "number of the camera"),
        ("gopher://box/a", "unknown scheme 'gopher'"),
        ("nowhere.mp4", "nowhere.mp4 does not exist"),
    ],
)
def test_what_cannot_be_a_source_is_refused(text, word):
    with pytest.raises(UserError, match=word):
        parse_source(text)


def test_an_unknown_scheme_does_not_tell_the_password():
    with pytest.raises(UserError) as caught:
        parse_source("gopher://nurse:secret@box/a")
    assert "secret" not in str(caught.value)


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="neither a file nor a folder"):
        parse_source(str(tmp_path / "pipe"))
