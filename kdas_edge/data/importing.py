"""Taking a folder in any layout into ours: pairs, groups, a test part, and a report. No torch.

OUT/ has
  TrainDataset/{images,masks}, TestDataset/NAME/{images,masks}
  groups.csv    image, group; for data.group_by=groups.csv
  import.json   where each pair came from, and what was left out, why
"""

import csv
import io
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdas_edge.data.discovery import list_tree
from kdas_edge.data.duplicates import pixel_digest
from kdas_edge.data.frames import read_video_frames
from kdas_edge.data.import_layout import Item, Layout, Left, find_items, nothing_fits
from kdas_edge.data.layout import TRAIN, find_pairs, orientation_problem
from kdas_edge.data.masks import MaskValues, parse_mask_values, read_mask
from kdas_edge.data.parallel import WORKERS, parallel_map
from kdas_edge.data.splits import validation_split
from kdas_edge.errors import UserError
from kdas_edge.files import (
    check_output_directory,
    real_path,
    staged_directory,
    write_json,
    write_text_atomic,
)
from kdas_edge.image_files import SUFFIXES, open_image, pending_turn, read_image

REPORT = "import.json"
GROUPS = "groups.csv"


@dataclass
class ImportReport:
    """What was taken and what was left.

    Attributes:
        taken: name in the new folder to the image it came from.
        polyp_free: how many of them have no polyp.
        groups: number of groups; 0 where none were asked for.
        test: number of images in the test part.
        left: images and masks that were not taken.
        other_files: suffix to the number of files that are neither picture nor video.
        layout: the layout that was used.
    """

    taken: dict[str, str] = field(default_factory=dict)
    polyp_free: int = 0
    groups: int = 0
    test: int = 0
    left: list[Left] = field(default_factory=list)
    other_files: dict[str, int] = field(default_factory=dict)
    layout: Layout = field(default_factory=Layout)

    def as_json(self) -> dict[str, Any]:
        """A JSON object with all of it."""
        return {"schema": 1, **asdict(self)}


@dataclass(frozen=True)
class _Written:
    item: Item
    error: str = ""
    digest: str = ""
    mask_digest: str = ""
    polyp: bool = False


def import_folder(
    source: Path,
    out: Path,
    layout: Layout,
    test: float = 0.0,
    seed: int = 0,
    link: bool = False,
    overwrite: bool = False,
    workers: int = WORKERS,
) -> ImportReport:
    """Take the pairs of a folder into PraNet's layout.

    Masks become 1-bit PNG, whatever their encoding. An image is copied as it is, or linked; one
    with an EXIF orientation or of a format that is rare becomes an upright PNG. Of images with
    equal pixels the first is taken. Files that do not fit are left and reported.

    Args:
        source: the folder.
        out: the folder to make.
        layout: how it is laid out.
        test: share of the images that become the test part, by whole groups, 0 ≤ test < 1.
        seed: of the choice of the test part.
        link: symbolic links to the images instead of copies.
        overwrite: replace an existing folder.
        workers: threads.

    Raises:
        UserError: nothing fits the layout, a wrong option, or `out` cannot be written.
    """
    if not 0 <= test < 1:
        raise UserError(f"--test {test} is not in 0 ≤ test < 1; try 0.2")
    tree = list_tree(source)
    check_output_directory(out, overwrite, [source])
    values = None if layout.mask_values is None else parse_mask_values(layout.mask_values)
    report = ImportReport(layout=layout)
    report.other_files = dict(Counter(path.suffix.lower() for path in tree.others).most_common())
    items = find_items(tree, layout, report.left)
    if not items:
        raise UserError(nothing_fits(tree, report.left))
    with staged_directory(out, overwrite) as staging:
        train = staging / "TrainDataset"
        for kind in ("images", "masks"):
            (train / kind).mkdir(parents=True)

        def take(item: Item, pixels: NDArray[np.uint8] | None = None) -> _Written:
            try:
                return _take(item, train, link, values, pixels)
            except UserError as error:
                return _Written(item, str(error))

        images = [item for item in items if item.frame is None]
        written = parallel_map(take, images, f"importing {source.name}", workers)
        frames: dict[Path, dict[int, Item]] = {}
        for item in items:
            if item.frame is not None:
                frames.setdefault(item.file, {})[item.frame] = item
        for video, wanted in frames.items():
            for number, pixels in read_video_frames(video, sorted(wanted)):
                written.append(take(wanted[number], pixels))
        taken = _without_duplicates(written, train, report)
        if not taken:
            raise UserError(
                f"no pair of {source} could be taken: {report.left[0].file}: "
                f"{report.left[0].reason}"
            )
        groups = {one.item.name: one.item.group for one in taken if one.item.group}
        report.taken = {one.item.name: one.item.source for one in taken}
        report.polyp_free = sum(not one.polyp for one in taken)
        report.groups = len(set(groups.values()))
        if groups:
            _write_groups(staging / GROUPS, groups)
        if test > 0:
            report.test = _part_off(staging, real_path(source).name, test, seed, bool(groups))
        write_json(staging / REPORT, report.as_json())
    return report


