"""The text of a recipe as plain values: YAML or JSON, within limits; and the keys of older recipes.

YAML is read as data only: no tags that make objects, no dates, no key twice in one mapping, and
only as much as a recipe can mean, so that a small file cannot unfold to gigabytes.
"""

import codecs
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from kdas_edge.errors import UserError
from kdas_edge.files import read_bytes

# limits of a recipe: bytes of its file, values after aliases are unfolded, mappings in mappings
MOST_BYTES = 1_000_000
MOST_VALUES = 10_000
DEEPEST = 20

# keys of the first release, and what they are called now
RENAMED = {
    "teacher_mirrors": "teacher_tta",
    "teacher_once": "cache_teacher",
    "data.masks": "data.labelled_fraction",
    "data.unlabelled_agreement": "data.pseudo_label_consistency",
    "model.start": "model.init_from",
    "model.decoder": "model.init_decoder_from",
    "schedule.fit_bias": "schedule.calibrate_threshold",
}
_RENAMED_VARIANTS = {"soft_mask": "soft_labels"}


class _Loader(yaml.SafeLoader):
    """YAML's safe loader without dates: no key of a recipe holds one, but a name may look so."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_values(path: Path) -> dict[str, Any]:
    """Read a recipe file.

    Args:
        path: YAML, or JSON where the name ends so; UTF-8, or UTF-16 with a byte-order mark.

    Returns:
        The values as they stand in the file.

    Raises:
        UserError: unreadable, too large, no text, no mapping, or not YAML or JSON.
    """
    raw = read_bytes(path, MOST_BYTES)
    utf_16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = raw.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None
    try:
        values = _json(text) if path.suffix == ".json" else parse_yaml(text)
    except ValueError as error:
        kind = "JSON" if path.suffix == ".json" else "YAML"
        raise UserError(f"{path} is not {kind} ({error}); correct it") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no keys; a recipe is a YAML mapping, see recipes/")
    return values


def parse_yaml(text: str) -> Any:
    """Parse YAML within the limits of a recipe.

    Raises:
        ValueError: not YAML, a key twice, nested too deep or too many values; one line says which.
    """
    try:
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ValueError(f"nested deeper than {DEEPEST} levels")
        node = yaml.compose(text, Loader=_Loader)
        if node is not None:
            _measure(node, {})
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def _measure(node: yaml.Node, known: dict[int, tuple[int, int]], depth: int = 0) -> tuple[int, int]:
    """Count values and levels below a node, aliases unfolded; refuse a key that is there twice."""
    if id(node) in known:
        return known[id(node)]
    if depth > DEEPEST:
        raise ValueError(f"nested deeper than {DEEPEST} levels")
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            line = node.start_mark.line + 1
            raise ValueError(f"key {twice!r} is there twice in the mapping of line {line}")
        children = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    sizes = [_measure(child, known, depth + 1) for child in children]
    size = 1 + sum(count for count, _ in sizes)
    height = 1 + max((levels for _, levels in sizes), default=0)
    if size > MOST_VALUES or height > DEEPEST:
        raise ValueError(f"more than {MOST_VALUES} values or {DEEPEST} levels, aliases unfolded")
    known[id(node)] = size, height
    return size, height


def _json(text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key is there twice")
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except RecursionError:
        raise ValueError("nested too deep") from None


def apply_override(
    values: dict[str, Any], override: str, as_text: Callable[[str, str], Any]
) -> None:
    """Set one value of a recipe, in place.

    Args:
        values: of the recipe.
        override: `key.subkey=value`.
        as_text: given the key and the text after `=`, the value, or raises `LookupError` where the
            key is no text: it is then read as YAML.

    Raises:
        UserError: no `=`, or a section that is a value.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"override {override!r} is not key=value; for example schedule.epochs=3")
    *sections, last = key.split(".")
    for section in sections:
        if values.get(section) is None:
            values[section] = {}
        values = values[section]
        if not isinstance(values, dict):
            raise UserError(f"override {override!r}: {section} has no keys below it")
    try:
        values[last] = as_text(key, text)
    except LookupError:
        try:
            values[last] = parse_yaml(text)
        except ValueError:
            values[last] = text


def old_name(values: dict[str, Any]) -> str | None:
    """One line on the first key (or variant) of the first release in a recipe, None if none is."""
    for old, new in RENAMED.items():
        section, key = _section(values, old)
        if key in section:
            return f"{old} is now called {new}; rename it"
    variant = _section(values, "loss.variant")[0].get("variant")
    if isinstance(variant, str) and variant in _RENAMED_VARIANTS:
        return f"loss.variant {variant!r} is now called {_RENAMED_VARIANTS[variant]!r}; rename it"
    return None


def with_new_names(values: dict[str, Any]) -> dict[str, Any]:
    """A recipe that the first release recorded, in today's keys; today's pass unchanged."""
    values = copy.deepcopy(values)
    for old, new in RENAMED.items():
        section, key = _section(values, old)
        if key in section:
            section.setdefault(new.rpartition(".")[2], section.pop(key))
    loss, key = _section(values, "loss.variant")
    if isinstance(loss.get(key), str):
        loss[key] = _RENAMED_VARIANTS.get(loss[key], loss[key])
    return values


def _section(values: dict[str, Any], dotted: str) -> tuple[dict[str, Any], str]:
    """The mapping in which a key stands (empty where there is none), and the key itself."""
    path, _, key = dotted.rpartition(".")
    section = values.get(path) if path else values
    return (section if isinstance(section, dict) else {}), key
