"""Finding the images and masks of a folder in any layout. No torch."""

import fnmatch
import itertools
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kdas_edge.errors import UserError
from kdas_edge.image_files import SUFFIXES

# read as well, but written as PNG: no folder of ours is searched for them
OTHER_SUFFIXES = (".gif", ".jp2", ".avif")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".mpg", ".mpeg", ".m4v", ".wmv", ".webm", ".ts")
# how masks are called in published sets and by labelling tools, most specific first
_TEMPLATES = (
    "{stem}_mask.*",
    "{stem}_segmentation.*",
    "{stem}_seg.*",
    "{stem}_gt.*",
    "{stem}_label.*",
    "{stem}-mask.*",
    "mask_{stem}.*",
    "gt_{stem}.*",
    "{name}.*",
)
_MASK_WORDS = ("mask", "ground truth", "groundtruth", "annotation", "label", "segment", "gt")
_SUFFIXES = [one for suffix in (*SUFFIXES, *OTHER_SUFFIXES) for one in (suffix, suffix.upper())]
_FIELDS = ("stem", "name", "parent", "group", "frame")


@dataclass(frozen=True)
class Tree:
    """The files of a folder and of all folders below it.

    Attributes:
        root: the folder.
        pictures: files that may be images or masks, relative, sorted.
        videos: likewise.
        others: all other files.
    """

    root: Path
    pictures: tuple[PurePosixPath, ...]
    videos: tuple[PurePosixPath, ...]
    others: tuple[PurePosixPath, ...]


@dataclass(frozen=True)
class Proposal:
    """How a folder seems to be laid out.

    Attributes:
        images: glob of the images, relative to the root.
        masks: template of the masks.
        pairs: images that have exactly one mask by it.
    """

    images: str
    masks: str
    pairs: int

    def options(self) -> str:
        """The options of `kdas-edge data import` that say so."""
        return f"--images '{self.images}' --masks '{self.masks}'"


