"""The contract between the workstation and the device, typed.

A bundle is one directory. `manifest.json` names every other file with its SHA-256; nothing that is
not named there is read. Unknown keys are refused, so that a newer schema is never half-understood.
"""

import json
import math
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from kdas_edge.bundle import digest
from kdas_edge.errors import UserError
from kdas_edge.files import json_bytes, write_bytes_atomic

SCHEMA_VERSION: Final = "1.3"
# 1.1 adds the precision int8_weights, the versions of each model file and the intervals of
# accuracies; 1.2 the preset holoscan, the range of an input's values and two keys of
# `metadata.model_metadata`; 1.3 the manifest's own digest, and golden maps as PNG
_WITHOUT_DIGEST = ("1.0", "1.1", "1.2")
_READABLE = (*_WITHOUT_DIGEST, SCHEMA_VERSION)
FILE_NAME = "manifest.json"
# longer than any of ours, shorter than what fills a screen
_LONGEST_PATH = 255
SBOM_NAME = "sbom.cdx.json"
# of a golden map: the level that stands for a probability of 1
GOLDEN_LEVELS = 65535

# fp16: weights and (where the device has it) arithmetic of 16 bits. int8: weights and activations
# of 8 bits. int8_weights: weights of 8 bits, arithmetic in float.
Precision = Literal["fp32", "fp16", "int8", "int8_weights"]
Format = Literal["openvino", "onnx", "torch"]
Preset = Literal["core", "camera", "holoscan"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
PRESETS: tuple[Preset, ...] = get_args(Preset)


class _Record(BaseModel):
    # validators are built with the first bundle, not while a host imports the segmenter
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        defer_build=True,
        allow_inf_nan=False,
        # not as null: `write_manifest` refuses them
        ser_json_inf_nan="constants",
    )


def _inside(path: str) -> str:
    """Refuse a path that could leave the bundle: absolute, `..`, backslash or drive."""
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or "\\" in path or ":" in path:
        raise ValueError(f"path {_brief(path)} leaves the bundle")
    if len(path) > _LONGEST_PATH:
        raise ValueError(f"path {_brief(path)} is longer than {_LONGEST_PATH} characters")
    return path


class FileRecord(_Record):
    """What a file must be: its size in bytes and SHA-256 (64 hexadecimal digits)."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Normalisation(_Record):
    """`(x / 255 - mean) / std` per RGB channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class InputContract(_Record):
    """What a model file expects.

    `core`: (1, 3, S, S) float32 RGB, already resized and normalised.
    `camera`: (1, H, W, 3) uint8 BGR of any height and width (-1 in `shape`).
    `holoscan`: (1, S, S, 3) float32 RGB of 0…1, already resized; the graph normalises.

    Attributes:
        value_range: smallest and largest value of an element; None in a bundle of a schema before
            1.2, and for `core`, where the normalisation gives each channel a range of its own.
    """

    name: str
    shape: tuple[int, int, int, int]
    layout: Literal["NCHW", "NHWC"]
    dtype: Literal["float32", "uint8"]
    color: Literal["RGB", "BGR"]
    normalised: bool
    resize: str = Field(description="who resizes, with which filter")
    value_range: tuple[float, float] | None = None


class OutputContract(_Record):
    """(1, 2, S, S) float32 probabilities that add up to 1; an arg-max gives the mask."""

    name: str = "probabilities"
    shape: tuple[int, int, int, int]
    channels: tuple[str, str] = ("background", "polyp")


class ModelFile(_Record):
    """One loadable model.

    Attributes:
        path: of the `.xml`, `.onnx` or `.safetensors` file, relative to the bundle; the weights
            of an `.xml` are the `.bin` beside it.
        opset: newest operator set that a node needs: of ONNX's own domain, or of OpenVINO. A
            runtime that is older than it cannot load the file.
        ir_version: of the file format, ONNX's or OpenVINO's.
        written_by: program and version that wrote the file, e.g. `openvino 2026.4.1`.
        metadata: the very strings written into the file (`rt_info/model_info`, `metadata_props`,
            safetensors header).
    """

    precision: Precision
    format: Format
    preset: Preset
    path: str
    opset: int | None = None
    ir_version: int | None = None
    written_by: str | None = None
    metadata: dict[str, str] = {}

    _path_inside = field_validator("path")(_inside)


class Golden(_Record):
    """A frame with the probabilities that the float torch and fake-quantised models gave.

    Attributes:
        frame: PNG, RGB, any size.
        expected: per precision a grey 16-bit PNG of (S, S) polyp probabilities, 65535 being 1;
            before schema 1.3 an `.npy` file, float32.
    """

    frame: str
    expected: dict[Precision, str]

    _frame_inside = field_validator("frame")(_inside)

    @field_validator("expected")
    @classmethod
    def _expected_inside(cls, value: dict[Precision, str]) -> dict[Precision, str]:
        for path in value.values():
            _inside(path)
        return value


class Tolerance(_Record):
    """Largest allowed differences between a runtime and the golden vectors.

    Attributes:
        probability: largest absolute difference of any pixel (fp32).
        disagreement: fraction of mask pixels that may differ, mean over the frames.
    """

    probability: float
    disagreement: float


class AccuracyRecord(_Record):
    """A measured accuracy; metrics are means over the images of the data set.

    Attributes:
        runtime: that computed the masks, e.g. `torch` or `openvino:CPU`.
        intervals: per metric the 95 % bootstrap interval over the images, where it is known.
        trained_on: of the images, those that the network was trained on; None if not known.
        near_duplicates: of the others, those that look like one that it was trained on.
    """

    dataset: str
    protocol: Literal["paper", "deploy"]
    precision: Precision
    runtime: str
    images: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]] = {}
    trained_on: int | None = None
    near_duplicates: int | None = None


