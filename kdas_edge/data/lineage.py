"""Which images a network, or one that it came from, was trained on: salted hashes. No torch.

A run's `split.json` and a bundle's manifest carry them, and no picture and no fingerprint that
shows one. Who holds an image can ask whether it was among them; nothing else can be read from them.
"""

import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kdas_edge.data.duplicates import pixel_digest
from kdas_edge.errors import UserError
from kdas_edge.files import read_json

Side = Literal["train", "validation"]

SPLIT_FILE = "split.json"
_MANIFEST = "manifest.json"
_PUBLISHED = "weights.safetensors"
_DIGITS = 16


@dataclass(frozen=True)
class SplitHashes:
    """The sides of one training, under one salt.

    Attributes:
        salt: 32 hexadecimal digits, drawn for the first run of a line and inherited.
        train: salted hashes of the images that were trained on.
        validation: of those that chose the best epoch.
        near_duplicates: of test images that look like one that was trained on.
    """

    salt: str
    train: frozenset[str] = frozenset()
    validation: frozenset[str] = frozenset()
    near_duplicates: frozenset[str] = frozenset()

    def salted(self, digest: str) -> str:
        """The hash under this salt of a `pixel_digest`."""
        return hashlib.sha256(f"{self.salt}{digest}".encode()).hexdigest()[:_DIGITS]

    def as_json(self) -> dict[str, str]:
        """A JSON object; the hashes of a side are one string, sorted."""
        sides = {name: "".join(sorted(getattr(self, name))) for name in _SIDES}
        return {"salt": self.salt, **sides}


_SIDES = ("train", "validation", "near_duplicates")


@dataclass(frozen=True)
class Lineage:
    """What a network and those before it were trained on.

    Attributes:
        parts: one per salt; the first is the network's own.
        files: of runs of the first release: SHA-256 of image and mask file to side.
    """

    parts: tuple[SplitHashes, ...] = ()
    files: Mapping[str, Side] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.parts or self.files)

    def __add__(self, other: "Lineage") -> "Lineage":
        parts = {part.salt: part for part in self.parts}
        for part in other.parts:
            known = parts.get(part.salt, SplitHashes(part.salt))
            parts[part.salt] = SplitHashes(
                part.salt,
                known.train | part.train,
                (known.validation | part.validation) - known.train - part.train,
                known.near_duplicates | part.near_duplicates,
            )
        files = {**other.files, **self.files}
        trained = [k for one in (self, other) for k, side in one.files.items() if side == "train"]
        return Lineage(tuple(parts.values()), {**files, **dict.fromkeys(trained, "train")})

    def side(self, digest: str, file_hash: str = "") -> Side | None:
        """Where an image was; trained on by one of the networks counts as trained on.

        Args:
            digest: `pixel_digest` of the decoded image.
            file_hash: `splits.hash_pair`, by which runs of the first release know it.
        """
        sides: set[Side] = set()
        for part in self.parts:
            salted = part.salted(digest)
            sides |= {"train"} if salted in part.train else set()
            sides |= {"validation"} if salted in part.validation else set()
        if file_hash in self.files:
            sides.add(self.files[file_hash])
        return "train" if "train" in sides else "validation" if sides else None

    def trained_on(self, image: NDArray[np.uint8]) -> bool:
        """True if an image, (H, W, 3) uint8 RGB at its own size, was trained on."""
        return self.side(pixel_digest(image)) == "train"

    def looks_trained_on(self, image: NDArray[np.uint8]) -> bool:
        """True for a test image that was seen to look like one trained on, when training began."""
        digest = pixel_digest(image)
        return any(part.salted(digest) in part.near_duplicates for part in self.parts)

    def as_json(self) -> list[dict[str, str]]:
        """The parts as JSON objects."""
        return [part.as_json() for part in self.parts]

    @classmethod
    def from_json(cls, values: Any) -> "Lineage":
        """Read what `as_json` gave.

        Raises:
            ValueError: it is something else.
        """
        if not isinstance(values, list):
            raise ValueError("no list of splits")
        return cls(tuple(_part(value) for value in values))


