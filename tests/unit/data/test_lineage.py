"""Sides are inherited by the pixels of an image, whatever its name, the seed or the folder."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdas_edge.data.groups import groups_by
from kdas_edge.data.layout import find_pairs
from kdas_edge.data.lineage import Lineage, extend, read_lineage
from kdas_edge.data.splits import Split, read_split, validation_split, write_split
from kdas_edge.data.synthetic import scene
from kdas_edge.errors import UserError
from kdas_edge.image_files import read_image


def _add(root: Path, names: dict[str, int]) -> None:
    """Write a scene per name."""
    for name, seed in names.items():
        image, mask = scene(seed, 96, polyp=True)
        for kind, pixels in (("images", image), ("masks", mask)):
            path = root / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    _add(tmp_path / "set", {f"f{index:02}": 300 + index for index in range(20)})
    return tmp_path / "set"


@pytest.fixture
def first(folder: Path) -> Split:
    return validation_split(find_pairs(folder), 0.25, 0)


def test_another_seed_or_fraction_keeps_the_sides(folder: Path, first: Split) -> None:
    for fraction, seed in ((0.25, 7), (0.5, 0), (0.1, 3)):
        again = validation_split(find_pairs(folder), fraction, seed, before=first.lineage)
        assert (again.train, again.validation) == (first.train, first.validation)
        assert (again.inherited, again.seen) == (20, 0)
    assert validation_split(find_pairs(folder), 0.25, 7).validation != first.validation


def test_a_folder_that_grew_keeps_its_sides_and_extends_them(folder: Path, first: Split) -> None:
    _add(folder, {f"a{index:02}": 400 + index for index in range(12)})
    grown = validation_split(find_pairs(folder), 0.25, 0, before=first.lineage)
    assert set(first.validation) < set(grown.validation)
    assert set(first.train) < set(grown.train)
    assert sum(name.startswith("a") for name in grown.validation) == 3
    assert grown.inherited == 20


def test_renamed_and_converted_files_keep_their_side(folder: Path, first: Split) -> None:
    for pair in find_pairs(folder).pairs:
        assert pair.mask is not None
        Image.open(pair.image).save(folder / "images" / f"z{pair.name}.bmp")
        pair.image.unlink()
        pair.mask.rename(folder / "masks" / f"z{pair.name}.png")
    renamed = validation_split(find_pairs(folder), 0.5, 9, before=first.lineage)
    assert renamed.validation == tuple(f"z{name}" for name in first.validation)


def test_a_new_frame_of_a_known_video_joins_its_side(folder: Path, first: Split) -> None:
    for side in (first.train[0], first.validation[0]):
        image = np.roll(read_image(folder / "images" / f"{side}.png"), 1, axis=1)
        Image.fromarray(image).save(folder / "images" / f"new_{side}.png")
        shutil.copy(folder / "masks" / f"{side}.png", folder / "masks" / f"new_{side}.png")
    grown = validation_split(find_pairs(folder), 0.25, 5, before=first.lineage)
    assert f"new_{first.train[0]}" in grown.train
    assert f"new_{first.validation[0]}" in grown.validation


def test_a_set_that_was_trained_on_cannot_judge(folder: Path) -> None:
    everything = validation_split(find_pairs(folder), 0, 0)
    with pytest.raises(UserError, match="trained on all 20 images"):
        validation_split(find_pairs(folder), 0.25, before=everything.lineage, only_unseen=True)
    # a student may still learn from it, and is told
    split = validation_split(find_pairs(folder), 0.25, 0, before=everything.lineage)
    assert split.seen == len(split.validation) == 5
    _add(folder, {"new": 500})
    judged = validation_split(find_pairs(folder), 0.25, before=everything.lineage, only_unseen=True)
    assert judged.validation == ("new",)


def test_trained_on_is_asked_of_pixels(folder: Path, first: Split, tmp_path: Path) -> None:
    def image(name: str) -> np.ndarray:
        return read_image(folder / "images" / f"{name}.png")

    write_split(tmp_path / "run" / "split.json", first, find_pairs(folder))
    lineage = read_lineage(tmp_path / "run")
    assert all(lineage.trained_on(image(name)) for name in first.train)
    assert not any(lineage.trained_on(image(name)) for name in first.validation)
    changed = image(first.train[0]).copy()
    changed[0, 0, 0] ^= 1
    assert not lineage.trained_on(changed)
    assert read_lineage(tmp_path / "run" / "checkpoints" / "best.safetensors") == lineage
    assert not read_lineage(tmp_path / "elsewhere")


def test_a_record_shows_no_digest_and_salts_differ(folder: Path, first: Split) -> None:
    other = validation_split(find_pairs(folder), 0.25, 0)
    assert other.sha256 == first.sha256
    (one,), (two,) = first.lineage.parts, other.lineage.parts
    assert one.salt != two.salt and not one.train & two.train
    both = first.lineage + other.lineage
    assert Lineage.from_json(json.loads(json.dumps(both.as_json()))) == both


def test_a_line_keeps_one_salt_and_forgets_nothing(folder: Path, first: Split) -> None:
    other = folder.parent / "other"
    _add(other, {f"o{index}": 600 + index for index in range(8)})
    student = validation_split(find_pairs(other), 0.25, 0, before=first.lineage)
    (part,) = student.lineage.parts
    assert len(part.train) == len(first.train) + len(student.train)
    # of two lines, what is in the folder is said once
    second = validation_split(find_pairs(folder), 0.25, 0)
    merged = validation_split(find_pairs(folder), 0.25, 0, before=first.lineage + second.lineage)
    assert len(merged.lineage.parts) == 1


def test_one_that_trained_outweighs_one_that_validated() -> None:
    teacher = extend(Lineage(), {"a": "train", "b": "validation"})
    other = extend(Lineage(), {"a": "validation", "b": "validation", "c": "train"})
    both = teacher + other
    assert [both.side(name) for name in "abcd"] == ["train", "validation", "train", None]


def test_runs_of_the_first_release_are_inherited_by_their_files(
    folder: Path, first: Split, tmp_path: Path
) -> None:
    content = {
        "schema": 1,
        "set": "set",
        "sha256": first.sha256,
        "train": list(first.train),
        "validation": list(first.validation),
        "hashes": dict(first.hashes),
    }
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "split.json").write_text(json.dumps(content))
    assert read_split(tmp_path / "old" / "split.json").validation == first.validation
    before = read_lineage(tmp_path / "old")
    again = validation_split(find_pairs(folder), 0.25, 9, before=before)
    assert again.validation == first.validation
    (tmp_path / "old" / "split.json").write_text('{"images": [{"salt": 1}]}')
    with pytest.raises(UserError, match="without a salt"):
        read_lineage(tmp_path / "old")


@pytest.mark.parametrize("rule", ["folder", "folder:1", "(p[0-9])__", "table.csv", "table.csv:who"])
def test_groups_stay_on_one_side(tmp_path: Path, rule: str) -> None:
    root = tmp_path / "set"
    names = {f"p{i % 5}/f{i}" if "csv" not in rule else f"f{i}": 700 + i for i in range(20)}
    if rule.startswith("("):
        names = {name.replace("/", "__"): seed for name, seed in names.items()}
    _add(root, names)
    rows = "".join(f"f{i}.png,p{i % 5}\n" for i in range(20))
    (root / "table.csv").write_text(f"image,{'who' if 'who' in rule else 'patient'}\n{rows}")
    for seed in range(3):
        split = validation_split(find_pairs(root), 0.2, seed, group_by=rule)

        def patients(side: tuple[str, ...]) -> set[str]:
            return {f"p{int(name.rpartition('f')[2]) % 5}" for name in side}

        assert len(patients(split.validation)) == 1 and len(split.validation) == 4
        assert not patients(split.validation) & patients(split.train)


def test_a_patient_who_was_trained_on_does_not_validate(tmp_path: Path) -> None:
    root = tmp_path / "set"
    _add(root, {f"p{i % 5}_{i}": 700 + i for i in range(20)})
    images = validation_split(find_pairs(root), 0.25, 0)
    patients = {name[:2] for name in images.train}
    grouped = validation_split(find_pairs(root), 0.25, 0, group_by="p[0-9]", before=images.lineage)
    assert patients == {"p0", "p1", "p2", "p3", "p4"} and grouped.seen == len(grouped.validation)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("q[0-9]", "no group, f0.png"),
        ("(", "no regular expression"),
        ("folder:2", "no group, f0.png"),
        ("folder:0", "counted from 1"),
        ("absent.csv", "cannot be read"),
        ("bad.csv", "columns a, b"),
        ("twice.csv", "two groups"),
    ],
)
def test_a_rule_that_fits_nothing_is_one_clear_line(tmp_path: Path, rule: str, words: str) -> None:
    _add(tmp_path, {"f0": 1, "f1": 2})
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    (tmp_path / "twice.csv").write_text("image,patient\nf0,p1\nf0,p2\nf1,p1\n")
    with pytest.raises(UserError, match=words):
        groups_by(find_pairs(tmp_path).pairs, tmp_path, rule)
