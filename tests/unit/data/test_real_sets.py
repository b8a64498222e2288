"""The known faults of the PraNet sets are found, and few that are not there. Prints its figures."""

from pathlib import Path

import pytest

from kdas_edge.data.check import Report, check
from kdas_edge.data.layout import ImageSet, find_sets
from kdas_edge.data.prepare import prepare
from kdas_edge.data.splits import validation_split

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def report(real_data: Path) -> Report:
    return check(real_data)


def test_the_leak_of_clinicdb_is_found_and_the_other_sets_are_clean(report: Report) -> None:
    leaks = {name: report.count("near duplicate of training", name) for name in report.sets}
    print(f"test images with a near duplicate in training: {leaks}")
    assert report.sets["CVC-ClinicDB"].images == 62
    assert 34 <= leaks["CVC-ClinicDB"] <= 40
    assert leaks["Kvasir"] == 0
    assert leaks["CVC-300"] == 0


def test_the_identical_pairs_of_cvc300_and_their_differing_masks_are_found(report: Report) -> None:
    for kind in ("exact duplicate", "duplicate with another mask"):
        pairs = {tuple(Path(f).stem for f in found.files) for found in report.of(kind, "CVC-300")}  # type: ignore[arg-type]
        assert pairs == {("183", "198"), ("190", "203")}


def test_the_published_sets_hold_no_error(report: Report) -> None:
    for name, one in report.sets.items():
        print(name, one)
    assert report.errors == []
    assert report.sets["train"].pairs == 1450
    assert report.count("mask of labels") == 0


def test_a_split_of_clinicdb_parts_no_near_duplicates(real_data: Path, report: Report) -> None:
    together = [
        {Path(file).stem for file in found.files} for found in report.of("near duplicates", "train")
    ]
    training = find_sets(real_data)["train"]
    # ClinicDB's numbered frames alone: half a minute less, and where the videos are
    frames = tuple(pair for pair in training.pairs if pair.name.isdigit())
    split = validation_split(ImageSet("clinic", training.root, frames), 0.1, 0)
    print(f"{len(frames)} frames: {len(split.validation)} held out, {len(together)} groups")
    assert len(split.validation) == round(0.1 * len(frames))
    held = set(split.validation)
    for group in together:
        assert not (group & held) or group <= held


def test_a_copy_of_a_real_set_is_small_and_true(real_data: Path, tmp_path: Path) -> None:
    prepared = prepare(real_data / "TestDataset" / "Kvasir", tmp_path / "kvasir")["Kvasir"]
    each = prepared.bytes / prepared.images
    print(
        f"{each / 1000:.1f} kB an image, PSNR {prepared.psnr_mean} dB (worst {prepared.psnr_min})"
    )
    assert 1450 * each < 50e6
    assert prepared.psnr_mean > 38