def list_tree(root: Path) -> Tree:
    """List a folder; hidden files are passed over, linked folders are not entered.

    Raises:
        UserError: it is no folder.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; check the path")
    kinds: dict[str, list[PurePosixPath]] = defaultdict(list)
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        for file in files:
            path = Path(place, file)
            if file.startswith("."):
                continue
            suffix = path.suffix.lower()
            kind = (
                "picture"
                if suffix in (*SUFFIXES, *OTHER_SUFFIXES)
                else "video"
                if suffix in VIDEO_SUFFIXES
                else "other"
            )
            kinds[kind].append(PurePosixPath(path.relative_to(root).as_posix()))
    return Tree(root, *(tuple(sorted(kinds[kind])) for kind in ("picture", "video", "other")))


def matching(files: Iterable[PurePosixPath], pattern: str) -> list[PurePosixPath]:
    """The files that a glob of the relative path means; `**` stands for any folders."""
    regex = re.compile(_regex(pattern))
    return [path for path in files if regex.fullmatch(path.as_posix())]


def _regex(pattern: str) -> str:
    parts = []
    for part in re.split(r"(\*\*/|\*|\?)", pattern):
        parts.append({"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part)))
    return "".join(parts)


class MaskFinder:
    """Finds the mask of an image by a template.

    The template's last parts are compared with the last parts of each file's path. Of several that
    fit, the one that shares the most folders with the image is taken.

    Args:
        files: where masks are looked for.
        template: file name, perhaps with folders, of a mask; `{stem}`, `{name}`, `{parent}`,
            `{group}` and `{frame}` stand for parts of the image's path, `*` for anything.

    Raises:
        UserError: an unknown field.
    """

    def __init__(self, files: Sequence[PurePosixPath], template: str) -> None:
        unknown = [f for f in re.findall(r"\{(.*?)\}", template) if f not in _FIELDS]
        if unknown or not template:
            raise UserError(
                f"--masks {template!r}: {{{unknown[0] if unknown else ''}}} is unknown; use "
                f"{', '.join(f'{{{name}}}' for name in _FIELDS)}"
            )
        self.template = template
        self.depth = template.count("/") + 1
        self._by_name: dict[str, list[PurePosixPath]] = defaultdict(list)
        for path in files:
            self._by_name[path.name].append(path)

    def find(self, image: PurePosixPath, group: str = "") -> list[PurePosixPath]:
        """The masks of an image: none, one, or several that fit alike."""
        fields = {
            "stem": image.stem,
            "name": image.name,
            "parent": image.parent.name,
            "group": group,
        }
        regex = re.compile(_filled(self.template, fields, _regex, re.escape))
        name = _filled(self.template.rpartition("/")[2], fields, str, str)
        names: Iterable[str] = [name]
        if name.endswith(".*") and "*" not in name[:-2] and "?" not in name:
            names = [f"{name[:-2]}{suffix}" for suffix in _SUFFIXES]
        elif "*" in name or "?" in name:
            names = list(self._by_name)
        found = [
            path
            for one in names
            for path in self._by_name.get(one, ())
            if path != image and regex.fullmatch("/".join(path.parts[-self.depth :]))
        ]
        nearest = max((_shared(image, path) for path in found), default=0)
        return [path for path in found if _shared(image, path) == nearest]


def _filled(
    template: str,
    fields: Mapping[str, str],
    literal: Callable[[str], str],
    value: Callable[[str], str],
) -> str:
    """A template with its fields filled in; `{frame}` without a value stands for anything."""
    parts = re.split(r"\{(\w+)\}", template)
    return "".join(
        (value(fields[part]) if part in fields else literal("*")) if index % 2 else literal(part)
        for index, part in enumerate(parts)
    )


def frame_numbers(
    files: Sequence[PurePosixPath], video: PurePosixPath, template: str
) -> dict[int, PurePosixPath]:
    """The masks of a video by frame number: `{frame}` of the template stands for digits.

    Raises:
        UserError: the template has no `{frame}`, or two masks are of one frame.
    """
    if "{frame}" not in template:
        raise UserError(f"--masks {template!r} needs {{frame}} to name the masks of a video")
    depth = template.count("/") + 1
    fields = {"stem": video.stem, "name": video.name, "parent": video.parent.name}
    parts = [_filled(part, fields, _regex, re.escape) for part in template.split("{frame}")]
    regex = re.compile(r"(\d+)".join(parts))
    found: dict[int, PurePosixPath] = {}
    for path in files:
        match = regex.fullmatch("/".join(path.parts[-depth:]))
        if match:
            number = int(match[1][:12])
            if number in found:
                raise UserError(f"{found[number]} and {path} are both of frame {number} of {video}")
            found[number] = path
    return found


def printable(text: str) -> str:
    """A name without bytes that are no UTF-8, for files that other programs read."""
    return text.encode(errors="replace").decode()


def propose(tree: Tree) -> Proposal | None:
    """Guess a layout: the template by which most images have exactly one mask; None without."""
    best: Proposal | None = None
    masks_in = [path for path in tree.pictures if _is_mask_folder(path)]
    images_out = [path for path in tree.pictures if not _is_mask_folder(path)]
    for template in ("{stem}.*", *_TEMPLATES):
        # in folders of their own, or beside the images
        places = [(masks_in, images_out)] if masks_in else []
        if template not in ("{stem}.*", "{name}.*"):
            places.append((list(tree.pictures), list(tree.pictures)))
        for masks, images in places:
            finder = MaskFinder(masks, template)
            pairs = {image: found for image in images if len(found := finder.find(image)) == 1}
            if not pairs or (best is not None and len(pairs) <= best.pairs):
                continue
            chosen = {found[0] for found in pairs.values()}
            folder = _common_folder(chosen) if masks is masks_in else ""
            wide = _common_glob([image for image in pairs if image not in chosen])
            name = _with_suffix(template, chosen)
            best = Proposal(wide, f"{folder}/{name}" if folder else name, len(pairs))
    return best


def _is_mask_folder(path: PurePosixPath) -> bool:
    return any(word in part.lower() for part in path.parts[:-1] for word in _MASK_WORDS)


def _common_folder(masks: Iterable[PurePosixPath]) -> str:
    """The name of the folder in which all masks lie, or ""."""
    names = {path.parent.name for path in masks}
    return names.pop() if len(names) == 1 else ""


def _with_suffix(template: str, masks: Iterable[PurePosixPath]) -> str:
    suffixes = {path.suffix for path in masks}
    return template[:-1] + suffixes.pop()[1:] if len(suffixes) == 1 else template


def _common_glob(images: Sequence[PurePosixPath]) -> str:
    """A glob that means images of one depth: parts that differ become `*`."""
    depths = Counter(len(image.parts) for image in images)
    depth = depths.most_common(1)[0][0]
    columns = zip(*(image.parts for image in images if len(image.parts) == depth), strict=True)
    parts = [column[0] if len(set(column)) == 1 else "*" for column in columns]
    suffixes = {image.suffix for image in images}
    parts[-1] = f"*{suffixes.pop()}" if len(suffixes) == 1 else "*"
    return "/".join(parts)


def group_of(path: PurePosixPath, pattern: str) -> str | None:
    """The group in a path: the folder that a glob means, or what a regular expression finds.

    Raises:
        UserError: `pattern` is neither.
    """
    for part in path.parts[:-1]:
        if fnmatch.fnmatchcase(part, pattern):
            return part
    try:
        match = re.search(pattern, path.as_posix()) if not _is_glob(pattern) else None
    except re.error as error:
        raise UserError(
            f"--group {pattern!r} is neither a folder's pattern nor a regular expression ({error})"
        ) from None
    return match and (match[1] if match.re.groups else match[0])


def _is_glob(pattern: str) -> bool:
    return bool(re.fullmatch(r"[\w\-. ]*[*?][\w\-. *?]*", pattern)) and ".*" not in pattern


def _shared(first: PurePosixPath, second: PurePosixPath) -> int:
    """How many folders two paths share, from the root on."""
    pairs = zip(first.parts[:-1], second.parts[:-1], strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
