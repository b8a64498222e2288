"""Writes a calibration set: copies of the frames, their records, a contact sheet."""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.console import progress
from kdas_edge.data.features import FEATURES
from kdas_edge.data.frames import FrameSource, read_video_frames
from kdas_edge.files import write_bytes_atomic
from kdas_edge.image_files import read_image
from kdas_edge.quantize.calibration.candidates import Candidate
from kdas_edge.quantize.calibration.manifest import FRAMES, FrameRecord
from kdas_edge.quantize.calibration.overview import contact_sheet, tile

OVERVIEW = "overview.jpg"


def write_frames(
    chosen: Sequence[Candidate], sources: Sequence[FrameSource], folder: Path
) -> list[FrameRecord]:
    """Write `frames/` and `overview.jpg` (from dark to bright) into a folder.

    Args:
        chosen: in the order of their sources and files.
        sources: all of them.
        folder: exists and is empty.

    Returns:
        A record for each frame.

    Raises:
        UserError: a file or a video is not what it was when it was measured.
    """
    (folder / FRAMES).mkdir()
    records, tiles = [], []
    with progress(len(chosen), "writing frames") as advance:
        for one, name, digest, image in _copy(chosen, folder / FRAMES):
            records.append(record(one, f"{FRAMES}/{name}", digest, sources))
            tiles.append((one.look.appearance[0], tile(image, one.look.polyp)))
            advance()
    tiles.sort(key=lambda pair: pair[0])
    write_bytes_atomic(folder / OVERVIEW, contact_sheet(picture for _, picture in tiles))
    return records


def path_of(candidate: Candidate, sources: Sequence[FrameSource]) -> str:
    """The path of a candidate's file, relative to its source."""
    return sources[candidate.source].relative(candidate.file)


def record(
    candidate: Candidate, file: str | None, digest: str, sources: Sequence[FrameSource]
) -> FrameRecord:
    """The record of a candidate; `file` and `digest` are of its copy, or None and of itself."""
    look = candidate.look
    masked = any(
        pair.image == candidate.file and pair.mask is not None
        for pair in sources[candidate.source].pairs
    )
    return FrameRecord(
        name=candidate.name,
        file=file,
        sha256=digest,
        pixels=look.digest,
        source=candidate.source,
        path=path_of(candidate, sources),
        video_frame=candidate.video_frame,
        features={**dict(zip(FEATURES[:-1], look.appearance, strict=True)), "polyp": look.polyp},
        polyp_from=None if look.polyp is None else "mask" if masked else "student",
    )


def _copy(
    chosen: Sequence[Candidate], folder: Path
) -> Iterator[tuple[Candidate, str, str, NDArray[np.uint8]]]:
    """Copy the chosen frames into a folder; yields each with its file name, hash and pixels."""
    videos: dict[Path, Iterator[tuple[int, NDArray[np.uint8]]]] = {}
    for number, one in enumerate(chosen):
        name = f"{number:04d}_{one.name}"
        if one.video_frame is None:
            name += one.file.suffix.lower()
            shutil.copyfile(one.file, folder / name)
            image = read_image(folder / name)
        else:
            if one.file not in videos:
                wanted = [c.video_frame for c in chosen if c.file == one.file]
                videos[one.file] = read_video_frames(one.file, [n for n in wanted if n is not None])
            _, image = next(videos[one.file])
            name += ".png"
            _, encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            (folder / name).write_bytes(encoded.tobytes())
        yield one, name, hashlib.sha256((folder / name).read_bytes()).hexdigest(), image
