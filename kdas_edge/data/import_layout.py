"""Which image of a folder goes with which mask, by a layout that a person gives. No torch."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from kdas_edge.data.coco import CocoImage, read_coco
from kdas_edge.data.discovery import (
    MaskFinder,
    Tree,
    frame_numbers,
    group_of,
    list_tree,
    matching,
    printable,
    propose,
)
from kdas_edge.data.layout import NESTED
from kdas_edge.errors import UserError
from kdas_edge.recipe_text import read_values


@dataclass(frozen=True)
class Layout:
    """How the folder is laid out; the keys of a layout YAML.

    Attributes:
        images: glob of the images, relative; None for every picture that is no mask.
        masks: template of the mask of an image, see `discovery.MaskFinder`; None to find it out.
        group: what tells patient, examination or video: the pattern of a folder's name, or a
            regular expression on the path.
        polyp_free: glob of images that are known to have no polyp and have no mask.
        coco: a COCO file with polygons or run lengths, relative to the folder; instead of masks.
        categories: of the COCO file, those that are polyp; all by default.
        videos: glob of videos of which some frames have masks; `{frame}` in `masks` is the number.
        first_frame: number of a video's first frame in the names of the masks, 0 or 1.
        mask_values: see `masks.parse_mask_values`.
    """

    images: str | None = None
    masks: str | None = None
    group: str | None = None
    polyp_free: str | None = None
    coco: str | None = None
    categories: tuple[str, ...] = ()
    videos: str | None = None
    first_frame: int = 0
    mask_values: str | None = None


@dataclass(frozen=True)
class Left:
    """A file that was not taken, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class Item:
    """One pair to be taken.

    Attributes:
        name: in the new folder.
        source: the image, relative; of a video's frame `VIDEO#NUMBER`.
        group: patient, examination or video, where it is known.
        file: the image or video file.
        frame: number from 0 in the video; None for an image.
        mask: the mask file; None for a polyp-free frame, and where `coco` has the mask.
        coco: the image in the COCO file.
    """

    name: str
    source: str
    group: str | None
    file: Path
    frame: int | None = None
    mask: Path | None = None
    coco: CocoImage | None = None


def read_layout(path: Path) -> Layout:
    """Read a layout YAML; its keys are those of `Layout`.

    Raises:
        UserError: not such a file.
    """
    values = read_values(path)
    known = asdict(Layout())
    wrong = sorted(set(values) - set(known))
    if wrong:
        raise UserError(f"{path}: {wrong[0]!r} is no key of a layout; use {', '.join(known)}")
    first = values.pop("first_frame", 0)
    categories = values.pop("categories", [])
    texts = {key: str(value) for key, value in values.items() if value is not None}
    if first not in (0, 1) or not isinstance(categories, list):
        raise UserError(f"{path}: first_frame is 0 or 1, categories a list of names")
    return Layout(**texts, first_frame=first, categories=tuple(map(str, categories)))


def find_items(tree: Tree, layout: Layout, left: list[Left]) -> list[Item]:
    """Pair the images of a folder with their masks.

    Args:
        tree: the folder's files.
        layout: how it is laid out.
        left: gets what cannot be paired, and why.

    Returns:
        One item a pair, by name.

    Raises:
        UserError: an option that matches nothing.
    """
    items: list[Item] = []
    used: set[PurePosixPath] = set()
    pictures = tree.pictures if layout.images is None else matching(tree.pictures, layout.images)
    if layout.images is not None and not pictures and layout.coco is None:
        raise UserError(
            f"--images {layout.images!r} matches no picture below {tree.root}"
            + _suggestion(tree, ", which holds pictures such as ")
        )
    if layout.coco is not None:
        items = _coco_items(tree, layout, left)
    elif layout.videos is not None:
        items, used = _video_items(tree, layout, left)
    else:
        items, used = _paired_items(tree, list(pictures), layout, left)
    free = [] if layout.polyp_free is None else matching(tree.pictures, layout.polyp_free)
    if layout.polyp_free is not None and not free:
        raise UserError(f"--polyp-free {layout.polyp_free!r} matches no picture of {tree.root}")
    known = {item.source for item in items}
    for path in free:
        if printable(path.as_posix()) not in known and path not in used:
            items.append(_item(tree, path, layout))
    names = Counter(item.name for item in items)
    for item in [item for item in items if names[item.name] > 1]:
        left.append(Left(item.source, f"another image has its name {item.name}"))
    free_names = {printable(path.as_posix()) for path in free}
    left[:] = [one for one in left if one.file not in free_names]
    return sorted((i for i in items if names[i.name] == 1), key=lambda item: item.name)


def _item(
    tree: Tree,
    path: PurePosixPath,
    layout: Layout,
    mask: PurePosixPath | None = None,
    coco: CocoImage | None = None,
) -> Item:
    group = None if layout.group is None else group_of(path, layout.group)
    return Item(
        _name(path),
        printable(path.as_posix()),
        group,
        file=tree.root / path,
        mask=None if mask is None else tree.root / mask,
        coco=coco,
    )


