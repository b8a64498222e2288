"""Which hospital (centre) an image comes from, by its name. No torch."""

import re
from collections.abc import Sequence

from kdas_edge.errors import UserError


def centres_of(names: Sequence[str], rules: Sequence[str], what: str) -> list[str]:
    """Name the centre of each image.

    Args:
        names: of the images.
        rules: one name for all images; or one regular expression whose first bracket is the
            centre; or several `NAME=PATTERN`, each pattern for the whole name of an image.
        what: the option that the rules come from, for messages.

    Raises:
        UserError: a rule is none of these, or an image is of no centre or of two, or a centre has
            no image.
    """
    if len(rules) == 1 and "=" not in rules[0] and not re.search(r"[\\()\[\]|+*?^$]", rules[0]):
        return [rules[0]] * len(names)
    if len(rules) == 1 and "=" not in rules[0]:
        pattern = _compiled(rules[0], what)
        if pattern.groups != 1:
            raise UserError(f"{what} {rules[0]!r}: one bracket of the pattern gives the centre")
        matches = [pattern.search(name) for name in names]
        found = ["" if match is None else match[1] or "" for match in matches]
    else:
        patterns: dict[str, re.Pattern[str]] = {}
        for rule in rules:
            name, sign, text = rule.partition("=")
            if not sign or not re.fullmatch(r"[\w-]+", name) or name in patterns:
                raise UserError(f"{what} {rule!r}: write NAME=PATTERN, each name once")
            patterns[name] = _compiled(text, what)
        found = []
        for name in names:
            fits = [centre for centre, pattern in patterns.items() if pattern.fullmatch(name)]
            if len(fits) > 1:
                raise UserError(f"{what}: {name} is of {' and '.join(fits)}; correct the patterns")
            found.append(fits[0] if fits else "")
        empty = [centre for centre in patterns if centre not in found]
        if empty and all(found):
            raise UserError(f"{what}: no image is of {empty[0]}; correct its pattern")
    without = [name for name, centre in zip(names, found, strict=True) if not centre]
    if without:
        raise UserError(
            f"{what}: {len(without)} of {len(names)} images are of no centre, {without[0]} for "
            "one; correct the patterns"
        )
    return found


def _compiled(text: str, what: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise UserError(f"{what} {text!r}: {error}; correct the expression") from None
