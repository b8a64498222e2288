"""The manifest of a calibration set: its frames, how they were chosen, their hashes."""

from pathlib import Path, PureWindowsPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from kdas_edge.data.duplicates import pixel_digest
from kdas_edge.data.frames import Kind
from kdas_edge.errors import UserError
from kdas_edge.files import read_json, sha256
from kdas_edge.image_files import SUFFIXES, read_image
from kdas_edge.quantize.calibration.selection import Method

SCHEMA = "kdas-edge/calibration/1"
MANIFEST = "manifest.json"
FRAMES = "frames"
_SHA256 = "^[0-9a-f]{64}$"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _stays_inside(path: str) -> str:
    # a manifest made here may be read on Windows, where \\ and C: mean something too
    windows = PureWindowsPath(path)
    if windows.anchor or not windows.parts or ".." in windows.parts:
        raise ValueError(f"{path!r} leads out of the folder")
    return path


class SourceRecord(_Record):
    """Where candidates came from; `stride` in frames, for videos."""

    kind: Kind
    name: str
    candidates: int
    stride: int | None = None


class FrameRecord(_Record):
    """One chosen frame.

    Attributes:
        name: stem of the file, with the number for a video's frame.
        file: the copy, relative to the set; None in a manifest without frames.
        sha256: of the copy's bytes, which for an image are those of the original.
        pixels: SHA-256 of the decoded pixels, see `pixel_digest`: the same picture is known again
            in another lossless file.
        source: number in `sources`.
        path: of the original, relative to the source (the data root for training images).
        video_frame: number in the video from 0.
        features: see `features` of the manifest; polyp None where unknown.
        polyp_from: where the polyp's size comes from.
    """

    name: str
    file: str | None
    sha256: str = Field(pattern=_SHA256)
    pixels: str = Field(pattern=_SHA256)
    source: int = Field(ge=0)
    path: str
    video_frame: int | None = None
    features: dict[str, float | None]
    polyp_from: Literal["mask", "student"] | None = None

    @field_validator("file", "path")
    @classmethod
    def _inside(cls, path: str | None) -> str | None:
        return None if path is None else _stays_inside(path)


class LeftOutRecord(_Record):
    """A candidate that may not be chosen, and why."""

    name: str
    source: int
    path: str
    video_frame: int | None = None
    reason: str


class CalibrationManifest(_Record):
    """A calibration set; equal inputs and an equal seed give equal bytes."""

    schema_: Literal["kdas-edge/calibration/1"] = Field(alias="schema")
    method: Method
    seed: int
    requested: int
    counts: dict[str, int]
    rules: dict[str, float]
    features: dict[str, str]
    student: str | None = None
    test_images_compared: int
    coverage: dict[str, Any]
    distance: dict[str, dict[str, float]]
    sources: list[SourceRecord]
    left_out: list[LeftOutRecord]
    frames: list[FrameRecord] = Field(min_length=1)

    def as_json(self) -> dict[str, Any]:
        """Plain dictionaries and lists, as they are written."""
        return self.model_dump(mode="json", by_alias=True)


def is_set(folder: Path) -> bool:
    """True if a folder claims to be a calibration set: it has a manifest with our schema."""
    path = folder / MANIFEST
    if not path.is_file():
        return False
    content = read_json(path)
    return isinstance(content, dict) and str(content.get("schema", "")).startswith(
        SCHEMA.rpartition("/")[0]
    )


def read_manifest(path: Path) -> CalibrationManifest:
    """Read a manifest.

    Raises:
        UserError: absent, not JSON, of another schema, or with a path that leads out of its folder.
    """
    content = read_json(path)
    found = content.get("schema") if isinstance(content, dict) else None
    if found != SCHEMA:
        raise UserError(
            f"{path} is not a calibration manifest (schema {found!r}, not {SCHEMA!r}); make one "
            "with `kdas-edge calibrate`"
        )
    try:
        return CalibrationManifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{path}: {where}: {first['msg']}; make it again with `kdas-edge calibrate`"
        ) from None


def find_frames(path: Path, root: Path) -> tuple[CalibrationManifest, list[Path]]:
    """Find the frames of a calibration set and check that they are what was chosen.

    Args:
        path: directory of a set, or a manifest without frames.
        root: the data root in which a manifest without frames finds them.

    Returns:
        The manifest, and a file for each of its frames.

    Raises:
        UserError: see `read_manifest`; a frame is missing or has changed; or a manifest without
            frames has others than training images.
    """
    in_set = path.is_dir()
    manifest = read_manifest(path / MANIFEST if in_set else path)
    if not in_set and all(frame.file is not None for frame in manifest.frames):
        # the manifest of a set was named instead of the set
        in_set, path = True, path.parent
    find = _find_in_set if in_set else _find_in_root
    folder = path if in_set else root
    return manifest, [find(path, folder, frame) for frame in manifest.frames]


def _find_in_set(path: Path, folder: Path, frame: FrameRecord) -> Path:
    remedy = "make the set again with `kdas-edge calibrate`"
    if frame.file is None:
        raise UserError(
            f"{path} holds no frames (its manifest was written with --manifest-only); name the "
            f"file {path / MANIFEST}"
        )
    file = folder / frame.file
    if not file.is_file():
        raise UserError(f"{path}: its frame {frame.file} is missing; {remedy}")
    if sha256(file) != frame.sha256:
        raise UserError(f"{path}: its frame {frame.file} has changed since; {remedy}")
    return file


def _find_in_root(path: Path, root: Path, frame: FrameRecord) -> Path:
    remedy = "point data.root to the images it was made from, or make it again"
    file = root / frame.path
    if not file.is_file():
        # the CVC sets go round as PNG, TIFF and lossless WebP
        others = [file.with_suffix(suffix) for suffix in SUFFIXES]
        file = next((other for other in others if other.is_file()), file)
    if not file.is_file():
        raise UserError(f"{path}: its frame {file} is missing; {remedy}")
    if sha256(file) != frame.sha256 and pixel_digest(read_image(file)) != frame.pixels:
        raise UserError(f"{path}: its frame {file} has changed since; {remedy}")
    return file
