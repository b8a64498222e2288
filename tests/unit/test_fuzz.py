"""Files damaged at random: a reader says so in one line, quickly, never with a traceback.

The seeds are fixed, so that a failure can be repeated.
"""

import copy
import io
import json
import random
import shutil
import time

import numpy as np
import pytest
from PIL import Image
from tiny_bundle import make_tiny_bundle, scene

from kdas_edge.bundle.manifest import parse_manifest
from kdas_edge.bundle.reader import open_bundle
from kdas_edge.data.layout import read_mask
from kdas_edge.errors import UserError
from kdas_edge.image_files import read_image
from kdas_edge.runtime import Segmenter

FORMATS = {"png": {}, "jpeg": {}, "jpg": {"progressive": True}, "bmp": {}, "tiff": {}, "webp": {}}
# a reader may be slow on a busy machine, but not by the size that a damaged header claims
LONGEST = 5.0
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


def one_line_or_done(read, *arguments):
    """Run a reader; True if it succeeded. Anything but a line for the user fails the test."""
    begun = time.perf_counter()
    try:
        read(*arguments)
        return True
    except UserError as error:
        assert str(error) and "\n" not in str(error) and len(str(error)) < 2000
        return False
    finally:
        assert time.perf_counter() - begun < LONGEST


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_damaged_image_is_read_or_refused_in_one_line(suffix, tmp_path):
    buffer = io.BytesIO()
    kind = "jpeg" if suffix == "jpg" else suffix
    Image.fromarray(scene(40, 56)).save(buffer, kind, **FORMATS[suffix])
    path = tmp_path / f"frame.{suffix}"
    rng = random.Random(f"image {suffix}")
    read = []
    for _ in range(150):
        path.write_bytes(damaged(buffer.getvalue(), rng))
        read += [one_line_or_done(read_image, path), one_line_or_done(read_mask, path)]
    assert True in read and False in read


def test_random_bytes_are_no_image_whatever_the_name_says(tmp_path):
    rng = random.Random("bytes")
    for suffix in FORMATS:
        path = tmp_path / f"frame.{suffix}"
        for length in (0, 1, 8, 64, 4096):
            path.write_bytes(rng.randbytes(length))
            assert not one_line_or_done(read_image, path)


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


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_tiny_bundle(tmp_path_factory.mktemp("fuzz") / "tiny")


def test_a_manifest_with_strange_values_is_read_or_refused_in_one_line(bundle, tmp_path):
    values = json.loads((bundle / "manifest.json").read_text())
    rng = random.Random("values")
    read = []
    for _ in range(600):
        text = json.dumps(mutated(values, rng))
        read.append(one_line_or_done(parse_manifest, text, tmp_path / "manifest.json"))
    assert False in read


def test_a_manifest_of_damaged_bytes_is_refused_by_the_reader_in_one_line(bundle, tmp_path):
    target = shutil.copytree(bundle, tmp_path / "tiny")
    content = (bundle / "manifest.json").read_bytes()
    rng = random.Random("manifest")
    for _ in range(200):
        (target / "manifest.json").write_bytes(damaged(content, rng))
        one_line_or_done(open_bundle, target)
    for text in (
        "[" * 100_000,
        '{"a":' * 100_000,
        "9" * 10_000,
        '"\\ud800"',
        "NaN",
        "",
        "\ufeff{}",
    ):
        (target / "manifest.json").write_text(text)
        assert not one_line_or_done(open_bundle, target)


def test_a_manifest_that_was_changed_never_gives_a_segmenter_that_fails_with_a_traceback(
    bundle, tmp_path
):
    target = shutil.copytree(bundle, tmp_path / "tiny")
    values = json.loads((bundle / "manifest.json").read_text())
    rng = random.Random("segmenter")
    frame = np.ascontiguousarray(scene())

    def run():
        with Segmenter.load(target, "openvino:CPU:threads=1", preset=preset) as segmenter:
            segmenter.segment(frame)

    outcomes = []
    for _ in range(60):
        (target / "manifest.json").write_text(json.dumps(mutated(values, rng)))
        preset = rng.choice((None, "core", "camera"))
        outcomes.append(one_line_or_done(run))
    assert False in outcomes
