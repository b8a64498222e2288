"""The labelled sets and polyp-free frames of a recipe, each with its centre. No torch."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kdas_edge.data.centres import centres_of
from kdas_edge.data.discovery import list_tree
from kdas_edge.data.heldout import HeldOut, has_tests, read_test_images
from kdas_edge.data.import_layout import find_items, read_layout
from kdas_edge.data.layout import TRAIN, ImageSet, Pair, find_pairs, list_images, training_set
from kdas_edge.data.masks import parse_mask_values, read_mask
from kdas_edge.data.parallel import parallel_map
from kdas_edge.data.splits import Split
from kdas_edge.errors import UserError
from kdas_edge.files import real_path
from kdas_edge.recipe import DataRecipe, SourceRecipe

# frames of one sequence differ in the number at the end of their names
_SEQUENCE = r"^(.+?)[_-]\d+\.[^.]+$"


@dataclass(frozen=True)
class Source:
    """One folder of a recipe.

    Attributes:
        label: short name, in messages and before the names of its images; "" for `data.root`.
        image_set: its images; those of a negatives folder are `polyp_free`.
        centres: name of each image to its centre.
        share: wanted share of a batch, None as it comes.
        group_by: see `groups.HELP`.
    """

    label: str
    image_set: ImageSet
    centres: dict[str, str]
    share: float | None = None
    group_by: str | None = None


def find_all(recipe: DataRecipe) -> tuple[list[Source], list[Pair]]:
    """Find every labelled and polyp-free image of a recipe.

    Returns:
        The sources to train on, `data.root` first, and the images of `data.leave_centre_out`.

    Raises:
        UserError: an absent folder, a polyp in a negatives folder, a pattern that fits nothing, or
            a centre to leave out that does not exist.
    """
    first = training_set(Path(recipe.root), recipe.mask_values)
    if recipe.limit is not None:
        # spread over the set: the first files of a sorted folder are often one video
        step = max(1, len(first.pairs) // recipe.limit)
        first = replace(first, pairs=first.pairs[::step][: recipe.limit])
    rules = recipe.centres or [real_path(Path(recipe.root)).name]
    names = [pair.name for pair in first.pairs]
    centres = dict(zip(names, centres_of(names, rules, "data.centres"), strict=True))
    found = [Source("", first, centres, recipe.share, recipe.group_by)]
    labels = Counter(real_path(Path(one.root)).name for one in (*recipe.sources, *recipe.negatives))
    for number, (one, negative) in enumerate(
        [(one, False) for one in recipe.sources] + [(one, True) for one in recipe.negatives]
    ):
        label = real_path(Path(one.root)).name
        label = label if labels[label] == 1 else f"{label}-{number + 1}"
        found.append(_source(one, label, negative))
    return _without_centre(found, recipe.leave_centre_out)


def _source(recipe: SourceRecipe, label: str, negative: bool) -> Source:
    root, key = Path(recipe.root), "data.negatives" if negative else "data.sources"
    if negative:
        pairs = _negatives(root)
    elif recipe.layout is not None:
        pairs = _laid_out(root, Path(recipe.layout), recipe.mask_values)
    else:
        pairs = training_set(root, recipe.mask_values).pairs
    group_by = recipe.group_by
    if group_by is None and all(re.search(_SEQUENCE, pair.image.name) for pair in pairs):
        group_by = _SEQUENCE if negative else None
    names = [pair.name for pair in pairs]
    centres = centres_of(names, recipe.centres or [label], f"{key} {root}: centres")
    renamed = tuple(replace(pair, name=f"{label}/{pair.name}") for pair in pairs)
    by_name = {pair.name: centre for pair, centre in zip(renamed, centres, strict=True)}
    folder = root / "TrainDataset" if (root / "TrainDataset").is_dir() else root
    return Source(label, ImageSet(TRAIN, folder, renamed), by_name, recipe.share, group_by)


def _negatives(root: Path) -> tuple[Pair, ...]:
    if (root / "images").is_dir():
        pairs = find_pairs(root, require_masks=False).pairs
    else:
        pairs = tuple(Pair(path.stem, path, None) for path in list_images(root))
    masked = [pair.mask for pair in pairs if pair.mask is not None]
    bearing = parallel_map(lambda mask: bool(read_mask(mask).any()), masked, "checking negatives")
    for mask, polyp in zip(masked, bearing, strict=True):
        if polyp:
            raise UserError(
                f"data.negatives {root}: {mask} marks a polyp; name the folder in data.sources"
            )
    return tuple(replace(pair, mask=None, polyp_free=True) for pair in pairs)


def _laid_out(root: Path, layout: Path, mask_values: str | None) -> tuple[Pair, ...]:
    found = read_layout(layout)
    if found.coco is not None or found.videos is not None:
        raise UserError(
            f"{layout}: COCO files and videos are not read in place; take them in with "
            "kdas-edge data import"
        )
    text = mask_values if mask_values is not None else found.mask_values
    values = None if text is None else parse_mask_values(text)
    items = find_items(list_tree(root), found, [])
    if not items:
        raise UserError(f"data.sources {root}: its layout {layout} fits nothing")
    return tuple(
        Pair(item.name, item.file, item.mask, values, polyp_free=item.mask is None)
        for item in items
    )


def _without_centre(
    sources: Sequence[Source], centre: str | None
) -> tuple[list[Source], list[Pair]]:
    if centre is None:
        return list(sources), []
    known = sorted({name for source in sources for name in source.centres.values()})
    if centre not in known:
        raise UserError(
            f"data.leave_centre_out {centre!r} is no centre of this recipe; it has "
            f"{', '.join(known)}"
        )
    kept, left = [], []
    for source in sources:
        own = [p for p in source.image_set.pairs if source.centres[p.name] == centre]
        rest = tuple(p for p in source.image_set.pairs if source.centres[p.name] != centre)
        left += own
        if rest:
            kept.append(replace(source, image_set=replace(source.image_set, pairs=rest)))
    if not kept:
        raise UserError(
            f"data.leave_centre_out {centre!r} leaves nothing to train on; name a second centre "
            "in data.sources"
        )
    return kept, left


def refuse_near_tests(sources: Sequence[Source], splits: Sequence[Split]) -> None:
    """Refuse frames of added sources that show a test image of any of the roots.

    `data.root` itself is not refused: published splits hold near duplicates, which are counted.

    Raises:
        UserError: naming the first such frame.
    """
    if len(sources) < 2:
        return
    tests = HeldOut()
    for source in sources:
        root = source.image_set.root.parent
        if source.image_set.root.name == "TrainDataset" and has_tests(root):
            tests = tests + read_test_images(root)
    for source, split in zip(sources, splits, strict=True):
        if not source.label:
            continue
        names = list(split.prints)
        shown = tests.matches([split.prints[name] for name in names])
        near = [(n, match) for n, match in zip(names, shown, strict=True) if match is not None]
        if near:
            more = f" (and {len(near) - 1} more)" if len(near) > 1 else ""
            raise UserError(
                f"{source.image_set.root}: {near[0][0]} is {near[0][1].text}, a test image{more}; "
                "remove such frames, or the test set would be learnt"
            )
