"""Reading mask files of any encoding: everything that is not background is polyp. No torch.

The rule, in this order (`--mask-values` replaces it, see `parse_mask_values`):

1. Black is background. A file of two values, black and any other, is read as it stands: labels
   0/1, greys 0/128 or 0/255, 16 and 32 bits, floats, one colour of a palette, red or blue. Edges
   that are smoothed between the two are cut half-way.
2. Several values: labels 1, 2, 3, … and several colours on black are all polyp. A grey ramp from
   black to white is cut in the middle.
3. A transparent pixel is background. Where a file has one colour only, its alpha is the mask.
4. In JPEG, greys up to 24 are black: coding leaves 0 to 8 in what was black.

Anything else is ambiguous and refused: no black at all, separate greys such as 128 beside 255,
negative or non-finite numbers, JPEG with labels. A mask that marks every pixel is refused as well.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.errors import UserError
from kdas_edge.image_files import read_image, read_samples

# JPEG leaves greys up to about here in a mask that is black
JPEG_BLACK = 24
# of the full range: what is near enough to white to be the white of a ramp
_WHITE = 0.9
# greys between black and white that are fewer than this are levels that someone chose
_RAMP = 16
# labels are small numbers; more of them than this are a picture
_LABELS = 64
_COLOURS = 32
_SHOWN = 6


class AmbiguousMaskError(UserError):
    """Which values of a mask are polyp cannot be told from the file."""


class FullMaskError(UserError):
    """A mask marks every pixel of its frame."""


@dataclass(frozen=True)
class MaskValues:
    """The values that a person says are polyp.

    Attributes:
        ranges: lowest and highest value, both included, of grey or palette index.
        colours: red, green and blue, 0…255 each.
    """

    ranges: tuple[tuple[float, float], ...] = ()
    colours: tuple[tuple[int, int, int], ...] = ()


def parse_mask_values(text: str) -> MaskValues:
    """Read the option `--mask-values`: values, ranges and colours with commas between.

    Args:
        text: for example `1`, `1,2`, `128-255` or `#ff0000`. Values are those of the file: of a
            palette the index, of 16 bits 0…65535.

    Raises:
        UserError: not such a list.
    """
    ranges: list[tuple[float, float]] = []
    colours: list[tuple[int, int, int]] = []
    for part in (one.strip() for one in text.split(",")):
        if re.fullmatch("#[0-9a-fA-F]{6}", part):
            red, green, blue = (int(part[at : at + 2], 16) for at in (1, 3, 5))
            colours.append((red, green, blue))
            continue
        number = r"\d{1,10}(?:\.\d{1,10})?"
        found = re.fullmatch(rf"({number})(?:-({number}))?", part)
        low = float(found[1]) if found else 0.0
        high = float(found[2] or found[1]) if found else -1.0
        if low > high:
            raise UserError(
                f"mask values {text!r}: {part!r} is no value; write 1, 1,2, 128-255 or #ff0000"
            )
        ranges.append((low, high))
    return MaskValues(tuple(ranges), tuple(colours))


def read_mask(path: Path, values: MaskValues | None = None) -> NDArray[np.bool_]:
    """Read a mask as (H, W) bool by the rule of this module.

    Args:
        path: the file.
        values: which values are polyp, instead of the rule.

    Raises:
        UserError: the file is absent, empty or corrupt.
        AmbiguousMaskError: the rule does not tell what is polyp.
        FullMaskError: every pixel is polyp.
    """
    mask = decode_mask(path, values)
    if mask.all():
        raise FullMaskError(
            f"{path} marks every pixel as polyp; draw the mask again, leave the image out, or say "
            "which values are polyp with --mask-values (data.mask_values)"
        )
    return mask


def decode_mask(path: Path, values: MaskValues | None = None) -> NDArray[np.bool_]:
    """Do as `read_mask`, but return a mask that marks everything."""
    raw = _read(path)
    if values is not None:
        return _chosen(raw, values)
    try:
        return _by_rule(raw)
    except _UnclearError as unclear:
        held = _held(raw.grey)
        some = ", ".join(f"{value:g}" for value in held[:_SHOWN])
        more = f", … up to {held[-1]:g}" if len(held) > _SHOWN else ""
        raise AmbiguousMaskError(
            f"{path}: which values are polyp is not clear ({unclear}; it holds {some}{more}); say "
            f"which with --mask-values, for example --mask-values {max(held[-1], 1):g} "
            f"(data.mask_values={max(held[-1], 1):g})"
        ) from None


class _UnclearError(Exception):
    """The reason why the rule does not tell."""


@dataclass(frozen=True)
class _Raw:
    """The pixels of a mask file as they are stored.

    Attributes:
        grey: (H, W), the stored number or palette index; of a colour its largest channel.
        colour: (H, W, 3) where the file has colours that differ from grey.
        full: the white of the type: 255, 65535, 1 for floats; None for 32 bits.
        lossy: the values went through JPEG or the like.
        index: (H, W) of a palette.
    """

    grey: NDArray[Any]
    colour: NDArray[Any] | None
    full: float | None
    lossy: bool
    index: NDArray[Any] | None = None


def _read(path: Path) -> _Raw:
    samples = read_samples(path)
    values, lossy = samples.values, _is_lossy(path)
    if samples.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        return _raw(read_image(path), lossy)
    if samples.palette is None:
        return _raw(_small(path, values) if samples.mode == "L" else values, lossy)
    index = values if values.ndim == 2 else values[..., 0]
    colours = samples.palette[np.minimum(index, len(samples.palette) - 1)]
    # a palette that shows all indices in one colour was forgotten: the index is the label
    same = bool((colours == colours[:1, :1]).all())
    return replace(_raw(index if same else colours, lossy), index=index)


def _is_lossy(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(64)
    return head.startswith(b"\xff\xd8") or (b"WEBP" in head[:16] and b"VP8 " in head)


def _small(path: Path, values: NDArray[Any]) -> NDArray[Any]:
    """Labels of PNG files of 2 and 4 bits, which Pillow spreads over 0…255."""
    with path.open("rb") as file:
        head = file.read(26)
    bits = head[24] if head.startswith(b"\x89PNG") else 8
    return values // {2: 85, 4: 17}.get(bits, 1)


def _raw(pixels: NDArray[Any], lossy: bool) -> _Raw:
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8)
    full = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}.get(pixels.dtype.name)
    if pixels.ndim == 2:
        return _Raw(pixels, None, full, lossy)
    channels = pixels.shape[2]
    colour = pixels[..., :1].repeat(3, 2) if channels in (1, 2) else pixels[..., :3]
    if channels in (2, 4):
        alpha = pixels[..., -1]
        if (colour == colour[:1, :1]).all() and alpha.min() != alpha.max():
            return _Raw(alpha, None, full, lossy)
        # a transparent pixel is background; half a pixel is decided with the others
        share = alpha.astype(np.float64) / float(full or alpha.max() or 1)
        colour = np.rint(colour * share[..., None]).astype(pixels.dtype)
    grey = colour.max(axis=2)
    spread = int((grey.astype(np.int64) - colour.min(axis=2)).max())
    return _Raw(grey, colour if spread > (JPEG_BLACK if lossy else 0) else None, full, lossy)


def _chosen(raw: _Raw, values: MaskValues) -> NDArray[np.bool_]:
    slack = JPEG_BLACK if raw.lossy else 0
    mask = np.zeros(raw.grey.shape, bool)
    stored = raw.grey if raw.index is None else raw.index
    for low, high in values.ranges:
        mask |= (stored >= low - slack) & (stored <= high + slack)
    colour = raw.grey[..., None].repeat(3, 2) if raw.colour is None else raw.colour
    for wanted in values.colours:
        mask |= (np.abs(colour.astype(np.float64) - wanted) <= slack).all(axis=2)
    return mask


def _by_rule(raw: _Raw) -> NDArray[np.bool_]:
    grey = raw.grey
    if not np.isfinite(grey).all() or grey.min() < 0:
        raise _UnclearError("numbers below 0 or not finite")
    black = JPEG_BLACK if raw.lossy else 0
    if raw.index is not None and (grey[raw.index == 0] > 0).any():
        raise _UnclearError("the first colour of the palette is not black")
    if raw.lossy and 0 < grey.max() <= 3 and len(_levels(grey)) > 1:
        raise _UnclearError("labels in a lossy file")
    if grey.max() <= black:
        return np.zeros(grey.shape, bool)
    if grey.min() == grey.max():
        return np.ones(grey.shape, bool)
    if grey.min() > black:
        raise _UnclearError("no pixel is black, the background")
    if raw.colour is not None:
        return _coloured(raw, black)
    if raw.lossy:
        _refuse_lossy_levels(grey)
        return np.asarray(grey > float(grey.max()) / 2)
    held = _held(grey)
    if len(held) == 2:
        return np.asarray(grey > 0)
    levels = _levels(grey)
    levels = levels[levels > 0]
    if len(levels) == 1 and levels[0] == held[-1]:
        return np.asarray(grey > float(levels[0]) / 2)
    integers = grey.dtype.kind in "ui" or not np.mod(held, 1).any()
    if integers and held[-1] <= _LABELS and _are_labels(held):
        return np.asarray(grey > 0)
    white = raw.full if raw.full is not None else float(held[-1])
    if held[-1] >= _WHITE * white and (len(held) > _RAMP or not len(levels)):
        return np.asarray(grey > white / 2)
    raise _UnclearError("several greys, no labels 1, 2, 3, … and no ramp from black to white")


def _are_labels(held: NDArray[Any]) -> bool:
    """True for 0, 1, 2, … with gaps at most where a label does not occur in this frame."""
    return bool(held[1] <= 2 and (np.diff(held) <= 2).all()) or len(held) <= 3


def _coloured(raw: _Raw, black: int) -> NDArray[np.bool_]:
    """Several colours on black are polyp; a picture in place of a mask is refused."""
    assert raw.colour is not None
    if raw.lossy:
        _refuse_lossy_levels(raw.grey)
        return np.asarray(raw.grey > max(float(raw.grey.max()) / 2, black))
    wide = raw.colour.astype(np.float64)
    base = float(raw.full or 255) + 1
    codes = (wide[..., 0] * base + wide[..., 1]) * base + wide[..., 2]
    held = np.unique(codes)
    levels = held if len(held) <= _RAMP else _levels(codes)
    brightest = np.array([raw.grey[codes == code].max() for code in levels[:_COLOURS] if code > 0])
    if len(levels) > _COLOURS or not len(brightest):
        raise _UnclearError("many colours, as in a picture")
    if len(held) <= _RAMP:
        # few colours, none between two others: nothing is smoothed
        return np.asarray(raw.grey > 0)
    return np.asarray(raw.grey > float(brightest.min()) / 2)


def _refuse_lossy_levels(grey: NDArray[Any]) -> None:
    """A wide area of a middle grey is no edge that coding has softened."""
    white = float(grey.max())
    between = (grey > white / 4) & (grey < white * 3 / 4)
    if cv2.erode(between.astype(np.uint8), np.ones((7, 7), np.uint8), borderValue=0).any():
        raise _UnclearError("areas of several greys in a lossy file")


def _held(values: NDArray[Any]) -> NDArray[Any]:
    """The values that occur, ascending."""
    if values.dtype in (np.uint8, np.uint16):  # sorting a million pixels takes fifty times as long
        return np.asarray(np.flatnonzero(np.bincount(values.ravel())))
    return np.asarray(np.unique(values))


def _levels(values: NDArray[Any]) -> NDArray[Any]:
    """The values that fill an area: those of pixels whose 3×3 neighbours are all the same."""
    wide = values.astype(np.float64)
    kernel = np.ones((3, 3), np.uint8)
    flat = cv2.erode(wide, kernel) == cv2.dilate(wide, kernel)
    return np.asarray(np.unique(values[flat]))
