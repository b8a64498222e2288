"""Decoding: whatever the encoding, the segmenter gets the colours that were stored."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundle import scene

pytest.importorskip("highdicom", reason="needs kdas-edge[dicom]")
import dicom_files as files

from kdas_edge.dicom.pixels import frames
from kdas_edge.dicom.source import PictureError, quiet, read_source

RGB = scene(48, 64)


def decode(path: Path) -> list[np.ndarray]:
    """The frames of a file, RGB."""
    with quiet():
        return [frame[..., ::-1] for frame in frames(read_source(path))]


def test_every_encoding_gives_the_colours_that_were_stored(tmp_path: Path) -> None:
    cases = files.encodings(RGB)
    assert len(cases) > 20
    for name, (ds, expected, allowed) in cases.items():
        [found] = decode(files.save(ds, tmp_path / "picture.dcm"))
        assert found.dtype == np.uint8 and found.shape == RGB.shape, name
        difference = np.abs(found.astype(int) - expected).max()
        assert difference <= allowed, (name, difference)


def test_frames_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    stack = np.stack([scene(48, 64, seed=index) for index in range(3)])
    native = files.picture(stack, files.TRUE_COLOR)
    streams = [files.jpeg_lossless(frame) for frame in stack]
    encoded = files.encapsulated(
        files.picture(stack, files.TRUE_COLOR), streams, files.JPEGLosslessSV1
    )
    for ds in (native, encoded):
        np.testing.assert_array_equal(decode(files.save(ds, tmp_path / "stack.dcm")), stack)


@pytest.mark.parametrize("codec", ["mpeg2", "h264"])
def test_a_video_is_decoded(codec: str, tmp_path: Path) -> None:
    stack = np.stack([scene(96, 128, seed=index, polyp=index < 2) for index in range(3)])
    ds = files.picture(stack, files.VIDEO_ENDOSCOPIC)
    if codec == "mpeg2":
        stream, syntax = files.mpeg2(stack, tmp_path / "clip"), files.MPEG2
    else:
        stream, syntax = files.h264(stack), files.H264
    files.encapsulated(ds, [stream], syntax, "YBR_PARTIAL_420")
    found = decode(files.save(ds, tmp_path / "video.dcm"))
    assert len(found) == 3
    # half of the colour samples are not stored, and MPEG-2 loses detail
    assert np.abs(np.array(found).astype(int) - stack).mean() < 8


def set_to(**values: Any) -> Callable[[Any], None]:
    def change(ds: Any) -> None:
        for keyword, value in values.items():
            setattr(ds, keyword, value)

    return change


def other_size(ds: Any) -> None:
    files.encapsulated(ds, [files.pillow_jpeg(scene(480, 640))], files.JPEGBaseline8Bit, "RGB")


def damaged_stream(ds: Any) -> None:
    stream = files.pillow_jpeg(RGB)
    files.encapsulated(ds, [stream[:40] + b"\0" * 40], files.JPEGBaseline8Bit, "YBR_FULL_422")


def unknown_syntax(ds: Any) -> None:
    files.encapsulated(ds, [b"\0" * 8], "1.2.840.10008.1.2.4.201")


def no_video(ds: Any) -> None:
    ds.SOPClassUID = files.VIDEO_ENDOSCOPIC
    files.encapsulated(ds, [b"no video" * 9], files.H264, "YBR_PARTIAL_420")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (unknown_syntax, "which is not read; convert it"),
        (set_to(PhotometricInterpretation="HSV"), "photometric interpretation HSV"),
        (set_to(PhotometricInterpretation="YBR_ICT"), "photometric interpretation YBR_ICT"),
        (set_to(SamplesPerPixel=1), "has 1 samples per pixel, but RGB has 3"),
        (set_to(PlanarConfiguration=2), "planar configuration 2"),
        (set_to(BitsStored=4, HighBit=3), "4 stored"),
        (set_to(PixelRepresentation=1), "signed samples"),
        (set_to(Rows=49), "cannot be decoded"),
        (other_size, "the stream is of 640×480 pixels"),
        (damaged_stream, "cannot be decoded"),
        (no_video, "cannot be opened"),
        (lambda ds: ds.pop("PixelData"), "has no pixel data"),
    ],
)
def test_what_could_only_be_guessed_is_refused_in_one_line(
    change: Callable[[Any], object], message: str, tmp_path: Path
) -> None:
    ds = files.picture(RGB)
    change(ds)
    with pytest.raises(PictureError) as refused:
        decode(files.save(ds, tmp_path / "picture.dcm"))
    assert message in str(refused.value) and "\n" not in str(refused.value)
