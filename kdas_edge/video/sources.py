"""What the SOURCE of a command means: images, a video file, a camera, or a network stream."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kdas_edge.errors import UserError
from kdas_edge.files import real_path
from kdas_edge.image_files import SUFFIXES, is_image
from kdas_edge.video_files import SUFFIXES as VIDEO_SUFFIXES

Kind = Literal["images", "video", "camera", "stream"]
SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "srt")


@dataclass(frozen=True)
class InputSource:
    """Where frames come from.

    Attributes:
        kind: `images` (a file or a folder), `video` (a file), `camera` or `stream`.
        address: the path, the number of the camera, or the URL.
        name: what may be shown and recorded: a URL without its password.
    """

    kind: Kind
    address: str
    name: str

    @property
    def live(self) -> bool:
        """True where frames come whether or not they are taken."""
        return self.kind in ("camera", "stream")

    @property
    def stem(self) -> str:
        """A name for files about this source: the file's stem, or the words of the address."""
        if not self.live:
            return real_path(Path(self.address)).stem
        return re.sub(r"[^A-Za-z0-9.-]+", "-", self.name).strip("-.") or self.kind


def parse_source(text: str) -> InputSource:
    """Find out what a person means by `text`.

    Raises:
        UserError: it does not exist, is no camera number, or an unknown scheme.
    """
    scheme, separator, rest = text.partition(":")
    if scheme == "camera":
        if not (rest.isascii() and rest.isdigit()):
            raise UserError(f"source {text!r}: name the number of the camera, for example camera:0")
        return InputSource("camera", str(int(rest)), f"camera:{int(rest)}")
    if separator and rest.startswith("//"):
        if scheme.lower() not in SCHEMES:
            raise UserError(
                f"source {_without_password(text)!r}: unknown scheme {scheme!r}; "
                f"known: {', '.join(SCHEMES)}"
            )
        return InputSource("stream", text, _without_password(text))
    path = Path(text)
    device = re.fullmatch(r"/dev/video(\d+)", text)
    if device is not None:
        return InputSource("camera", str(int(device[1])), f"camera:{int(device[1])}")
    if path.is_dir():
        return InputSource("images", text, real_path(path).name)
    if not path.exists():
        raise UserError(
            f"{text} does not exist; name an image, a folder of images, a video file, "
            "camera:0 or an rtsp:// address"
        )
    if not path.is_file():
        raise UserError(f"{text} is neither a file nor a folder; name camera:0 for a camera")
    return InputSource("video" if _is_video(path) else "images", text, path.name)


def _is_video(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return True
    if suffix in SUFFIXES:
        return False
    # recorders give their files all kinds of names: what is no image is tried as a video
    return not is_image(path) and path.stat().st_size > 0


def _without_password(url: str) -> str:
    """The URL with `user:password@` shortened to `…@`, and without what a query may hold."""
    # up to the last @: a password may hold one, or a slash
    hidden = re.sub(r"//[^?]*@", "//…@", url)
    return re.sub(r"\?.*", "?…", hidden)
