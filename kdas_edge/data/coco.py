"""COCO annotations, as labelling tools export them: polygons and run lengths to masks. No torch."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.errors import UserError
from kdas_edge.files import read_json
from kdas_edge.image_files import max_pixels

# an export of a hundred thousand polygons has some hundred megabytes
_LARGEST = 2**30


@dataclass(frozen=True)
class CocoImage:
    """An image of a COCO file.

    Attributes:
        file_name: as the file names it, relative to its folder of images.
        height: in pixels.
        width: in pixels.
        segmentations: of the chosen categories; empty for a frame without a polyp.
    """

    file_name: str
    height: int
    width: int
    segmentations: tuple[Any, ...]

    def mask(self) -> NDArray[np.bool_]:
        """All segmentations together as (height, width) bool.

        Raises:
            UserError: a segmentation is none, or does not fit the image.
        """
        mask = np.zeros((self.height, self.width), np.uint8)
        for segmentation in self.segmentations:
            try:
                if isinstance(segmentation, dict):
                    mask |= _run_lengths(segmentation, self.height, self.width)
                else:
                    for polygon in segmentation:
                        points = np.array(polygon, np.float64).reshape(-1, 2)
                        if len(points) < 3 or not np.isfinite(points).all():
                            raise ValueError("a polygon of fewer than three points")
                        limit = 4 * max(mask.shape)
                        whole = np.rint(points.clip(-limit, limit)).astype(np.int32)
                        cv2.fillPoly(mask, [whole], 1)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise UserError(
                    f"{self.file_name}: a segmentation cannot be read ({error}); export it again"
                ) from None
        return mask.astype(bool)


def read_coco(path: Path, categories: Sequence[str] = ()) -> list[CocoImage]:
    """Read the images of a COCO file with their segmentations.

    Args:
        path: the JSON file.
        categories: names of those that are polyp; all by default.

    Raises:
        UserError: not such a file, an unknown category, or annotations that are boxes only.
    """
    content = read_json(path, _LARGEST)
    try:
        names = {one["id"]: str(one["name"]) for one in content.get("categories", [])}
        unknown = sorted(set(categories) - set(names.values()))
        if unknown:
            raise UserError(
                f"{path} has no category {unknown[0]!r}; it has {', '.join(sorted(names.values()))}"
            )
        found: dict[Any, list[Any]] = defaultdict(list)
        for one in content["annotations"]:
            if categories and names.get(one["category_id"]) not in categories:
                continue
            if not one.get("segmentation"):
                raise UserError(
                    f"{path}: annotation {one.get('id')} has a box and no segmentation; export "
                    "polygons or masks"
                )
            found[one["image_id"]].append(one["segmentation"])
        images = [
            CocoImage(
                str(one["file_name"]),
                int(one["height"]),
                int(one["width"]),
                tuple(found.get(one["id"], ())),
            )
            for one in content["images"]
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no COCO file ({error!r}); export it again") from None
    limit = max_pixels()
    for image in images:
        if image.height < 1 or image.width < 1 or image.height * image.width > limit:
            raise UserError(
                f"{path}: {image.file_name} is {image.width}×{image.height} pixels; export it again"
            )
    return images


def _run_lengths(segmentation: dict[str, Any], height: int, width: int) -> NDArray[np.uint8]:
    """A mask of run lengths, column by column, that begin with the background."""
    if [int(side) for side in segmentation["size"]] != [height, width]:
        raise ValueError(f"run lengths of {segmentation['size']} for {[height, width]}")
    counts = segmentation["counts"]
    lengths = _decompressed(counts) if isinstance(counts, str) else [int(one) for one in counts]
    if any(length < 0 for length in lengths) or sum(lengths) != height * width:
        raise ValueError("run lengths that do not add up to the image")
    values = np.arange(len(lengths), dtype=np.uint8) % 2
    return np.repeat(values, lengths).reshape(width, height).T


def _decompressed(text: str) -> list[int]:
    """Run lengths of the string form: 5 bits a character, from the third on as differences."""
    lengths: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f"run lengths with the character {character!r}")
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    return lengths
