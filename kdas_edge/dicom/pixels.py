"""Frames of a stored picture as 8-bit colour, whatever the encoding and the colour model.

pydicom decodes; what it leaves to the caller is done here: palettes, grey, windows and samples of
more than 8 bits. An embedded ICC profile is not applied, as none was in training.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdas_edge.dicom import jpeg
from kdas_edge.dicom.source import PictureError, StoredPicture, integer, short, value_of
from kdas_edge.dicom.video import SYNTAXES as VIDEO
from kdas_edge.dicom.video import video_frames
from kdas_edge.errors import first_line

_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_RLE = ("1.2.840.10008.1.2.5",)
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
READ = (*_NATIVE, *_RLE, *jpeg.SYNTAXES, *_JPEG_LS, *VIDEO)
_MAY_BE_MISSING = {
    "planar_configuration": "PlanarConfiguration",
    "pixel_representation": "PixelRepresentation",
}
# colour model -> (samples per pixel, the encodings that may have it)
_MODELS = {
    "RGB": (3, READ),
    "YBR_FULL": (3, READ),
    "YBR_FULL_422": (3, (*_NATIVE, *_RLE, *jpeg.LOSSY)),
    "YBR_ICT": (3, jpeg.JPEG_2000),
    "YBR_RCT": (3, jpeg.JPEG_2000),
    "YBR_PARTIAL_420": (3, VIDEO),
    "PALETTE COLOR": (1, READ),
    "MONOCHROME1": (1, READ),
    "MONOCHROME2": (1, READ),
}


def check_pixels(source: StoredPicture) -> None:
    """Refuse what could only be decoded by guessing.

    Raises:
        PictureError: a transfer syntax or colour model that is not read, or one that contradicts
            the other attributes of the pixels.
    """
    from pydicom.uid import UID

    header, syntax = source.header, source.transfer_syntax
    if syntax not in READ:
        raise PictureError(
            f"has the transfer syntax {syntax} ({short(UID(syntax).name)}), which is not read; "
            "convert it, for example with gdcmconv --raw"
        )
    model = short(value_of(header, "PhotometricInterpretation"))
    samples, syntaxes = _MODELS.get(model, (0, ()))
    if syntax not in syntaxes:
        raise PictureError(
            f"has the photometric interpretation {model} with the transfer syntax "
            f"{short(UID(syntax).name)}, which is not read; convert it to RGB"
        )
    if syntax in VIDEO:
        # the decoder gives 8-bit colour; the stream's own header rules
        return
    if integer(header, "SamplesPerPixel") != samples:
        raise PictureError(
            f"has {integer(header, 'SamplesPerPixel')} samples per pixel, but {model} has {samples}"
        )
    planar = integer(header, "PlanarConfiguration", 0)
    if planar not in (0, 1) or (planar and model == "YBR_FULL_422" and syntax in _NATIVE):
        raise PictureError(f"has the planar configuration {planar}, impossible for {model}")
    allocated, stored = integer(header, "BitsAllocated"), integer(header, "BitsStored")
    high = integer(header, "HighBit", stored - 1)
    # pydicom converts YBR with the offsets of 8 bits
    widest = 8 if model.startswith("YBR") else allocated
    if allocated not in (8, 16) or not 8 <= stored <= widest or high != stored - 1:
        raise PictureError(
            f"has {allocated} bits allocated, {stored} stored and the high bit {high}; {model} is "
            "read with 8 or 16 allocated and the samples in the low bits"
        )
    if integer(header, "PixelRepresentation", 0) != 0:
        raise PictureError("has signed samples, which no camera gives; export it again")


def frames(source: StoredPicture) -> Iterator[NDArray[np.uint8] | None]:
    """Decode the frames in order, one at a time.

    Yields:
        (H, W, 3) uint8 BGR, as `Segmenter.segment` takes them; None for a frame of a video that
        cannot be decoded. There may be fewer or more than the header declares.

    Raises:
        PictureError: see `check_pixels`; or the pixel data are absent, truncated or damaged.
    """
    check_pixels(source)
    if source.transfer_syntax in VIDEO:
        yield from video_frames(source)
        return
    from pydicom.pixels import iter_pixels

    jpeg.register()
    plugin = jpeg.PLUGIN if source.transfer_syntax in jpeg.SYNTAXES else ""
    # what a file may leave out because it has one sense only, and pydicom insists on
    told: dict[str, Any] = {"transfer_syntax_uid": source.transfer_syntax}
    missing: dict[str, Any] = {
        option: 0
        for option, keyword in _MAY_BE_MISSING.items()
        if value_of(source.header, keyword) is None
    }
    decoded = iter_pixels(source.path, decoding_plugin=plugin, **told, **missing)
    while True:
        try:
            # YBR_FULL becomes RGB here, planes become interleaved
            frame = next(decoded)
            image = _to_bgr(frame, source)
        except StopIteration:
            return
        except PictureError:
            raise
        except Exception as error:
            raise PictureError(_reason(error)) from None
        yield image


def _to_bgr(frame: NDArray[Any], source: StoredPicture) -> NDArray[np.uint8]:
    """(H, W) or (H, W, 3) samples -> (H, W, 3) uint8 BGR."""
    from pydicom.pixels import apply_color_lut

    header = source.header
    model = str(header.PhotometricInterpretation)
    if frame.shape[:2] != (source.rows, source.columns):
        height, width = frame.shape[:2]
        raise PictureError(
            f"declares {source.columns}×{source.rows} pixels but holds {width}×{height}"
        )
    if model.startswith("MONOCHROME"):
        grey = _grey(frame, source)
        if model == "MONOCHROME1":
            grey = 255 - grey
        return np.repeat(grey[..., np.newaxis], 3, axis=2)
    if model == "PALETTE COLOR":
        frame = apply_color_lut(frame, header)
        bits = 8 * frame.dtype.itemsize
    else:
        bits = integer(header, "BitsStored")
    if frame.ndim != 3 or frame.shape[2] != 3:
        raise PictureError(f"holds pixels of the shape {frame.shape[2:]}, not of three colours")
    return np.ascontiguousarray((frame >> (bits - 8)).astype(np.uint8)[..., ::-1])


def _grey(frame: NDArray[Any], source: StoredPicture) -> NDArray[np.uint8]:
    """Grey samples as a screen would show them: the file's first window, else the full range."""
    header = source.header
    center, width = _number(header, "WindowCenter"), _number(header, "WindowWidth")
    if center is None or width is None:
        return (frame >> (integer(header, "BitsStored") - 8)).astype(np.uint8)
    function = short(value_of(header, "VOILUTFunction") or "LINEAR")
    if function != "LINEAR" or width < 1:
        raise PictureError(f"has a window of width {width:g} and function {function}; not read")
    slope = _number(header, "RescaleSlope")
    values = frame.astype(np.float64) * (1 if slope is None else slope)
    values += _number(header, "RescaleIntercept") or 0
    # PS3.3 C.11.2.1.2.1; a window of width 1 is a threshold
    scaled = (values - (center - 0.5)) / max(width - 1, 1e-9) + 0.5
    return np.rint(scaled.clip(0, 1) * 255).astype(np.uint8)


def _number(header: Any, keyword: str) -> float | None:
    value = value_of(header, keyword)
    if value is not None and not isinstance(value, str | float | int):
        # several windows: the first is the default
        value = value[0]
    if value is None:
        return None
    number = float(value)
    if not np.isfinite(number):
        raise PictureError(f"has the {keyword} {number}; export it again")
    return number


def _reason(error: Exception) -> str:
    text = short(first_line(error))
    if isinstance(error, AttributeError) and "Pixel Data" in text:
        return "has no pixel data; name a picture"
    # pydicom tells what each plugin said on the lines that follow, "plugin: reason"
    more = [line.strip() for line in str(error).splitlines()[1:] if ": " in line]
    detail = short(more[0].partition(": ")[2]) if more else text
    return f"has pixel data that cannot be decoded ({detail}); export it again"
