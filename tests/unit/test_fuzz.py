"""Files damaged at random: a reader says so in one line, quickly, never with a traceback.

The seeds are fixed, so that a failure can be repeated.
"""

import io
import json
import random
import shutil
import time

import numpy as np
import pytest
from fuzz_inputs import damaged, mutated
from PIL import Image
from tiny_bundle import make_tiny_bundle, manifest_bytes, scene

from kdas_edge.bundle.manifest import parse_manifest
from kdas_edge.bundle.reader import open_bundle
from kdas_edge.data.layout import read_mask
from kdas_edge.errors import UserError
from kdas_edge.image_files import read_image
from kdas_edge.runtime import Segmenter

FORMATS = {"png": {}, "jpeg": {}, "jpg": {"progressive": True}, "bmp": {}, "tiff": {}, "webp": {}}
# a reader may be slow on a busy machine, but not by the size that a damaged header claims
LONGEST = 5.0


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


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_tiny_bundle(tmp_path_factory.mktemp("fuzz") / "tiny")


def test_a_manifest_with_strange_values_is_read_or_refused_in_one_line(bundle, tmp_path):
    values = json.loads((bundle / "manifest.json").read_text())
    rng = random.Random("values")
    read = []
    for _ in range(600):
        content = manifest_bytes(mutated(values, rng))
        read.append(one_line_or_done(parse_manifest, content, tmp_path / "manifest.json"))
    assert False in read and True in read


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
        (target / "manifest.json").write_bytes(manifest_bytes(mutated(values, rng)))
        preset = rng.choice((None, "core", "camera"))
        outcomes.append(one_line_or_done(run))
    assert False in outcomes and True in outcomes
