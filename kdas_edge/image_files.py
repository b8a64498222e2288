"""Image files: the only place where a file becomes pixels. No torch.

A picture is turned as its EXIF orientation says, as every viewer does, and its samples are scaled
by what the file says of their range. Nothing is guessed: a file that holds several pictures, or
samples whose range is not stated, is an error that says what was found.
"""

import contextlib
import os
import stat
import struct
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from kdas_edge.errors import UserError, first_line
from kdas_edge.files import write_bytes_atomic

# what is taken from a folder
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
# What is read, by content and not by name. Pillow alone would also start programs: Ghostscript for
# an EPS file that is named .png.
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF", "JPEG2000", "AVIF", "PPM")
# The largest picture in pixels, twice that of an 8K camera, and what raises it. A file of a
# kilobyte can ask for gigabytes; the header is compared before any memory is taken.
MAX_PIXELS = 2**26
MAX_PIXELS_VARIABLE = "KDAS_EDGE_MAX_PIXELS"
_ORIENTATION = 0x0112
# TIFF tags
_NEW_SUBFILE_TYPE, _PHOTOMETRIC, _SAMPLE_FORMAT = 254, 262, 339
_BITS_PER_SAMPLE, _MAX_SAMPLE, _S_MAX_SAMPLE = 258, 281, 341
_NOT_A_PICTURE = 1 | 4  # a reduced copy, a transparency mask
_SIGNED, _FLOAT = 2, 3

# the limit of this module is lower than the one at which Pillow warns
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@dataclass(frozen=True)
class Samples:
    """The samples of a file as they are stored, turned upright.

    Attributes:
        values: (H, W) or (H, W, channels) in the order R, G, B, alpha; bool, uint8, uint16, int32
            or float32. Of a palette image the indices.
        mode: Pillow's mode (`1`, `L`, `LA`, `P`, `RGB`, `RGBA`, `I;16`, `I`, `F` …); `RGB;16` and
            `RGBA;16` for colours of 16 bits.
        palette: (N, 3) or (N, 4) uint8 of a palette image, else None.
        orientation: EXIF orientation that was applied, 1 to 8.
        white: the value that means white, as the file states it or its type allows.
        stated: True where the file itself states `white`.
    """

    values: NDArray[Any]
    mode: str
    palette: NDArray[np.uint8] | None
    orientation: int
    white: float
    stated: bool


def max_pixels() -> int:
    """The largest picture that is read, in pixels: `MAX_PIXELS`, or what the variable says.

    Raises:
        UserError: the variable `KDAS_EDGE_MAX_PIXELS` is no positive whole number.
    """
    text = os.environ.get(MAX_PIXELS_VARIABLE)
    if text is None:
        return MAX_PIXELS
    if not (text.isascii() and text.isdigit() and len(text) < 16 and int(text) > 0):
        raise UserError(f"{MAX_PIXELS_VARIABLE}={text!r} is no number of pixels; try {MAX_PIXELS}")
    limit = int(text)
    if Image.MAX_IMAGE_PIXELS is not None:
        # Pillow refuses twice its own limit
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, limit)
    return limit


def pending_turn(image: Image.Image) -> int:
    """The EXIF orientation that pixels of an image still need: Pillow turns a TIFF itself."""
    return 1 if image.format == "TIFF" else _orientation(image)


@contextlib.contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """Open an image; what its decoders raise in the block becomes one line.

    Yields:
        Pillow's image, its header checked, its pixels not yet decoded and not turned.

    Raises:
        UserError: see `read_image`.
    """
    try:
        check_regular(path)
        limit = max_pixels()
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > limit:
                raise UserError(_too_large(path, f"{width}×{height}", limit))
            pictures = _pictures(image)
            if pictures > 1:
                raise UserError(
                    f"{path} holds {pictures} pictures (animated or of several pages); save each "
                    "as a file of its own, or convert them to a video"
                )
            yield image
    except UserError:
        raise
    except Image.DecompressionBombError:
        raise UserError(_too_large(path, "far too many", limit)) from None
    except UnidentifiedImageError:
        raise UserError(
            f"{path} cannot be read as an image: it is damaged, or none of {', '.join(FORMATS)}; "
            "replace it"
        ) from None
    except Exception as error:
        # a damaged file makes PIL's decoders raise almost anything: struct.error, EOFError, …
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"{path} cannot be read as an image ({reason}); replace it") from None


