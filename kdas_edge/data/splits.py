"""The validation split: whole groups on one side, recorded with hashes, inherited. No torch."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from kdas_edge.data.duplicates import (
    SAME_CONTENT,
    Fingerprint,
    fingerprint,
    groups,
    pixel_digest,
)
from kdas_edge.data.groups import groups_by
from kdas_edge.data.layout import ImageSet, Pair
from kdas_edge.data.lineage import Lineage, Side, extend
from kdas_edge.data.parallel import WORKERS, parallel_map
from kdas_edge.errors import UserError
from kdas_edge.files import read_json, write_json
from kdas_edge.image_files import read_image

_SCHEMA = 2


@dataclass(frozen=True)
class Split:
    """Which pairs train and which validate, by name, both sorted.

    Attributes:
        train: names of the pairs to train on.
        validation: names of the pairs that choose the best epoch; empty for a fraction of 0.
        sha256: hash of the names and of `hashes`, in one canonical form: two splits with one hash
            have the same images, the same masks and the same sides.
        hashes: name to SHA-256 of the image's bytes followed by its mask's, as
            `cat IMAGE MASK | sha256sum` prints it.
        lineage: what this network and those that it comes from were trained on, by salted hashes
            of the decoded pixels; empty in a split of the first release.
        parts: the split of each source by its label, where there are several.
        inherited: images of which an earlier network decided the side.
        seen: validation images that an earlier network was trained on, because it left no other.
        prints: name to fingerprint, for comparison with test images; never written.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    sha256: str
    hashes: Mapping[str, str] = field(default_factory=dict, repr=False)
    lineage: Lineage = field(default=Lineage(), repr=False, compare=False)
    parts: Mapping[str, "Split"] = field(default_factory=dict, repr=False, compare=False)
    inherited: int = field(default=0, compare=False)
    seen: int = field(default=0, compare=False)
    prints: Mapping[str, Fingerprint] = field(default_factory=dict, repr=False, compare=False)


def validation_split(
    image_set: ImageSet,
    fraction: float = 0.1,
    seed: int = 0,
    workers: int = WORKERS,
    threshold: float = SAME_CONTENT,
    group_by: str | None = None,
    before: Lineage = Lineage(),
    only_unseen: bool = False,
) -> Split:
    """Cut a validation set from a training set by whole groups.

    Near-duplicate frames (of one video) and, with `group_by`, all frames of a patient stay on one
    side; otherwise validation images would be known from training. The result depends on the
    images' names and content, the fraction, the seed and the threshold, not on the order of files
    or the number of workers. Groups larger than a quarter of the validation set come last in the
    queue, so that one long video does not decide the best epoch.

    An image that `before` knows keeps its side, whatever the seed, the fraction and the file's
    name. Images that are new to it join the side of their group; of the other new groups
    `fraction` is drawn.

    Args:
        image_set: the pairs to split.
        fraction: wanted share of the pairs in the validation set, 0 ≤ fraction < 1; 0 leaves none.
        seed: of the order in which groups are drawn.
        workers: threads that read the images.
        threshold: correlation above which two images belong together, see `duplicates`.
        group_by: see `groups.HELP`; None for content alone.
        before: of the networks that this one comes from.
        only_unseen: refuse a set of which every image was trained on. Otherwise the split is then
            drawn anew, and `Split.seen` counts.

    Raises:
        UserError: fraction out of range, an unreadable image, an image without a group, so few
            distinct contents that no group can be spared, or all trained on and `only_unseen`.
    """
    if not 0 <= fraction < 1:
        raise UserError(f"validation fraction {fraction} is not in 0 ≤ fraction < 1; try 0.1")
    pairs = sorted(image_set.pairs, key=lambda pair: pair.name)
    names = [pair.name for pair in pairs]

    def look(pair: Pair) -> tuple[Fingerprint, str]:
        image = read_image(pair.image)
        return fingerprint(image), pixel_digest(image)

    looks = parallel_map(look, pairs, "comparing images", workers)
    hashes = _hash_pairs(pairs, workers)
    known = [
        before.side(digest, hashes[pair.name])
        for pair, (_, digest) in zip(pairs, looks, strict=True)
    ]
    chosen: set[str] = set()
    if fraction > 0:
        declared = None if group_by is None else groups_by(pairs, image_set.root, group_by)
        numbers = groups([found for found, _ in looks], threshold, declared)
        members: dict[int, list[int]] = defaultdict(list)
        for index, group in enumerate(numbers):
            members[group].append(index)
        chosen = _choose(members.values(), names, known, fraction, seed, declared is not None)
        if not chosen and only_unseen and any(side == "train" for side in known):
            raise UserError(
                f"the network was trained on all {len(names)} images of {image_set.root} or on "
                "others of their groups: they cannot judge it; name a folder with images that it "
                "has not seen with --data"
            )
        if not chosen:
            fresh: list[Side | None] = [None] * len(names)
            chosen = _choose(members.values(), names, fresh, fraction, seed, False)
        if not chosen:
            raise UserError(
                f"the {len(names)} images of {image_set.root} are all near-duplicates of each "
                "other, or of one group: nothing independent can be held out; add images, or set "
                "data.validation=0"
            )
    sides: dict[str, Side] = {}
    for name, (_, digest) in zip(names, looks, strict=True):
        # one picture under two names is trained on if either is
        if name not in chosen or digest not in sides:
            sides[digest] = "validation" if name in chosen else "train"
    seen = sum(n in chosen and side == "train" for n, side in zip(names, known, strict=True))
    return _split(
        tuple(name for name in names if name not in chosen),
        tuple(name for name in names if name in chosen),
        hashes,
        lineage=extend(before, sides),
        inherited=sum(side is not None for side in known),
        seen=seen,
        prints={name: found for name, (found, _) in zip(names, looks, strict=True)},
    )


