"""Malformed inputs for tests, from a seed: damaged bytes and trees with strange values."""

import copy
import json

# values that break what was written for one kind of value
STRANGE = (
    None, True, -1, 0, 1.5, 1e308, 10**400, float("nan"), "", "../../etc/passwd", "\u0000", "½",
    [], {}, [[]], {"a": {}}, "A" * 10_000, [0] * 1000,
)  # fmt: skip


def damaged(content, rng):
    """A few bytes changed, a part cut out, doubled or repeated, or only the beginning."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        kind = rng.randrange(5)
        # headers are at the beginning, and damage there is worse
        place = rng.randrange(len(data) if rng.random() < 0.5 else min(len(data), 64))
        if kind == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[place : place + 4] = rng.choice(
                (b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f")
            )
        elif kind == 2:
            del data[place : place + rng.randrange(1, 64)]
        elif kind == 3:
            data[place:place] = data[place : place + rng.randrange(1, 64)]
        else:
            del data[max(place, 1) :]
        if not data:
            break
    return bytes(data)


def places(value, at=()):
    """Every place in a tree of JSON values."""
    yield at
    if isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(child, (*at, key))


def mutated(values, rng):
    """The tree with one to three values replaced, removed or doubled under another key."""
    tree = json.loads(json.dumps(values))
    for _ in range(rng.choice((1, 1, 2, 3))):
        found = [place for place in places(tree) if place]
        if not found:
            break
        *way, last = rng.choice(found)
        parent = tree
        for key in way:
            parent = parent[key]
        kind = rng.randrange(4)
        if kind == 0 and isinstance(parent, dict):
            parent[rng.choice(("later", "..", last.upper()))] = parent[last]
        elif kind == 1:
            del parent[last]
        else:
            parent[last] = copy.deepcopy(rng.choice(STRANGE))
    return tree
