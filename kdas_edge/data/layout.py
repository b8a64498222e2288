"""Finding image/mask pairs on disk and reading masks. No torch.

Two layouts are understood: PraNet's (`TrainDataset/{images,masks}` and
`TestDataset/<set>/{images,masks}`) and a plain folder with `images/` and, usually, `masks/`.
An image and its mask share the stem of their file name.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdas_edge.data.masks import MaskValues, parse_mask_values, read_mask
from kdas_edge.errors import UserError
from kdas_edge.files import real_path
from kdas_edge.image_files import SUFFIXES, open_image, pending_turn, read_image

__all__ = ["read_mask"]

TRAIN = "train"
# joins the folders of an image below images/ to its name
NESTED = "__"


@dataclass(frozen=True)
class Pair:
    """An image file and its mask file.

    Attributes:
        name: stem of the file names, behind the folders below images/.
        image: the image file.
        mask: the mask file; None for frames without ground truth.
        mask_values: which values of the mask are polyp; None for the rule of `masks`.
        polyp_free: known to have no polyp; its mask is empty and needs no file.
    """

    name: str
    image: Path
    mask: Path | None
    mask_values: MaskValues | None = None
    polyp_free: bool = False


@dataclass(frozen=True)
class ImageSet:
    """A named set of pairs, sorted by name, e.g. `train`, `Kvasir`."""

    name: str
    root: Path
    pairs: tuple[Pair, ...]


def list_images(folder: Path) -> list[Path]:
    """Return the image files directly in `folder`, sorted by name.

    Raises:
        UserError: the folder does not exist or holds no image.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; check the path")
    # names with a leading dot are what macOS leaves beside copied files
    files = sorted(
        p
        for p in folder.iterdir()
        if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and not p.is_dir()
    )
    if not files:
        raise UserError(f"{folder} holds no image ({', '.join(SUFFIXES)})")
    return files


def named_files(folder: Path) -> list[tuple[str, Path]]:
    """Name the image files in `folder` and below: `a/b/c.png` is `a__b__c`. Sorted by name.

    Raises:
        UserError: the folder does not exist or holds no image.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; check the path")
    found: list[tuple[str, Path]] = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        for file in files:
            path = Path(place, file)
            if path.suffix.lower() in SUFFIXES and not file.startswith("."):
                parts = path.relative_to(folder).with_suffix("").parts
                found.append((NESTED.join(parts), path))
    if not found:
        raise UserError(f"{folder} holds no image ({', '.join(SUFFIXES)})")
    return sorted(found)


def find_pairs(
    root: Path,
    name: str | None = None,
    require_masks: bool = True,
    mask_values: str | None = None,
) -> ImageSet:
    """Pair `root/images` with `root/masks` by stem, and by sub-folder where there are such.

    Args:
        root: the folder of one set.
        name: name of the set; the folder's own by default.
        require_masks: refuse an image without a mask. Otherwise its `mask` is None.
        mask_values: see `masks.parse_mask_values`; None for the rule of `masks`.

    Raises:
        UserError: absent folder, no image, a mask missing, or two files with one stem.
    """
    values = None if mask_values is None else parse_mask_values(mask_values)
    images = named_files(root / "images")
    masks: dict[str, Path] = {}
    if require_masks or (root / "masks").is_dir():
        for stem, path in named_files(root / "masks"):
            if stem in masks:
                raise UserError(f"two masks named {stem!r} in {root / 'masks'}; remove one")
            masks[stem] = path
    pairs: dict[str, Pair] = {}
    for stem, path in images:
        if stem in pairs:
            raise UserError(f"two images named {stem!r} in {root / 'images'}; remove one")
        if require_masks and stem not in masks:
            raise UserError(
                f"{path} has no mask {stem}.* in {root / 'masks'}; "
                "add it, or see `kdas-edge data check`"
            )
        pairs[stem] = Pair(stem, path, masks.get(stem), values)
    return ImageSet(name or root.name, root, tuple(pairs.values()))


def set_folders(root: Path) -> dict[str, Path]:
    """Return the folders of the sets under `root` by name, whatever they hold; see `find_sets`.

    Raises:
        UserError: `root` does not exist or is neither layout.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; check the path of the data")
    if (root / "images").is_dir():
        # "." and ".." have no name of their own
        return {real_path(root).name: root}
    folders: dict[str, Path] = {}
    if (root / "TrainDataset").is_dir():
        folders[TRAIN] = root / "TrainDataset"
    tests = root / "TestDataset"
    if (tests / "images").is_dir():
        folders[tests.name] = tests
    elif tests.is_dir():
        for folder in sorted(tests.iterdir()):
            if folder.is_dir() and not folder.name.startswith((".", "__")):
                if folder.name == TRAIN:
                    raise UserError(f"{folder}: a test set cannot be named {TRAIN!r}; rename it")
                folders[folder.name] = folder
    if not folders:
        raise UserError(
            f"{root} holds neither TrainDataset/ and TestDataset/ nor images/ and masks/"
        )
    return folders


