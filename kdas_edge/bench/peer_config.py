"""The YAML file that says how a model from elsewhere is fed and what its output means.

    name: unet
    size: [352, 352]            # height, width; or one number
    mean: [0.485, 0.456, 0.406]
    std: [0.229, 0.224, 0.225]
    output: logits

Nothing is guessed from the data: what a model was trained with, only its authors know.
"""

import difflib
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from kdas_edge.bundle.manifest import Precision
from kdas_edge.errors import UserError

Resize = Literal[
    "bilinear-antialias", "bicubic-antialias", "bilinear", "bicubic", "area", "nearest"
]
Output = Literal["logits", "probabilities", "two-channel", "two-channel-logits", "classes"]


class PeerConfig(BaseModel):
    """How a model from elsewhere is fed and read.

    Attributes:
        name: in tables; the file's own name by default.
        precision: of the file, for the table: `fp32`, `fp16`, `int8` or `int8_weights`.
        size: height and width of the input in pixels, or one number for a square.
        layout: `NCHW` or `NHWC`.
        color: order of the channels, `RGB` or `BGR`.
        dtype: of the input, `float32` or `uint8`; uint8 is not normalised.
        value_range: what white is before mean and std are applied: 1 or 255.
        mean, std: per channel in the order of `color`: `(x - mean) / std`, in units of
            `value_range`.
        resize: filter from the frame to `size`. `…-antialias` are PIL's, as in torchvision; the
            others OpenCV's.
        output: `logits` (one channel, sigmoid), `probabilities` (one channel), `two-channel`
            (probabilities), `two-channel-logits` (softmax) or `classes` (a class per pixel).
        output_name: which output, for a file that has several.
        polyp_class: channel of the polyp in a two-channel output, or its class.
        threshold: polyp where the probability is above it.
        upsampling: filter from the output to the frame.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = Field(None, min_length=1)
    precision: Precision = "fp32"
    size: tuple[int, int]
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    color: Literal["RGB", "BGR"] = "RGB"
    dtype: Literal["float32", "uint8"] = "float32"
    value_range: Literal[1, 255] = 1
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    resize: Resize = "bilinear-antialias"
    output: Output
    output_name: str | None = None
    polyp_class: int = Field(1, ge=0)
    threshold: float = Field(0.5, ge=0, le=1)
    upsampling: Literal["bilinear", "bicubic", "nearest"] = "bilinear"

    @field_validator("size", mode="before")
    @classmethod
    def _square(cls, value: object) -> object:
        return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("size")
    @classmethod
    def _size(cls, value: tuple[int, int]) -> tuple[int, int]:
        if min(value) < 1:
            raise ValueError("height and width are above 0")
        return value

    @field_validator("std")
    @classmethod
    def _std(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if 0.0 in value:
            raise ValueError("a standard deviation of 0 cannot be divided by")
        return value


def read_peer_config(path: Path) -> PeerConfig:
    """Read the YAML of a peer.

    Raises:
        UserError: unreadable, not a mapping, an unknown key (the nearest is suggested), a key that
            is missing, or a value out of range.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"cannot read --peer-config {path}: {reason}; check the path") from error
    except yaml.YAMLError as error:
        line = " ".join(str(error).split())
        raise UserError(f"{path} is not YAML ({line}); correct the line") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no keys; it states at least size: and output:")
    try:
        return PeerConfig.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{path}: {_first_problem(error)}") from None


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    key = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        known = list(PeerConfig.model_fields)
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
        return f"unknown key {key!r}; {hint}"
    if first["type"] == "missing" and len(first["loc"]) == 1:
        return f"{key!r} is missing; it states at least size: and output:"
    message = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
    return f"{key}: {first['input']!r}: {message[0].lower()}{message[1:]}"