class SplitRecord(_Record):
    """Salted hashes of the images of a training, 16 digits each; see `data.lineage`.

    Attributes:
        salt: what was hashed with the pixels.
        train: images that the network, or one that it comes from, was trained on.
        validation: images that chose the best epoch.
        near_duplicates: test images that look like one trained on.
    """

    salt: str = Field(pattern=r"^[0-9a-f]{32}$")
    train: str = Field("", pattern=r"^[0-9a-f]*$")
    validation: str = Field("", pattern=r"^[0-9a-f]*$")
    near_duplicates: str = Field("", pattern=r"^[0-9a-f]*$")


class Provenance(_Record):
    """What made the bundle."""

    created: str
    code_version: str
    packages: dict[str, str]
    recipe: dict[str, Any]
    data_split_sha256: str | None = None
    split: list[SplitRecord] = []
    parameters: int
    multiply_accumulates: int = Field(description="of the float network at `size`")
    notes: dict[str, Any] = {}


class Manifest(_Record):
    """Everything a host must know about a bundle; see the fields.

    Attributes:
        sha256: of the manifest itself, see `bundle.digest`; None before schema 1.3, and in a
            manifest that is not yet written.
    """

    schema_version: Literal["1.0", "1.1", "1.2", "1.3"] = SCHEMA_VERSION
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    name: str
    disclaimer: str = "Research software. No regulatory clearance. Not for clinical use."
    size: int = Field(gt=0, description="side S of the network's square input, in pixels")
    threshold: float = Field(
        0.5, ge=0, le=1, description="polyp where the probability is above this"
    )
    classes: tuple[str, str] = ("background", "polyp")
    normalisation: Normalisation
    inputs: dict[Preset, InputContract]
    output: OutputContract
    models: list[ModelFile]
    golden: list[Golden] = []
    tolerances: dict[Precision, Tolerance] = {}
    accuracy: list[AccuracyRecord] = []
    provenance: Provenance
    files: dict[str, FileRecord]

    @field_validator("files")
    @classmethod
    def _files_inside(cls, value: dict[str, FileRecord]) -> dict[str, FileRecord]:
        for path in value:
            _inside(path)
        return value


def parse_manifest(content: bytes, source: Path) -> Manifest:
    """Read a manifest.

    Args:
        content: the bytes of the file.
        source: its path, for messages.

    Raises:
        UserError: not JSON in UTF-8, another schema version, an unknown or missing key, an unsafe
            path, a number that is not finite, or bytes that do not match the manifest's digest.
    """
    try:
        values = json.loads(
            content.decode("utf-8"), parse_constant=_refuse_number, parse_float=_finite
        )
    except UnicodeDecodeError:
        raise UserError(f"{source} is not UTF-8 text; export the bundle again") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source} is not JSON ({error}); export the bundle again") from None
    if not isinstance(values, dict):
        raise UserError(f"{source} is not a manifest; export the bundle again")
    version = values.get("schema_version")
    if version not in _READABLE:
        raise UserError(
            f"{source} has schema version {_brief(version)}, this kdas-edge reads "
            f"{' and '.join(_READABLE)}; "
            f"install {_writer(values)}"
        )
    try:
        manifest = Manifest.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part)[:80] for part in first["loc"])
        raise UserError(f"{source}: {key}: {first['msg']}; export the bundle again") from None
    _check_digest(manifest, content, source)
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` of a bundle, with its digest where its schema has one.

    Raises:
        UserError: the folder cannot be written, or a number of the manifest is not finite.
    """
    values = manifest.model_dump(mode="json")
    if manifest.schema_version in _WITHOUT_DIGEST:
        del values[digest.KEY]
        content = json_bytes(values, indented=True)
    else:
        content = digest.sealed(values)
    try:
        # what is written can be read: notes and recipe hold values of any kind
        json.loads(content, parse_constant=_refuse_number, parse_float=_finite)
    except ValueError as error:
        raise UserError(f"a manifest cannot be written: {error}; check the measurements") from None
    write_bytes_atomic(folder / FILE_NAME, content)


def _check_digest(manifest: Manifest, content: bytes, source: Path) -> None:
    """A schema has the digest or has it not; so a relabelled manifest is refused, too."""
    if manifest.schema_version in _WITHOUT_DIGEST:
        if manifest.sha256 is not None:
            raise UserError(
                f"{source} says schema {manifest.schema_version}, which has no digest, and holds "
                "one; it was changed, copy the bundle again"
            )
    elif manifest.sha256 is None or not digest.matches(content, manifest.sha256):
        raise UserError(
            f"{source} does not match its own digest; it was changed or damaged, copy the bundle "
            "again"
        )


def _refuse_number(text: str) -> float:
    raise ValueError(f"the number {text} is not finite")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_number(_brief(text))


def _writer(values: dict[str, Any]) -> str:
    """The version to install, if a manifest of an unknown schema still tells it."""
    provenance = values.get("provenance")
    version = provenance.get("code_version") if isinstance(provenance, dict) else None
    if not isinstance(version, str):
        return "the kdas-edge version that wrote it"
    return f"kdas-edge {_brief(version)}, which wrote it, or export the bundle again"


def _brief(value: object) -> str:
    """A value of a file that may be hostile, short enough for a line."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
