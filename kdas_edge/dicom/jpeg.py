"""JPEG and JPEG 2000 through Pillow, as a decoding plugin of pydicom.

It adds two things to pydicom's own plugin for Pillow. JPEG Lossless is decoded, which libjpeg-turbo
does since version 3; pydicom's other decoders for it need GDCM or a package under the GPL. And the
size in the stream is compared with the header first, so that a few bytes cannot ask for gigabytes.

The names of the functions and of the constant are those that pydicom looks for.
"""

import contextlib
import functools
import io
from typing import TYPE_CHECKING, Any

from PIL import Image, features

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import DecodeRunner

LOSSY = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
SYNTAXES = (*LOSSY, *LOSSLESS, *JPEG_2000)
PLUGIN = "kdas-edge"
DECODER_DEPENDENCIES: dict[Any, tuple[str, ...]] = dict.fromkeys(SYNTAXES, ("pillow>=12",))


def is_available(uid: str) -> bool:
    """Whether this Pillow can decode a transfer syntax."""
    if uid in LOSSLESS:
        version = features.version_feature("libjpeg_turbo") or "0"
        return int(version.split(".")[0]) >= 3
    return bool(features.check_codec("jpg_2000" if uid in JPEG_2000 else "jpg"))


@functools.cache
def register() -> None:
    """Offer this plugin to pydicom; calling it again changes nothing."""
    from pydicom.pixels import get_decoder

    for syntax in SYNTAXES:
        # two threads may come here at the same time; the second finds the plugin there
        with contextlib.suppress(ValueError):
            get_decoder(syntax).add_plugin(PLUGIN, (__name__, "decode_frame"))


def decode_frame(source: bytes, runner: "DecodeRunner") -> bytes:
    """Decode one frame to interleaved samples, colours untouched.

    Raises:
        ValueError: the stream is of another size than the header says, or not of 8 bits.
    """
    from pydicom.pixels.decoders import pillow

    # only the stream's header is read here
    image = Image.open(io.BytesIO(source), formats=("JPEG", "JPEG2000"))
    if image.size != (runner.columns, runner.rows):
        raise ValueError(f"the stream is of {image.size[0]}×{image.size[1]} pixels")
    if runner.transfer_syntax not in LOSSLESS:
        return pillow._decode_frame(source, runner)
    if runner.bits_stored != 8:
        raise ValueError(f"JPEG Lossless of {runner.bits_stored} bits is not decoded, only of 8")
    # a lossless JPEG is never sub-sampled or converted, so the samples are as the header says
    return image.tobytes()
