"""Groups of images that belong together: patient, examination or video. No torch."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from kdas_edge.data.layout import Pair
from kdas_edge.errors import UserError

HELP = (
    "what tells the group (patient, examination, video) of an image: folder:N, the N-th folder "
    "below images/; a regular expression on the file's name, whose first bracket is the group; or "
    "FILE.csv[:COLUMN]"
)
# columns that may hold the name of the image and, where none is named, the group
_NAMES = ("image", "name", "file", "filename", "stem")
_GROUPS = ("group", "patient", "patient_id", "examination", "video", "sequence", "case")


def groups_by(pairs: Sequence[Pair], root: Path, rule: str) -> list[str]:
    """Name the group of each image.

    Args:
        pairs: of one set.
        root: the set's folder; a CSV file is looked for there and above as well.
        rule: see `HELP`.

    Raises:
        UserError: not such a rule, or an image without a group.
    """
    if re.fullmatch(r"folder(:\d+)?", rule):
        found = _by_folder(pairs, root, int(rule.partition(":")[2] or 1))
    elif re.search(r"\.csv(:[^/]+)?$", rule):
        found = _by_table(pairs, root, rule)
    else:
        found = _by_pattern(pairs, rule)
    missing = [pair for pair, group in zip(pairs, found, strict=True) if not group]
    if missing:
        raise UserError(
            f"data.group_by {rule!r} gives {len(missing)} of {len(pairs)} images of {root} no "
            f"group, {missing[0].image.name} for one; correct the rule or the table"
        )
    return [str(group) for group in found]


def _by_folder(pairs: Sequence[Pair], root: Path, level: int) -> list[str | None]:
    if level < 1:
        raise UserError(f"data.group_by folder:{level}: levels are counted from 1, below images/")
    found: list[str | None] = []
    for pair in pairs:
        parts = pair.image.relative_to(root / "images").parts[:-1]
        found.append("/".join(parts[:level]) if len(parts) >= level else None)
    return found


def _by_pattern(pairs: Sequence[Pair], rule: str) -> list[str | None]:
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise UserError(
            f"data.group_by {rule!r} is no regular expression ({error}), no folder:N and no "
            "FILE.csv"
        ) from None
    matches = [pattern.search(pair.image.name) for pair in pairs]
    return [m and (m[1] if pattern.groups else m[0]) for m in matches]


def _by_table(pairs: Sequence[Pair], root: Path, rule: str) -> list[str | None]:
    file, column = rule, ""
    if not rule.endswith(".csv"):
        file, _, column = rule.rpartition(":")
    # a table of a whole data root lies above its sets
    places = [Path(), root, root.parent, root.parent.parent]
    path = next((place / file for place in places if (place / file).is_file()), Path(file))
    try:
        with path.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(opened)
            headings = [heading or "" for heading in reader.fieldnames or []]
            rows = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"data.group_by: {file} cannot be read ({error}); check the path") from None
    names = [heading for heading in headings if heading.lower() in _NAMES]
    groups = [heading for heading in headings if heading.lower() in _GROUPS]
    chosen = column or (groups[0] if groups else "")
    if not names or chosen not in headings:
        raise UserError(
            f"data.group_by: {path} has the columns {', '.join(headings) or 'none'}; it needs "
            f"one called image and {chosen or 'group'!r} (FILE.csv:COLUMN names another)"
        )
    table: dict[str, str] = {}
    for row in rows:
        name, group = (row[names[0]] or "").strip(), (row[chosen] or "").strip()
        for key in (name, Path(name).name, Path(name).stem):
            if group and table.setdefault(key, group) != group and key == name:
                raise UserError(f"data.group_by: {path} gives {name} two groups; keep one")
    return [
        table.get(pair.image.name) or table.get(pair.name) or table.get(pair.image.stem)
        for pair in pairs
    ]
