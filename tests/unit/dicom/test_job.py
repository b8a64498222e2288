"""Segmenting stored video: interlaced and damaged streams, and an interruption."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from tiny_bundle import make_tiny_bundle
from video_files import clip, write_coded

pytest.importorskip("highdicom", reason="needs kdas-edge[dicom]")
import dicom_files as files

from kdas_edge.dicom.job import StoredFrames
from kdas_edge.runtime.segmenter import Segmenter

HEIGHT, WIDTH, COUNT = 96, 128, 36


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Segmenter]:
    path = make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")
    with Segmenter.load(path, "openvino:CPU:threads=1") as loaded:
        yield loaded


def stored(stream: bytes, syntax: str, path: Path) -> Path:
    blank = np.zeros((COUNT, HEIGHT, WIDTH, 3), np.uint8)
    ds = files.picture(blank, files.VIDEO_ENDOSCOPIC)
    files.encapsulated(ds, [stream], syntax, "YBR_PARTIAL_420")
    return files.save(ds, path)


def test_every_frame_of_interlaced_video_is_segmented(segmenter: Segmenter, tmp_path: Path) -> None:
    video = write_coded(
        tmp_path / "a.mpg", clip(COUNT, HEIGHT, WIDTH), "mpeg2video", interlaced=True
    )
    path = stored(video.read_bytes(), files.MPEG2, tmp_path / "a.dcm")
    row = StoredFrames(segmenter, tmp_path / "out").segment_file(path)
    assert (row.status, row.frames, row.undecodable) == ("done", COUNT, 0)
    assert len(row.marked) == COUNT  # the polyp of the scene, in every frame


def test_damaged_frames_of_a_video_are_counted_and_the_others_segmented(
    segmenter: Segmenter, tmp_path: Path
) -> None:
    video = write_coded(tmp_path / "a.mp4", clip(COUNT, HEIGHT, WIDTH), "libx264", g="12", bf="0")
    with av.open(str(video)) as container:
        places = [packet.pos for packet in container.demux() if packet.size]
    content = bytearray(video.read_bytes())
    start = (places[15] or 0) + 6
    content[start : start + 20] = bytes(range(200, 220))
    path = stored(bytes(content), files.H264, tmp_path / "a.dcm")
    row = StoredFrames(segmenter, tmp_path / "out").segment_file(path)
    assert row.status == "incomplete" and 1 <= row.undecodable <= 9
    assert row.frames == COUNT - row.undecodable
    assert f"{row.undecodable} of {COUNT} frames cannot be decoded" in str(row.error)
    # the numbers of the frames that are left are those of the file
    numbers = [int(found["frame"]) for found in row.marked]
    assert numbers[:15] == list(range(1, 16)) and numbers[-1] == COUNT


def test_an_interruption_leaves_no_part_of_a_video(
    segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = write_coded(tmp_path / "a.mpg", clip(COUNT, HEIGHT, WIDTH), "mpeg2video")
    path = stored(video.read_bytes(), files.MPEG2, tmp_path / "a.dcm")
    calls = 0
    segment = segmenter.segment

    def interrupted(frame: np.ndarray) -> Any:
        nonlocal calls
        calls += 1
        if calls == 20:
            assert list((tmp_path / "out").iterdir())  # a part is on the disk already
            raise KeyboardInterrupt
        return segment(frame)

    monkeypatch.setattr(segmenter, "segment", interrupted)
    job = StoredFrames(segmenter, tmp_path / "out", part_bytes=HEIGHT * WIDTH)
    with pytest.raises(KeyboardInterrupt):
        job.segment_file(path)
    assert not list((tmp_path / "out").iterdir())
