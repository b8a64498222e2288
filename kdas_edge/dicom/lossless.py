"""JPEG Lossless through Pillow: its libjpeg-turbo decodes it since version 3.

pydicom's own decoders for it need a package under the GPL or GDCM. This module is a decoding plugin
of pydicom; the functions and the constant have the names that pydicom looks for.
"""

import contextlib
import functools
import io
from typing import TYPE_CHECKING, Any

from PIL import Image, features

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import DecodeRunner

SYNTAXES = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
DECODER_DEPENDENCIES: dict[Any, tuple[str, ...]] = dict.fromkeys(SYNTAXES, ("pillow>=12",))


def is_available(uid: str) -> bool:
    """Whether this Pillow can decode a transfer syntax."""
    version = features.version_feature("libjpeg_turbo") or "0"
    return str(uid) in SYNTAXES and int(version.split(".")[0]) >= 3


@functools.cache
def register() -> None:
    """Make pydicom use this plugin; calling it again changes nothing."""
    from pydicom.pixels import get_decoder

    for syntax in SYNTAXES:
        # two threads may come here at the same time; the second finds the plugin there
        with contextlib.suppress(ValueError):
            get_decoder(syntax).add_plugin("kdas-edge", (__name__, "decode_frame"))


def decode_frame(source: bytes, runner: "DecodeRunner") -> bytes:
    """Decode one frame to interleaved samples, colours untouched.

    Raises:
        ValueError: the stream is of another size than the header says, or not of 8 bits.
    """
    image = Image.open(io.BytesIO(source), formats=("JPEG",))
    if image.size != (runner.columns, runner.rows):
        raise ValueError(f"the JPEG stream is of {image.size[0]}×{image.size[1]} pixels")
    if runner.bits_stored != 8:
        raise ValueError(f"JPEG Lossless of {runner.bits_stored} bits is not decoded, only of 8")
    # a lossless JPEG is never sub-sampled or converted, so the samples are as the header says
    return image.tobytes()
