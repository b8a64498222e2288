"""Encapsulated video (MPEG-2, H.264, HEVC): unpacked to a temporary file, decoded as any video."""

import contextlib
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdas_edge.dicom.source import PictureError, StoredPicture, short
from kdas_edge.errors import UserError, first_line
from kdas_edge.video_files import VideoDecoder

# the transfer syntaxes of PS3.5 that hold one video stream; `.1` are their fragmentable forms
SYNTAXES = tuple(
    f"1.2.840.10008.1.2.4.{number}{form}" for number in range(100, 109) for form in ("", ".1")
)
_UNDEFINED = 0xFFFFFFFF


def video_frames(source: StoredPicture) -> Iterator[NDArray[np.uint8] | None]:
    """Decode the frames of a video in order.

    Yields:
        (H, W, 3) uint8 BGR, or None for a frame that cannot be decoded.

    Raises:
        PictureError: the stream cannot be opened, or has another size than the header says.
    """
    # the stream holds pictures of a patient: the file is private and removed when this ends
    with tempfile.TemporaryDirectory(prefix="kdas-edge-") as folder:
        stream = Path(folder) / "stream"
        _unpack(source.path, stream)
        try:
            video = VideoDecoder(stream)
        except UserError:
            raise PictureError(
                "holds a video stream that cannot be opened; convert it to JPEG frames"
            ) from None
        with contextlib.closing(video):
            for picture in video.pictures():
                if not picture.good:
                    yield None
                    continue
                frame = picture.bgr()
                if frame.shape != (source.rows, source.columns, 3):
                    height, width = frame.shape[:2]
                    raise PictureError(
                        f"declares {source.columns}×{source.rows} pixels but its video is of "
                        f"{width}×{height}; export it again"
                    )
                yield frame


def _unpack(path: Path, stream: Path) -> None:
    """Copy the fragments of the pixel data to a file, one after the other."""
    import pydicom
    from pydicom.encaps import generate_fragments, parse_basic_offsets

    try:
        with path.open("rb") as file, stream.open("wb") as out:
            # leaves the file at the tag of the pixel data, or at its end if there is none
            pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["Rows"], force=True)
            start = file.read(12)
            if len(start) < 12:
                raise PictureError("has no pixel data; export it again")
            if struct.unpack("<I", start[8:])[0] != _UNDEFINED:
                raise PictureError("holds a video that is not encapsulated; export it again")
            parse_basic_offsets(file)
            for fragment in generate_fragments(file):
                out.write(fragment)
    except PictureError:
        raise
    except Exception as error:
        raise PictureError(
            f"cannot be unpacked ({short(first_line(error))}); export it again"
        ) from None