def check_regular(path: Path) -> None:
    """Refuse what is no regular file with content: reading a FIFO or a device would not end.

    Raises:
        UserError: absent, empty, a folder, a FIFO, a device, or not to be reached.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; check the path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read ({reason}); check the path") from None
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path} is not a regular file; name one")
    if found.st_size == 0:
        raise UserError(f"{path} is empty (0 bytes); copy the file again")


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image as (H, W, 3) uint8 RGB, upright.

    The EXIF orientation is applied. Grey is repeated, alpha is dropped. Samples of more than 8 bits
    are scaled by what the file states: PNG `sBIT`, TIFF `BitsPerSample` and `MaxSampleValue`, the
    depth of JPEG 2000, AVIF and PNM. Without a statement the samples must fill their type (the
    largest of them lies in its upper half), and floats must do so in 0…1.

    Raises:
        UserError: not a regular file, no image of `FORMATS`, damaged, more than `max_pixels()`,
            several pictures in one file, or samples whose range is not known.
    """
    with open_image(path) as image:
        if image.mode.startswith(("I", "F")) or _is_deep_colour(image, path):
            return _eight_bits(_samples(image, path), path)
        turn = pending_turn(image)
        return turn_upright(np.asarray(image.convert("RGB"), dtype=np.uint8), turn)


def read_samples(path: Path) -> Samples:
    """Read the samples of a file as they are stored: labels, palette indices, alpha.

    Raises:
        UserError: see `read_image`; samples of an unknown range are no error here.
    """
    with open_image(path) as image:
        return _samples(image, path)


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) of the upright picture, from the header alone.

    Raises:
        UserError: see `read_image`.
    """
    with open_image(path) as image:
        width, height = image.size
        return (width, height) if pending_turn(image) >= 5 else (height, width)


def is_image(path: Path) -> bool:
    """Whether a file begins like an image of `FORMATS`; it may still be damaged."""
    try:
        check_regular(path)
        with Image.open(path, formats=FORMATS):
            return True
    except (UnidentifiedImageError, UserError):
        return False
    except Exception:  # an image, but a damaged or a huge one: reading it says so
        return True


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write a picture (H, W, 3) uint8 BGR or (H, W) uint8 grey.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    encoded, content = cv2.imencode(".png", image)
    if not encoded:
        raise UserError(f"cannot encode {path} as PNG")
    write_bytes_atomic(path, content.tobytes())


def turn_upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn stored pixels (H, W, …) as an EXIF orientation (1 to 8) demands; contiguous."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _too_large(path: Path, found: str, limit: int) -> str:
    return (
        f"{path} has {found} pixels, more than the limit of {limit}; reduce it, or raise the limit "
        f"with {MAX_PIXELS_VARIABLE}"
    )


def _pictures(image: Image.Image) -> int:
    """Number of pictures in a file; thumbnails and reduced copies do not count."""
    frames = int(getattr(image, "n_frames", 1))
    if frames == 1 or not isinstance(image, TiffImagePlugin.TiffImageFile):
        return frames
    count = 0
    for frame in range(frames):
        image.seek(frame)
        count += not int(_tags(image).get(_NEW_SUBFILE_TYPE, 0)) & _NOT_A_PICTURE
    image.seek(0)
    return max(count, 1)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 where there is none."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # viewers ignore a damaged EXIF block, too
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _is_deep_colour(image: Image.Image, path: Path) -> bool:
    """Whether the file holds colours of more than 8 bits, of which Pillow keeps 8."""
    if image.mode not in ("RGB", "RGBA", "RGBX", "LA"):
        return False
    if image.format == "TIFF":
        return max(_numbers(_tags(image).get(_BITS_PER_SAMPLE)), default=1) > 8
    with path.open("rb") as file:
        head = file.read(4096)
    if image.format == "PNG":
        return head[24] == 16  # of the chunk IHDR
    depth = head.find(b"\xff\x4f\xff\x51") + 42  # of the first component of a JPEG 2000
    return image.format == "JPEG2000" and 41 < depth < len(head) and head[depth] & 0x7F > 7


def _samples(image: Image.Image, path: Path) -> Samples:
    deep, orientation, turn = _is_deep_colour(image, path), _orientation(image), pending_turn(image)
    values, mode = np.asarray(image), image.mode
    if deep:
        values, mode = _deep_colours(image, path), f"{image.mode};16"
    palette = None
    if image.mode in ("P", "PA") and image.palette is not None:
        channels = len(image.palette.mode)
        palette = np.frombuffer(image.palette.tobytes(), np.uint8).reshape(-1, channels)
    white, stated = _white(image, values, path)
    if white > np.iinfo(np.int32).max and values.dtype == np.int32:
        values = values.view(np.uint32)
    if values.dtype.itemsize > 1 and values.ndim == 2 and _tags(image).get(_PHOTOMETRIC) == 0:
        # white is 0; Pillow turns samples of 8 bits only
        values = white - values
    return Samples(turn_upright(values, turn), mode, palette, orientation, white, stated)


def _deep_colours(image: Image.Image, path: Path) -> NDArray[np.uint16]:
    """(H, W, 3 or 4) uint16 RGB or RGBA by OpenCV, of which Pillow has the upper 8 bits."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        decoded = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if decoded is not None and decoded.dtype == np.uint16 and decoded.ndim == 3:
        values = np.asarray(decoded, np.uint16)[..., [2, 1, 0, 3][: decoded.shape[2]]]
        upper = np.asarray(image.convert("RGB"))
        # OpenCV takes planes that lie one after the other for interleaved samples
        if values.shape[:2] == upper.shape[:2] and (values[..., :3] >> 8 == upper).all():
            return values
    raise UserError(
        f"{path} holds colours of more than 8 bits in a form that is not read; save it with 8 bits "
        "a sample"
    )