def _choose(
    members: Iterable[list[int]],
    names: Sequence[str],
    known: Sequence[Side | None],
    fraction: float,
    seed: int,
    strict_groups: bool,
) -> set[str]:
    """The names of the validation side; see `validation_split`."""
    chosen: set[str] = set()
    unknown: list[list[str]] = []
    for group in members:
        sides = {known[index] for index in group}
        if "train" in sides and strict_groups:
            continue  # a patient that was trained on validates nothing any more
        if sides == {None}:
            unknown.append([names[index] for index in group])
            continue
        joins = "train" if "train" in sides else "validation"
        chosen |= {names[i] for i in group if (known[i] or joins) == "validation"}
    new = sum(map(len, unknown))
    if unknown and (not chosen or round(fraction * new)):
        spare = any(side is not None for side in known)
        chosen |= _draw(unknown, max(1, round(fraction * new)), seed, spare)
    return chosen


def _draw(members: list[list[str]], target: int, seed: int, all_of_them: bool = False) -> set[str]:
    """Draw whole groups up to `target` names; at least one group, and not all unless allowed."""
    if len(members) < 2 and not all_of_them:
        return set()
    order = [members[index] for index in np.random.default_rng(seed).permutation(len(members))]
    small = [group for group in order if len(group) <= max(1, target // 4)]
    large = [group for group in order if len(group) > max(1, target // 4)]
    chosen: set[str] = set()
    drawn = 0
    for group in small + large:
        if len(chosen) + len(group) <= target and drawn < len(members) - (not all_of_them):
            chosen.update(group)
            drawn += 1
    smallest: list[str] = min(order, key=len)
    return chosen or set(smallest)


def join(named: Mapping[str, Split]) -> Split:
    """One split of several sources, whose images have different names; one alone stays as it is.

    Each was made with the lineage of the one before it, so that the last knows all of them.
    """
    splits = list(named.values())
    if len(splits) == 1:
        return splits[0]
    whole = _split(
        tuple(name for split in splits for name in split.train),
        tuple(name for split in splits for name in split.validation),
        {name: digest for split in splits for name, digest in split.hashes.items()},
        lineage=splits[-1].lineage,
        inherited=sum(split.inherited for split in splits),
        seen=sum(split.seen for split in splits),
        prints={name: found for split in splits for name, found in split.prints.items()},
    )
    return replace(whole, parts=dict(named))


def remarks(split: Split) -> list[str]:
    """What a person should know of a split, one line each."""
    lines = [
        f"source {label}: {len(part.train)} training and {len(part.validation)} validation images, "
        f"split {part.sha256[:12]}"
        for label, part in split.parts.items()
    ]
    if split.inherited:
        lines.append(
            f"split: {split.inherited} images keep the side that an earlier network gave them"
        )
    if split.seen:
        lines.append(
            f"warning: an earlier network was trained on {split.seen} of the "
            f"{len(split.validation)} validation images; Dice on them is too good"
        )
    return lines


def write_split(path: Path, split: Split, image_set: ImageSet) -> None:
    """Record a split as JSON: sides, hashes, and where the images came from.

    Raises:
        UserError: the file cannot be written.
    """
    write_json(
        path,
        {
            "schema": _SCHEMA,
            "set": image_set.name,
            "sha256": split.sha256,
            "train": list(split.train),
            "validation": list(split.validation),
            "hashes": dict(split.hashes),
            "images": split.lineage.as_json(),
            "sources": {
                label: {
                    "sha256": part.sha256,
                    "train": len(part.train),
                    "validation": len(part.validation),
                }
                for label, part in split.parts.items()
            },
        },
    )


def read_split(path: Path) -> Split:
    """Read a split that `write_split` wrote, of this release or the first.

    Raises:
        UserError: absent, not a split, or its content does not match its own hash.
    """
    content = read_json(path)
    try:
        lineage = Lineage.from_json(content["images"]) if "images" in content else Lineage()
        split = _split(
            tuple(content["train"]),
            tuple(content["validation"]),
            dict(content["hashes"]),
            lineage=lineage,
        )
        recorded = content["sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a split ({error!r}); make it again") from None
    if split.sha256 != recorded:
        raise UserError(f"{path} was changed by hand (its hash differs); make it again")
    return split


def check_split(split: Split, image_set: ImageSet, workers: int = WORKERS) -> None:
    """Refuse a split that was made on other images, for example when a run resumes.

    Raises:
        UserError: names differ, or an image or a mask has changed since.
    """
    pairs = {pair.name: pair for pair in image_set.pairs}
    for name in (*split.train, *split.validation):
        if name not in pairs:
            raise UserError(
                f"{image_set.root} lacks {name!r}, which the split holds; restore it, or start a "
                "new run"
            )
    now = _hash_pairs([pairs[name] for name in (*split.train, *split.validation)], workers)
    for name, digest in now.items():
        if split.hashes.get(name) != digest:
            raise UserError(
                f"{pairs[name].image} or its mask has changed since the split was made; restore "
                "it, or start a new run"
            )


def _split(
    train: tuple[str, ...],
    validation: tuple[str, ...],
    hashes: dict[str, str],
    lineage: Lineage = Lineage(),
    inherited: int = 0,
    seen: int = 0,
    prints: Mapping[str, Fingerprint] | None = None,
) -> Split:
    content = {"train": train, "validation": validation, "hashes": hashes}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    digest = hashlib.sha256(canonical.encode(errors="surrogateescape")).hexdigest()
    return Split(
        train,
        validation,
        digest,
        hashes,
        lineage=lineage,
        inherited=inherited,
        seen=seen,
        prints=prints or {},
    )


def _hash_pairs(pairs: list[Pair], workers: int) -> dict[str, str]:
    digests = parallel_map(hash_pair, pairs, "hashing files", workers)
    return {pair.name: digest for pair, digest in zip(pairs, digests, strict=True)}


def hash_pair(pair: Pair) -> str:
    """Return the SHA-256 of the image's bytes followed by the mask's, where there is one.

    Raises:
        UserError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in (pair.image, pair.mask):
        if path is not None:
            try:
                digest.update(path.read_bytes())
            except OSError as error:
                raise UserError(f"cannot read {path}: {error.strerror}; check the file") from None
    return digest.hexdigest()