def find_sets(root: Path, mask_values: str | None = None) -> dict[str, ImageSet]:
    """Find the training set (key `train`) and the test sets (by folder name) under `root`.

    A plain `images/ + masks/` folder is one set under its own name; `training_set` and
    `test_sets` say which use is meant.

    Raises:
        UserError: `root` does not exist or is neither layout.
    """
    return {
        name: find_pairs(folder, name, mask_values=mask_values)
        for name, folder in set_folders(root).items()
    }


def training_set(root: Path, mask_values: str | None = None) -> ImageSet:
    """The set to train on: `TrainDataset`, or a plain folder itself.

    Raises:
        UserError: there is none.
    """
    sets = find_sets(root, mask_values)
    if TRAIN in sets:
        return sets[TRAIN]
    if (root / "images").is_dir():
        return next(iter(sets.values()))
    raise UserError(f"{root} has no TrainDataset/{{images,masks}}; name the folder above it")


def test_sets(root: Path, mask_values: str | None = None) -> dict[str, ImageSet]:
    """The sets to evaluate on: everything in `TestDataset`, or a plain folder itself.

    Raises:
        UserError: there is none.
    """
    sets = {name: found for name, found in find_sets(root, mask_values).items() if name != TRAIN}
    if not sets:
        raise UserError(f"{root} has no TestDataset/<set>/{{images,masks}}")
    return sets


def read_pair(pair: Pair) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Read an image (H, W, 3) uint8 RGB and its mask (H, W) bool.

    Raises:
        UserError: unreadable files, no mask, sizes that differ, or only one of the two has an EXIF
            orientation.
    """
    if pair.mask is None and pair.polyp_free:
        image = read_image(pair.image)
        return image, np.zeros(image.shape[:2], bool)
    if pair.mask is None:
        raise UserError(f"{pair.image} has no mask")
    image, mask = read_image(pair.image), read_mask(pair.mask, pair.mask_values)
    problem = orientation_problem(pair.image, pair.mask, image.shape[:2], mask.shape)
    if problem:
        raise UserError(f"{pair.image}: {problem}")
    if image.shape[:2] != mask.shape:
        raise UserError(
            f"{pair.mask} is {mask.shape[1]}×{mask.shape[0]} pixels but its image is "
            f"{image.shape[1]}×{image.shape[0]}; export the mask again at the image's size"
        )
    return image, mask


def orientation_problem(
    image: Path, mask: Path, image_size: tuple[int, ...], mask_size: tuple[int, ...]
) -> str:
    """What is wrong with the EXIF orientations of a pair, or "".

    A picture is shown turned as its EXIF orientation says. A mask without one may have been drawn
    on what was shown, or on what is stored: where both have one size, the files do not tell.

    Args:
        image: the image file.
        mask: the mask file.
        image_size: (height, width) of the upright image.
        mask_size: (height, width) of the upright mask.
    """
    turns = []
    for path in (image, mask):
        with open_image(path) as opened:
            turns.append(pending_turn(opened))
    height, width = image_size
    quarter = turns[0] >= 5 and turns[1] == 1 and height != width
    # of a quarter turn the sizes tell: they fit the picture as it is shown, or not at all
    if turns[0] == turns[1] or image_size != mask_size or quarter:
        return ""
    has, lacks = ("the image", "its mask") if turns[0] != 1 else ("the mask", "the image")
    return (
        f"{has} has EXIF orientation {max(turns)} and {lacks} {min(turns)}, so that it is not "
        "known whether they fit; save both upright, without the tag"
    )


def resize_image(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize (H, W, 3) uint8 with PIL's antialiased bilinear filter: the resize that trains.

    Every path to the network uses this function or reproduces it in the graph; OpenCV's
    INTER_LINEAR costs seven thousandths of Dice (measured, docs of the export).
    """
    if image.shape[:2] == (height, width):
        return image
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.uint8)


def resize_mask(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """Resize a (H, W) bool mask: antialiased bilinear, then half-way threshold."""
    if mask.shape == (height, width):
        return mask
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    resized = grey.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.uint8) > 127