def _white(image: Image.Image, values: NDArray[Any], path: Path) -> tuple[float, bool]:
    """The value that means white, and whether the file states it."""
    if values.dtype.kind == "b":
        return 1, True
    if values.dtype.itemsize == 1:
        return 255, True
    if image.format == "TIFF":
        return _white_of_tiff(_tags(image))
    if values.dtype.kind == "f":
        return 1, False
    if image.format == "PNG":
        bits = _significant_bits(path)
        # By the standard, samples of fewer bits are stretched to all 16; many writers leave them
        # in the low bits. A picture that fits into those would otherwise be black.
        if 8 <= bits < 16 and int(values.max()) < 1 << bits:
            return (1 << bits) - 1, True
        return 65535, bits > 0
    # Pillow stretches what JPEG 2000 and PNM state to 16 bits
    return 65535, False


def _tags(image: Image.Image) -> Mapping[int, Any]:
    return image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}


def _white_of_tiff(tags: Mapping[int, Any]) -> tuple[float, bool]:
    form = max(_numbers(tags.get(_SAMPLE_FORMAT)), default=1)
    top = max(_numbers(tags.get(_S_MAX_SAMPLE)) or _numbers(tags.get(_MAX_SAMPLE)), default=0)
    if form == _FLOAT:
        return (float(top), True) if 0 < top < np.inf else (1, False)
    bits = int(max(_numbers(tags.get(_BITS_PER_SAMPLE)), default=1))
    capacity = (1 << (bits - (form == _SIGNED))) - 1
    if 255 <= top < capacity:
        # writers put the largest value there that occurs, or that their camera can give
        return (1 << int(top).bit_length()) - 1, True
    return capacity, bits % 16 != 0


def _numbers(value: object) -> tuple[Any, ...]:
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)


def _significant_bits(path: Path) -> int:
    """The largest number of the chunk `sBIT` of a PNG file, 0 without one."""
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"sBIT" and length <= 4:
                return max(file.read(length), default=0)
            if kind in (b"IDAT", b"IEND"):
                break
            file.seek(length + 4, os.SEEK_CUR)
    return 0


def _eight_bits(samples: Samples, path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of samples that have more than 8 bits."""
    values, white = samples.values, samples.white
    if values.ndim == 3:
        values = values[..., :3]
    low, high = float(values.min()), float(values.max())
    held = f"{path} holds samples of {low:g} to {high:g} ({samples.mode}, {values.dtype})"
    if not (low >= 0 and high <= white):
        raise UserError(f"{held}, outside of 0 to {white:g}; save it with 8 bits a sample")
    if not samples.stated and 0 < 2 * high < white and not _repeats_bytes(values):
        raise UserError(
            f"{held} and does not say which value is white; save it with 8 bits a sample, or state "
            "it (PNG sBIT, TIFF MaxSampleValue)"
        )
    if values.dtype == np.uint16:
        steps = np.arange(65536, dtype=np.float64) * (255 / white)
        eight = np.rint(steps).clip(0, 255).astype(np.uint8)[values]
    else:
        eight = np.rint(values * (255 / white)).clip(0, 255).astype(np.uint8)
    return eight if eight.ndim == 3 else np.repeat(eight[..., np.newaxis], 3, axis=2)


def _repeats_bytes(values: NDArray[Any]) -> bool:
    """Whether 8 bits were stretched to 16 by repeating them: then the samples fill their type."""
    return values.dtype == np.uint16 and bool(((values >> 8) == (values & 0xFF)).all())