def _name(path: PurePosixPath) -> str:
    """A name without folders that hold nothing but images."""
    parts = [part for part in path.with_suffix("").parts if part.lower() not in ("images", "img")]
    return printable(NESTED.join(parts)).replace(" ", "_").replace("?", "_")


def _paired_items(
    tree: Tree, pictures: Sequence[PurePosixPath], layout: Layout, left: list[Left]
) -> tuple[list[Item], set[PurePosixPath]]:
    template = layout.masks
    if template is None:
        proposal = propose(tree)
        if proposal is None:
            raise UserError(
                f"no masks are found below {tree.root}; say how they are called with --masks, for "
                "example --masks '{stem}_mask.png', or name a COCO file with --coco"
            )
        template = proposal.masks
    finder = MaskFinder(tree.pictures, template)
    found: dict[PurePosixPath, list[PurePosixPath]] = {}
    for path in pictures:
        group = None if layout.group is None else group_of(path, layout.group)
        found[path] = finder.find(path, group or "")
    masks = {mask for candidates in found.values() for mask in candidates}
    items = []
    for path, candidates in found.items():
        if path in masks:
            continue
        item = _item(tree, path, layout, candidates[0] if candidates else None)
        if len(candidates) != 1:
            several = ", ".join(one.as_posix() for one in candidates[:3])
            reason = f"several masks fit: {several}" if candidates else f"no mask {template}"
            left.append(Left(printable(path.as_posix()), reason))
        elif layout.group is not None and item.group is None:
            left.append(Left(printable(path.as_posix()), f"no group {layout.group} in its path"))
        else:
            items.append(item)
    return items, masks


def _coco_items(tree: Tree, layout: Layout, left: list[Left]) -> list[Item]:
    path = tree.root / str(layout.coco)
    by_name: dict[str, list[PurePosixPath]] = {}
    for picture in tree.pictures:
        by_name.setdefault(picture.name, []).append(picture)
    items = []
    for image in read_coco(path, layout.categories):
        wanted = PurePosixPath(image.file_name.replace("\\", "/"))
        ends = [
            one
            for one in by_name.get(wanted.name, [])
            if one.parts[-len(wanted.parts) :] == wanted.parts
        ] or by_name.get(wanted.name, [])
        if len(ends) == 1:
            items.append(_item(tree, ends[0], layout, coco=image))
        else:
            reason = "several files have this name" if ends else f"not below {tree.root.name}"
            left.append(Left(image.file_name, reason))
    known = {item.source for item in items}
    rest = [one for one in map(str, tree.pictures) if printable(one) not in known]
    left.extend(Left(printable(one), f"not in {layout.coco}") for one in rest)
    return items


def _video_items(
    tree: Tree, layout: Layout, left: list[Left]
) -> tuple[list[Item], set[PurePosixPath]]:
    videos = matching(tree.videos, str(layout.videos))
    if not videos:
        raise UserError(f"--videos {layout.videos!r} matches no video below {tree.root}")
    items: list[Item] = []
    used: set[PurePosixPath] = set()
    for video in videos:
        masks = frame_numbers(tree.pictures, video, layout.masks or "{stem}_{frame}.*")
        if not masks:
            left.append(Left(printable(video.as_posix()), "no frame of it has a mask"))
            continue
        group = video.stem if layout.group is None else group_of(video, layout.group)
        numbers = {number - layout.first_frame: mask for number, mask in masks.items()}
        if min(numbers) < 0:
            raise UserError(f"{video}: a mask of frame 0, but --first-frame is 1; leave it out")
        for number, mask in sorted(numbers.items()):
            shown = number + layout.first_frame
            items.append(
                Item(
                    f"{_name(video)}_{shown:06}",
                    f"{printable(video.as_posix())}#{shown}",
                    group,
                    file=tree.root / video,
                    frame=number,
                    mask=tree.root / mask,
                )
            )
        used |= set(masks.values())
    return items, used


def nothing_fits(tree: Tree, left: list[Left]) -> str:
    """Say in one line why nothing was found, and which options would find something."""
    why = f": {left[0].file}: {left[0].reason}" if left else ""
    return f"nothing below {tree.root} fits the layout{why}" + _suggestion(tree, "")


def hint(root: Path, pairs: int) -> str:
    """The command that reads more of a folder than the `pairs` that our layout reads, or ""."""
    if not root.is_dir():
        return ""
    tree = list_tree(root)
    proposal = propose(tree)
    if proposal is None or proposal.pairs <= pairs:
        listed = f"{len(tree.pictures)} pictures, {len(tree.videos)} videos"
        coco = [str(one) for one in tree.others if one.suffix.lower() == ".json"]
        if pairs or not (tree.pictures or tree.videos):
            return ""
        return f"; it holds {listed}; name a COCO file with kdas-edge data import --coco" + (
            f" {coco[0]}" if coco else ", or the masks with --masks"
        )
    return f"; `kdas-edge data import {root} OUT {proposal.options()}` reads {proposal.pairs} pairs"


def _suggestion(tree: Tree, otherwise: str) -> str:
    proposal = propose(tree)
    if proposal is not None:
        return f"; try {proposal.options()}"
    return f"{otherwise}{tree.pictures[0]}" if tree.pictures and otherwise else ""