def _take(
    item: Item,
    folder: Path,
    link: bool,
    values: MaskValues | None,
    pixels: NDArray[np.uint8] | None,
) -> _Written:
    """Write one pair; `pixels` are those of a video's frame."""
    image, as_is = pixels, False
    if image is None:
        image = read_image(item.file)
        with open_image(item.file) as opened:
            as_is = pending_turn(opened) == 1 and item.file.suffix.lower() in SUFFIXES
    mask = _mask(item, image, values)
    if as_is:
        target = folder / "images" / f"{item.name}{item.file.suffix.lower()}"
        if link:
            target.symlink_to(real_path(item.file))
        else:
            shutil.copyfile(item.file, target)
    else:
        Image.fromarray(image).save(folder / "images" / f"{item.name}.png")
    Image.fromarray(mask).save(folder / "masks" / f"{item.name}.png", optimize=True)
    return _Written(item, "", pixel_digest(image), pixel_digest(mask), bool(mask.any()))


def _mask(item: Item, image: NDArray[np.uint8], values: MaskValues | None) -> NDArray[np.bool_]:
    if item.coco is not None:
        mask = item.coco.mask()
    elif item.mask is not None:
        mask = read_mask(item.mask, values)
    else:
        return np.zeros(image.shape[:2], bool)
    if mask.shape != image.shape[:2]:
        raise UserError(
            f"the mask is {mask.shape[1]}×{mask.shape[0]} pixels, the image "
            f"{image.shape[1]}×{image.shape[0]}"
        )
    if item.mask is not None and item.frame is None:
        problem = orientation_problem(item.file, item.mask, image.shape[:2], mask.shape)
        if problem:
            raise UserError(problem)
    return mask


def _without_duplicates(
    written: Sequence[_Written], folder: Path, report: ImportReport
) -> list[_Written]:
    """Remove what was written twice; the first of equal images stays."""
    kept: dict[str, _Written] = {}
    for one in written:
        if one.error:
            report.left.append(Left(one.item.source, one.error))
        elif one.digest in kept:
            first = kept[one.digest]
            same = "" if first.mask_digest == one.mask_digest else ", with another mask"
            reason = f"the same picture as {first.item.source}{same}"
            report.left.append(Left(one.item.source, reason))
        else:
            kept[one.digest] = one
            continue
        for kind in ("images", "masks"):
            for path in (folder / kind).glob(f"{_escaped(one.item.name)}.*"):
                path.unlink()
    return list(kept.values())


def _escaped(name: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def _write_groups(path: Path, groups: dict[str, str]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "group"])
    writer.writerows(groups.items())
    write_text_atomic(path, text.getvalue())


def _part_off(staging: Path, name: str, test: float, seed: int, grouped: bool) -> int:
    """Move whole groups from the training to the test part; return the number of images."""
    train = staging / "TrainDataset"
    group_by = GROUPS if grouped else None
    split = validation_split(find_pairs(train, TRAIN), test, seed, group_by=group_by)
    pairs = {pair.name: pair for pair in find_pairs(train).pairs}
    for kind in ("images", "masks"):
        (staging / "TestDataset" / name / kind).mkdir(parents=True)
    for one in split.validation:
        pair = pairs[one]
        assert pair.mask is not None
        for path in (pair.image, pair.mask):
            path.rename(staging / "TestDataset" / name / path.relative_to(train))
    return len(split.validation)
