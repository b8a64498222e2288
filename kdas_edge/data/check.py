"""Checking a data set for faults before training. Nothing is changed on disk. No torch.

Unlike the readers of `layout`, which stop at the first fault, this lists all of them.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from kdas_edge.data.duplicates import (
    NEAR_DUPLICATE,
    Fingerprint,
    fingerprint,
    groups,
    pixel_digest,
    similarity,
)
from kdas_edge.data.groups import groups_by
from kdas_edge.data.layout import (
    TRAIN,
    Pair,
    named_files,
    orientation_problem,
    set_folders,
)
from kdas_edge.data.masks import AmbiguousMaskError, MaskValues, decode_mask, parse_mask_values
from kdas_edge.data.parallel import WORKERS, parallel_map
from kdas_edge.errors import UserError
from kdas_edge.image_files import read_image

# With these no training can begin; the others are worth knowing.
ErrorKind = Literal[
    "missing folder",
    "two files of one name",
    "image without mask",
    "mask without image",
    "unreadable image",
    "unreadable mask",
    "size mismatch",
    "ambiguous mask",
    "full mask",
    "orientation differs",
]
Kind = Literal[
    ErrorKind,
    "no polyp in mask",
    "set without polyp",
    "exact duplicate",
    "duplicate with another mask",
    "near duplicates",
    "near duplicate of training",
    "group on both sides",
]
ERRORS: tuple[Kind, ...] = get_args(ErrorKind)


@dataclass(frozen=True)
class Finding:
    """One fault or remark.

    Attributes:
        kind: what it is.
        set_name: the set it was found in.
        files: the files concerned, relative to the root.
        detail: numbers, reason, remedy.
    """

    kind: Kind
    set_name: str
    files: tuple[str, ...]
    detail: str = ""

    @property
    def is_error(self) -> bool:
        """True if a training on this set would stop."""
        return self.kind in ERRORS


@dataclass(frozen=True)
class SetSummary:
    """One set in numbers; sizes are width × height in pixels.

    Attributes:
        images: image files found.
        pairs: pairs that can be read and fit.
        polyp_free: pairs whose mask is empty.
        polyp_area: median share of the frame that the polyps cover, over frames with a polyp, 0…1.
        smallest: image with the fewest pixels.
        largest: image with the most pixels.
    """

    images: int
    pairs: int
    polyp_free: int
    polyp_area: float
    smallest: str
    largest: str


@dataclass(frozen=True)
class Report:
    """Everything `check` found, ready for JSON with `as_json`."""

    root: str
    near_duplicate_threshold: float
    sets: dict[str, SetSummary] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def errors(self) -> list[Finding]:
        """The findings that stop a training."""
        return [finding for finding in self.findings if finding.is_error]

    @property
    def warnings(self) -> list[Finding]:
        """The findings that do not."""
        return [finding for finding in self.findings if not finding.is_error]

    def count(self, kind: Kind, set_name: str | None = None) -> int:
        """Number of findings of a kind, in one set or in all."""
        return len(self.of(kind, set_name))

    def of(self, kind: Kind, set_name: str | None = None) -> list[Finding]:
        """The findings of a kind, in one set or in all."""
        return [
            finding
            for finding in self.findings
            if finding.kind == kind and set_name in (None, finding.set_name)
        ]

    def as_json(self) -> dict[str, Any]:
        """Return plain dictionaries and lists."""
        return {
            "root": self.root,
            "near_duplicate_threshold": self.near_duplicate_threshold,
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "sets": {name: asdict(summary) for name, summary in self.sets.items()},
            "findings": [
                {"level": "error" if finding.is_error else "warning", **asdict(finding)}
                for finding in self.findings
            ],
        }


@dataclass(frozen=True)
class _Look:
    """What one pass over a pair leaves in memory; `None` where the file was unreadable."""

    name: str
    image: Path
    mask: Path | None
    image_error: str = ""
    mask_error: str = ""
    size: tuple[int, int] | None = None
    mask_size: tuple[int, int] | None = None
    print: Fingerprint | None = None
    image_digest: str = ""
    mask_digest: str = ""
    covered: float = 0.0
    ambiguous: bool = False
    orientation: str = ""

    @property
    def fits(self) -> bool:
        return self.size is not None and self.size == self.mask_size


def check(
    root: Path,
    workers: int = WORKERS,
    threshold: float = NEAR_DUPLICATE,
    mask_values: str | None = None,
    group_by: str | None = None,
) -> Report:
    """List what is wrong or remarkable in a data set.

    Pairs without partner, unreadable files, sizes that differ, masks without a polyp or with
    values that are not clear, identical images (by their pixels), identical images with
    different masks, near duplicates within a set, and test images with a near duplicate in the
    training set.

    Args:
        root: PraNet layout, or a folder with images/ and masks/.
        workers: threads that read the images.
        threshold: correlation above which two images are near duplicates, see `duplicates`.
        mask_values: see `masks.parse_mask_values`; None for the rule of `masks`.
        group_by: see `groups.HELP`; groups of which a set and the training set hold images.

    Raises:
        UserError: `root` does not exist or is neither layout. Faulty files raise nothing.
    """
    report = Report(str(root), threshold)
    values = None if mask_values is None else parse_mask_values(mask_values)
    looks: dict[str, list[_Look]] = {}
    for name, folder in set_folders(root).items():
        pairs = _pair_up(root, name, folder, report)
        looks[name] = parallel_map(
            lambda pair: _look(pair, values), pairs, f"checking {name}", workers
        )
        _judge_files(root, name, looks[name], report)
        _judge_duplicates(root, name, looks[name], report)
        report.sets[name] = _summary(looks[name])
    for name in looks:
        if name != TRAIN and TRAIN in looks:
            _judge_leak(root, name, looks[name], looks[TRAIN], report)
    if group_by is not None:
        _judge_groups(root, looks, group_by, report)
    return report


def _pair_up(root: Path, name: str, folder: Path, report: Report) -> list[_Look]:
    """List the files of a set and report those without a partner."""
    files: dict[str, dict[str, Path]] = {}
    for kind in ("images", "masks"):
        files[kind] = {}
        try:
            listing = named_files(folder / kind)
        except UserError:
            there = (folder / kind).is_dir()
            detail = "holds no image" if there else "no such folder"
            missing = (_short(folder / kind, root),)
            report.findings.append(Finding("missing folder", name, missing, detail))
            continue
        for stem, path in listing:
            if stem in files[kind]:
                both = (_short(files[kind][stem], root), _short(path, root))
                report.findings.append(Finding("two files of one name", name, both, "remove one"))
            else:
                files[kind][stem] = path
    images, masks = files["images"], files["masks"]
    for stem in sorted(images.keys() - masks.keys()):
        report.findings.append(Finding("image without mask", name, (_short(images[stem], root),)))
    for stem in sorted(masks.keys() - images.keys()):
        report.findings.append(Finding("mask without image", name, (_short(masks[stem], root),)))
    return [_Look(stem, images[stem], masks.get(stem)) for stem in sorted(images)]


def _look(pair: _Look, values: MaskValues | None) -> _Look:
    """Read a pair once and keep what the judgements need, not the pixels."""
    found: dict[str, Any] = {}
    try:
        image = read_image(pair.image)
        found["size"] = (image.shape[1], image.shape[0])
        found["print"] = fingerprint(image)
        found["image_digest"] = pixel_digest(image)
    except UserError as error:
        found["image_error"] = str(error)
    if pair.mask is not None:
        try:
            mask = decode_mask(pair.mask, values)
            found["mask_size"] = (mask.shape[1], mask.shape[0])
            found["mask_digest"] = pixel_digest(mask)
            found["covered"] = float(mask.mean())
        except UserError as error:
            found["ambiguous"] = isinstance(error, AmbiguousMaskError)
            found["mask_error"] = str(error)
        if "size" in found and "mask_size" in found:
            found["orientation"] = orientation_problem(
                pair.image, pair.mask, found["size"], found["mask_size"]
            )
    return _Look(pair.name, pair.image, pair.mask, **found)


def _judge_files(root: Path, name: str, looks: Sequence[_Look], report: Report) -> None:
    for look in looks:
        image = _short(look.image, root)
        if look.image_error:
            report.findings.append(
                Finding("unreadable image", name, (image,), _reason(look.image_error))
            )
        if look.mask is None:
            continue
        mask = _short(look.mask, root)
        if look.mask_error:
            wrong: Kind = "ambiguous mask" if look.ambiguous else "unreadable mask"
            detail = _reason(look.mask_error) + ("; --mask-values" if look.ambiguous else "")
            report.findings.append(Finding(wrong, name, (mask,), detail))
        elif look.size and look.mask_size and look.size != look.mask_size:
            sizes = f"image {_times(look.size)}, mask {_times(look.mask_size)}"
            report.findings.append(Finding("size mismatch", name, (image, mask), sizes))
        elif look.orientation:
            report.findings.append(
                Finding("orientation differs", name, (image, mask), look.orientation)
            )
        elif look.covered == 1:
            report.findings.append(Finding("full mask", name, (mask,), "every pixel is polyp"))
        elif look.covered == 0:
            report.findings.append(Finding("no polyp in mask", name, (mask,)))
    masked = [look for look in looks if look.mask_size]
    if masked and not any(look.covered for look in masked):
        detail = f"{len(masked)} masks, all empty: polyp-free frames, nothing to train on"
        report.findings.append(Finding("set without polyp", name, (), detail))


def _judge_duplicates(root: Path, name: str, looks: Sequence[_Look], report: Report) -> None:
    same: dict[str, list[_Look]] = defaultdict(list)
    for look in looks:
        if look.image_digest:
            same[look.image_digest].append(look)
    for twins in same.values():
        if len(twins) < 2:
            continue
        files = tuple(_short(twin.image, root) for twin in twins)
        report.findings.append(Finding("exact duplicate", name, files))
        if len({twin.mask_digest for twin in twins if twin.mask_digest}) > 1:
            covers = " and ".join(f"{twin.covered:.2%}" for twin in twins)
            report.findings.append(
                Finding("duplicate with another mask", name, files, f"masks cover {covers}")
            )
    seen = [look for look in looks if look.print is not None]
    members: dict[int, list[_Look]] = defaultdict(list)
    prints = [look.print for look in seen if look.print is not None]
    for look, group in zip(seen, groups(prints, report.near_duplicate_threshold), strict=True):
        members[group].append(look)
    for group_members in members.values():
        # identical images have been reported already
        if len({look.image_digest for look in group_members}) > 1:
            files = tuple(_short(look.image, root) for look in group_members)
            report.findings.append(
                Finding("near duplicates", name, files, f"{len(files)} images of one content")
            )


def _judge_leak(
    root: Path, name: str, tests: Sequence[_Look], training: Sequence[_Look], report: Report
) -> None:
    test_prints = [look.print for look in tests if look.print is not None]
    train_prints = [look.print for look in training if look.print is not None]
    if not test_prints or not train_prints:
        return
    table = similarity(test_prints, train_prints)
    test_looks = [look for look in tests if look.print is not None]
    train_looks = [look for look in training if look.print is not None]
    for look, row in zip(test_looks, table, strict=True):
        nearest = int(np.argmax(row))
        if row[nearest] > report.near_duplicate_threshold:
            twin = train_looks[nearest]
            detail = (
                "identical"
                if look.image_digest == twin.image_digest
                else f"correlation {row[nearest]:.3f}"
            )
            files = (_short(look.image, root), _short(twin.image, root))
            report.findings.append(Finding("near duplicate of training", name, files, detail))


def _judge_groups(root: Path, looks: dict[str, list[_Look]], group_by: str, report: Report) -> None:
    """Report each patient, examination or video of which two sets hold images."""
    holders: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, folder in set_folders(root).items():
        pairs = [Pair(look.name, look.image, look.mask) for look in looks[name]]
        for pair, group in zip(pairs, groups_by(pairs, folder, group_by), strict=True):
            holders[group][name].append(_short(pair.image, root))
    for group, sets in holders.items():
        for name in list(sets)[1:]:
            first = next(iter(sets))
            files = (sets[name][0], sets[first][0])
            detail = f"{group}: {len(sets[name])} images here, {len(sets[first])} in {first}"
            report.findings.append(Finding("group on both sides", name, files, detail))


def _summary(looks: Sequence[_Look]) -> SetSummary:
    good = [look for look in looks if look.fits]
    sizes = sorted((look.size for look in looks if look.size), key=lambda size: size[0] * size[1])
    areas = [look.covered for look in good if look.covered > 0]
    return SetSummary(
        images=len(looks),
        pairs=len(good),
        polyp_free=sum(look.covered == 0 for look in good),
        polyp_area=round(float(np.median(areas)), 4) if areas else 0.0,
        smallest=_times(sizes[0]) if sizes else "",
        largest=_times(sizes[-1]) if sizes else "",
    )


def _short(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _reason(message: str) -> str:
    """The part of an error in brackets: the path stands beside it already."""
    _, bracket, rest = message.partition("(")
    return rest.rpartition(")")[0] if bracket else message


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"
