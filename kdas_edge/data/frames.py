"""Frames of folders and of video files. No torch.

A folder lists its images; a video is decoded from its beginning, never sought in: codecs disagree
on where frame 1234 lies, counting does not.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from kdas_edge.console import info, progress
from kdas_edge.data.heldout import TEST_FOLDER, inside_tests
from kdas_edge.data.layout import Pair, find_pairs
from kdas_edge.errors import UserError
from kdas_edge.files import real_path
from kdas_edge.image_files import SUFFIXES
from kdas_edge.video_files import SUFFIXES as VIDEO_SUFFIXES
from kdas_edge.video_files import Picture, VideoDecoder

Kind = Literal["training", "folder", "video"]
TRAIN_FOLDER = "TrainDataset"
# about one frame a second
STRIDE = 25
MOST_PER_VIDEO = 1000

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class FrameSource:
    """Where frames come from.

    Attributes:
        kind: the training images of a data root, a folder of images, or one video file.
        path: the data root, the folder or the video.
        pairs: the images, with masks where there are some; empty for a video.
    """

    kind: Kind
    path: Path
    pairs: tuple[Pair, ...] = ()

    @property
    def name(self) -> str:
        """The last part of the path; a manifest holds no path of a machine."""
        return real_path(self.path).name

    def relative(self, file: Path) -> str:
        """The path of one of its files, as a manifest names it."""
        return self.name if self.kind == "video" else file.relative_to(self.path).as_posix()


def find_sources(path: Path) -> list[FrameSource]:
    """Find out what a path given by a person means.

    A data root in the PraNet layout gives its `TrainDataset` only; a folder with `images/` gives
    those, with the masks that `masks/` has; any other folder its images and its video files; a
    file must be a video.

    Raises:
        UserError: absent, without frames, no video, or inside a `TestDataset`.
    """
    if inside_tests(path):
        raise UserError(
            f"{path} lies in a {TEST_FOLDER}: test images set no ranges; name training images or "
            "recordings"
        )
    if path.is_file():
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            raise UserError(
                f"{path} is not a video file ({', '.join(VIDEO_SUFFIXES)}); name a video or a "
                "folder of images"
            )
        return [FrameSource("video", path)]
    if not path.is_dir():
        raise UserError(f"{path} does not exist; name a folder of images or a video file")
    if (path / TRAIN_FOLDER).is_dir():
        return [FrameSource("training", path, find_pairs(path / TRAIN_FOLDER).pairs)]
    if (path / "images").is_dir():
        return [FrameSource("folder", path, find_pairs(path, require_masks=False).pairs)]
    files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    images = [p for p in files if p.suffix.lower() in SUFFIXES]
    found = [FrameSource("video", p) for p in files if p.suffix.lower() in VIDEO_SUFFIXES]
    if images:
        pairs = tuple(Pair(image.stem, image, None) for image in images)
        found.insert(0, FrameSource("folder", path, pairs))
    if not found:
        raise UserError(
            f"{path} holds no image ({', '.join(SUFFIXES)}) and no video "
            f"({', '.join(VIDEO_SUFFIXES)}); name the folder that holds the frames"
        )
    return found


def sample_video(
    path: Path,
    look: Callable[[NDArray[np.uint8]], _Result],
    stride: int = STRIDE,
    most: int = MOST_PER_VIDEO,
) -> tuple[list[tuple[int, _Result]], int]:
    """Decode a video once and look at every `stride`-th frame, from the first on.

    When more than `most` frames have been seen, every second one is dropped and the stride
    doubled: a long video is covered to its end, whatever its header says of its length.

    Args:
        path: the video file.
        look: gets a frame (H, W, 3) uint8 RGB; its results are kept, the frames are not.
        stride: in frames, at least 1.
        most: largest number of results.

    Returns:
        (frame number from 0, result) in order, and the stride that remained.

    Raises:
        UserError: the video cannot be decoded.
    """
    seen: list[tuple[int, _Result]] = []
    last, bad = -1, 0
    with contextlib.closing(VideoDecoder(path)) as video:
        expected = video.expected or 0
        with progress(expected, f"decoding {path.name}") as advance:
            for picture in video.pictures():
                last += 1
                advance()
                bad += not picture.good
                if last % stride or not picture.good:
                    continue
                seen.append((last, look(_rgb(picture))))
                if len(seen) > most:
                    stride *= 2
                    seen = [(number, one) for number, one in seen if number % stride == 0]
    if not seen:
        raise UserError(
            f"{path} cannot be decoded as a video; convert it, for example to H.264 in mp4"
        )
    # headers are off by a few frames; a truncated file lacks more
    if last + 1 < 0.9 * expected:
        info(f"{path.name}: only {last + 1} of {expected} frames can be decoded; those are used")
    if bad:
        info(f"{path.name}: {bad} of {last + 1} frames cannot be decoded; they are not used")
    return seen, stride


def read_video_frames(
    path: Path, numbers: Sequence[int]
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Decode a video from its beginning and give out some of its frames.

    Args:
        path: the video file.
        numbers: frame numbers from 0, ascending.

    Yields:
        (number, (H, W, 3) uint8 RGB).

    Raises:
        UserError: the video cannot be decoded, or ends before the last of them.
    """
    wanted = set(numbers)
    with contextlib.closing(VideoDecoder(path)) as video:
        for number, picture in enumerate(video.pictures()):
            if number in wanted:
                if not picture.good:
                    raise UserError(f"{path}: frame {number} cannot be decoded; convert the video")
                wanted.remove(number)
                yield number, _rgb(picture)
            if not wanted:
                return
    raise UserError(f"{path} ends before frame {min(wanted)}; it has changed since it was sampled")


def _rgb(picture: Picture) -> NDArray[np.uint8]:
    return np.ascontiguousarray(picture.bgr()[..., ::-1])
