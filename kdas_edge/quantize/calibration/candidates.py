"""Candidate frames for calibration: read once, measured, screened against held-out images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdas_edge.data.duplicates import Fingerprint, fingerprint, pixel_digest
from kdas_edge.data.features import appearance, polyp_share
from kdas_edge.data.frames import FrameSource, sample_video
from kdas_edge.data.heldout import HeldOut
from kdas_edge.data.layout import Pair, read_pair
from kdas_edge.data.parallel import parallel_map
from kdas_edge.image_files import read_image
from kdas_edge.quantize.calibration.selection import Method, feature_matrix, select

# share of the frame that a network marks as polyp, 0…1, from an image (H, W, 3) uint8 RGB
PredictShare = Callable[[NDArray[np.uint8]], float]


@dataclass(frozen=True)
class Look:
    """What stays in memory of a frame.

    Attributes:
        appearance: six numbers, see `features.appearance`.
        polyp: share of the frame that polyps cover, 0…1; None where unknown.
        print: fingerprint.
        digest: of the decoded pixels.
    """

    appearance: tuple[float, ...]
    polyp: float | None
    print: Fingerprint
    digest: str


@dataclass(frozen=True)
class Candidate:
    """A frame that can be chosen.

    Attributes:
        name: stem of the file; for a frame of a video also its number.
        source: number of its source.
        file: the image, or the video.
        video_frame: number in the video from 0; None for an image.
        look: what it is like.
    """

    name: str
    source: int
    file: Path
    video_frame: int | None
    look: Look


@dataclass(frozen=True)
class LeftOut:
    """Why a candidate may not be chosen; `held_out` if it shows what a held-out image shows."""

    reason: str
    held_out: bool


def look_at(
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_] | None = None,
    predict: PredictShare | None = None,
) -> Look:
    """Measure a frame.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool, where there is one.
        predict: gives the polyp's share of a frame without mask; unknown without it.
    """
    share = None
    if mask is not None:
        share = polyp_share(mask)
    elif predict is not None:
        share = predict(image)
    return Look(appearance(image), share, fingerprint(image), pixel_digest(image))


def gather(
    sources: Sequence[FrameSource], stride: int, most: int, predict: PredictShare | None = None
) -> tuple[list[Candidate], list[int | None]]:
    """Read and measure all candidates.

    Args:
        sources: in the order that numbers them.
        stride: of video frames, see `frames.sample_video`.
        most: frames of one video.
        predict: see `look_at`.

    Returns:
        The candidates in the order of their sources and files, and each source's stride: the one
        that remained for a video, None for images.

    Raises:
        UserError: a frame, a mask or a video cannot be read, or sizes differ.
    """
    candidates: list[Candidate] = []
    strides: list[int | None] = []

    def look_at_pair(pair: Pair) -> Look:
        if pair.mask is None:
            return look_at(read_image(pair.image), None, predict)
        return look_at(*read_pair(pair))

    for number, source in enumerate(sources):
        if source.kind == "video":
            seen, remained = sample_video(
                source.path, lambda image: look_at(image, None, predict), stride, most
            )
            strides.append(remained)
            candidates += [
                Candidate(f"{source.path.stem}_{index:06d}", number, source.path, index, look)
                for index, look in seen
            ]
            continue
        looks = parallel_map(look_at_pair, source.pairs, f"reading {source.name}")
        strides.append(None)
        candidates += [
            Candidate(pair.name, number, pair.image, None, look)
            for pair, look in zip(source.pairs, looks, strict=True)
        ]
    return candidates, strides


def screen(
    names: Sequence[str], looks: Sequence[Look], held_out: HeldOut, same_size: bool = True
) -> dict[int, LeftOut]:
    """Find the candidates that show a held-out image, and those that repeat an earlier one.

    Args:
        names: of the candidates.
        looks: of the candidates.
        held_out: the images that must not be seen.
        same_size: the candidates' pixels are those of the file, so that equal ones can be told
            from near duplicates; false for frames that were resized.

    Returns:
        Index of the candidate to the reason, ascending.
    """
    left_out: dict[int, LeftOut] = {}
    digests = [look.digest for look in looks] if same_size else None
    first: dict[str, str] = {}
    matches = held_out.matches([look.print for look in looks], digests)
    for index, (name, look, match) in enumerate(zip(names, looks, matches, strict=True)):
        if match is not None:
            left_out[index] = LeftOut(match.text, True)
        elif look.digest in first:
            left_out[index] = LeftOut(f"the same picture as {first[look.digest]}", False)
        else:
            first[look.digest] = name
    return left_out


def choose(looks: Sequence[Look], count: int, method: Method, seed: int) -> list[int]:
    """Choose frames by what they are like; see `selection.select`.

    Returns:
        Indices in ascending order.
    """
    polyps = [look.polyp for look in looks]
    features = feature_matrix([look.appearance for look in looks], polyps)
    return select(features, polyps, count, method, seed)
