"""The validation split: whole content groups on one side, recorded with hashes. No torch."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kdas_edge.data.duplicates import SAME_CONTENT, groups, read_fingerprints
from kdas_edge.data.layout import ImageSet, Pair
from kdas_edge.data.parallel import WORKERS, parallel_map
from kdas_edge.errors import UserError
from kdas_edge.files import read_json, write_json

_SCHEMA = 1


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
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    sha256: str
    hashes: Mapping[str, str] = field(default_factory=dict, repr=False)


def validation_split(
    image_set: ImageSet,
    fraction: float = 0.1,
    seed: int = 0,
    workers: int = WORKERS,
    threshold: float = SAME_CONTENT,
) -> Split:
    """Cut a validation set from a training set by whole content groups.

    Near-duplicate frames (of one video) stay on one side; otherwise validation would measure
    memory. The result depends on the images' names and content, the fraction, the seed and the
    threshold, not on the order of files or the number of workers. Groups larger than a quarter of
    the validation set come last in the queue, so that one long video does not decide the best
    epoch.

    Args:
        image_set: the pairs to split.
        fraction: wanted share of the pairs in the validation set, 0 ≤ fraction < 1.
        seed: of the order in which groups are drawn.
        workers: threads that read the images.
        threshold: correlation above which two images belong together, see `duplicates`.

    Raises:
        UserError: fraction out of range, an unreadable image, or so few distinct contents that no
            group can be spared.
    """
    if not 0 <= fraction < 1:
        raise UserError(f"validation fraction {fraction} is not in 0 ≤ fraction < 1; try 0.1")
    pairs = sorted(image_set.pairs, key=lambda pair: pair.name)
    names = [pair.name for pair in pairs]
    chosen: set[str] = set()
    if fraction > 0:
        prints = read_fingerprints([pair.image for pair in pairs], workers)
        members: dict[int, list[str]] = defaultdict(list)
        for name, group in zip(names, groups(prints, threshold), strict=True):
            members[group].append(name)
        chosen = _draw(list(members.values()), max(1, round(fraction * len(names))), seed)
        if not chosen:
            raise UserError(
                f"the {len(names)} images of {image_set.root} are all near-duplicates of each "
                "other: nothing independent can be held out; add images, or set data.validation=0"
            )
    return _split(
        tuple(name for name in names if name not in chosen),
        tuple(name for name in names if name in chosen),
        _hash_pairs(pairs, workers),
    )


def _draw(members: list[list[str]], target: int, seed: int) -> set[str]:
    """Draw whole groups up to `target` names; always at least one group, never all of them."""
    if len(members) < 2:
        return set()
    order = [members[index] for index in np.random.default_rng(seed).permutation(len(members))]
    small = [group for group in order if len(group) <= max(1, target // 4)]
    large = [group for group in order if len(group) > max(1, target // 4)]
    chosen: set[str] = set()
    drawn = 0
    for group in small + large:
        if len(chosen) + len(group) <= target and drawn < len(members) - 1:
            chosen.update(group)
            drawn += 1
    smallest: list[str] = min(order, key=len)
    return chosen or set(smallest)


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
        },
    )


def read_split(path: Path) -> Split:
    """Read a split that `write_split` wrote.

    Raises:
        UserError: absent, not a split, or its content does not match its own hash.
    """
    content = read_json(path)
    try:
        split = _split(
            tuple(content["train"]), tuple(content["validation"]), dict(content["hashes"])
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


def _split(train: tuple[str, ...], validation: tuple[str, ...], hashes: dict[str, str]) -> Split:
    content = {"train": train, "validation": validation, "hashes": hashes}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return Split(train, validation, hashlib.sha256(canonical.encode()).hexdigest(), hashes)


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