def _part(value: Any) -> SplitHashes:
    if not isinstance(value, dict) or not isinstance(value.get("salt"), str):
        raise ValueError("a split without a salt")
    sides: dict[str, frozenset[str]] = {}
    for name in _SIDES:
        text = value.get(name, "")
        if not isinstance(text, str) or len(text) % _DIGITS:
            raise ValueError(f"a split whose {name} is cut off")
        sides[name] = frozenset(text[i : i + _DIGITS] for i in range(0, len(text), _DIGITS))
    return SplitHashes(value["salt"], **sides)


def new_salt() -> str:
    """A salt for the first run of a line."""
    return secrets.token_hex(16)


def extend(
    before: Lineage, sides: Mapping[str, Side], near_duplicates: Iterable[str] = ()
) -> Lineage:
    """The lineage of a network that is trained now.

    Args:
        before: of the networks that it comes from.
        sides: `pixel_digest` of each image of this training to its side.
        near_duplicates: digests of test images that look like one trained on.
    """
    salt = before.parts[0].salt if before.parts else new_salt()
    bare = SplitHashes(salt)
    own = replace(
        bare,
        train=frozenset(bare.salted(d) for d, side in sides.items() if side == "train"),
        validation=frozenset(bare.salted(d) for d, side in sides.items() if side == "validation"),
        near_duplicates=frozenset(map(bare.salted, near_duplicates)),
    )
    # what this training holds as well need not be said twice, under another salt
    others = [_without(part, sides) for part in before.parts if part.salt != salt]
    first = Lineage((own,)) + Lineage(tuple(part for part in before.parts if part.salt == salt))
    rest = tuple(part for part in others if part.train or part.validation)
    return Lineage(first.parts + rest, before.files)


def _without(part: SplitHashes, sides: Mapping[str, Side]) -> SplitHashes:
    known = {part.salted(digest) for digest in sides}
    return replace(part, train=part.train - known, validation=part.validation - known)


def read_lineage(source: Path) -> Lineage:
    """What a run, a checkpoint inside a run or a bundle was trained on; empty where none says.

    Published runs (`benchmarks/results/runs`) share the `split.json` beside their folder.

    Raises:
        UserError: the record is damaged.
    """
    run = source if source.is_dir() else source.parent
    folders = [run] if source.is_dir() else [run, run.parent]
    if (run / _PUBLISHED).is_file():
        folders.append(run.parent.parent)
    for folder in folders:
        split = folder / SPLIT_FILE
        if split.is_file():
            return lineage_of_split(read_json(split), split)
    manifest = source / _MANIFEST
    if not manifest.is_file():
        return Lineage()
    content = read_json(manifest)
    provenance = content.get("provenance") if isinstance(content, dict) else None
    found = provenance.get("split") if isinstance(provenance, dict) else None
    return Lineage() if found is None else _checked(found, manifest)


def read_lineages(sources: Sequence[str | None]) -> Lineage:
    """The lineages of several networks together; None is passed over."""
    found = Lineage()
    for source in sources:
        if source is not None:
            found = found + read_lineage(Path(source))
    return found


def lineage_of_split(content: Any, path: Path) -> Lineage:
    """The lineage in the content of a run's `split.json`."""
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a split; make it again")
    if "images" in content:
        return _checked(content["images"], path)
    # the first release knew the files alone
    try:
        hashes = content["hashes"]
        sides: dict[str, Side] = {hashes[name]: "validation" for name in content["validation"]}
        return Lineage(files={**sides, **{hashes[name]: "train" for name in content["train"]}})
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is not a split ({error!r}); make it again") from None


def _checked(values: Any, path: Path) -> Lineage:
    try:
        return Lineage.from_json(values)
    except ValueError as error:
        raise UserError(f"{path}: {error}; make the run or the bundle again") from None
