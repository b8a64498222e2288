import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from kdas_edge.bench import accuracy
from kdas_edge.bench.scores import ImageScore, SetScores, paired_difference
from kdas_edge.data.duplicates import pixel_digest
from kdas_edge.data.layout import find_pairs
from kdas_edge.data.lineage import Lineage, extend
from kdas_edge.data.splits import hash_pair
from kdas_edge.errors import UserError
from kdas_edge.image_files import read_image

DATA = Path(os.environ.get("KDAS_EDGE_DATA", "../shared/data/pranet"))
MAPS = DATA.parent / "pranet_maps"


@pytest.fixture
def image_set(tmp_path):
    """Four frames whose red channel is the polyp's probability; the last one has no polyp."""
    rng = np.random.default_rng(11)
    for folder in ("images", "masks"):
        (tmp_path / "clinic" / folder).mkdir(parents=True)
    for index in range(4):
        mask = np.zeros((48, 64), np.uint8)
        if index < 3:
            cv2.circle(mask, (20 + 8 * index, 24), 10 + index, 255, -1)
        frame = np.repeat((mask // 2 + 30)[..., None], 3, axis=2)
        frame = np.clip(frame + rng.normal(0, 8, frame.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "clinic" / "images" / f"f{index}.png"), frame)
        cv2.imwrite(str(tmp_path / "clinic" / "masks" / f"f{index}.png"), mask)
    return find_pairs(tmp_path / "clinic")


def red(frame):
    return frame[..., 0] / np.float32(255)


def test_every_image_has_a_row_and_the_set_a_mean_with_an_interval(image_set):
    scores = accuracy.evaluate(red, image_set, threshold=0.35)["deploy"]
    assert [row.name for row in scores.rows] == ["f0", "f1", "f2", "f3"]
    dice = scores.estimate("Dice")
    assert dice.count == 3 and scores.rows[3].metrics["Dice"] is None
    assert dice.mean == pytest.approx(np.mean([row.metrics["Dice"] for row in scores.rows[:3]]))
    assert dice.low <= dice.mean <= dice.high
    # of the four frames, one is free of polyps
    assert scores.estimate("false_positive_frame").count == 1
    assert scores.estimate("missed_frame").count == 3


def test_the_paper_protocol_leaves_out_polyp_free_frames_and_says_so(image_set):
    scores = accuracy.evaluate(red, image_set)["paper"]
    assert len(scores.rows) == 3
    assert scores.skipped == 1
    # its quotient by N - 1 pixels can pass 1 by a hair on a tiny image
    assert 0.9 < scores.set_metrics["maxEmeasure"] < 1.001


def test_a_map_of_the_networks_size_is_resized_to_the_mask(image_set):
    def small(frame):
        return cv2.resize(red(frame), (32, 32), interpolation=cv2.INTER_AREA)

    full = accuracy.evaluate(red, image_set, ["deploy"], 0.35)["deploy"].estimate("Dice")
    coarse = accuracy.evaluate(small, image_set, ["deploy"], 0.35)["deploy"].estimate("Dice")
    assert coarse.mean == pytest.approx(full.mean, abs=0.1)


def test_images_that_were_trained_on_are_known_by_pixels_or_by_their_files(image_set):
    first, second = image_set.pairs[:2]
    by_pixels = extend(Lineage(), {pixel_digest(read_image(first.image)): "train"})
    by_files = Lineage(files={hash_pair(second): "train"})
    for lineage, expected in (
        (by_pixels, [True, False, False, False]),
        (by_files, [False, True, False, False]),
        (None, [None] * 4),
    ):
        scores = accuracy.evaluate(red, image_set, ["deploy"], 0.35, lineage=lineage)["deploy"]
        assert [row.trained_on for row in scores.rows] == expected


def test_a_predictor_that_fails_does_not_end_the_others(image_set):
    def broken(frame):
        raise RuntimeError("no such operator")

    results = accuracy.evaluate_many({"good": red, "bad": broken}, image_set, ["deploy"])
    assert isinstance(results["bad"], RuntimeError)
    assert len(results["good"]["deploy"].rows) == 4


def test_a_paired_difference_sees_what_separate_intervals_hide():
    rng = np.random.default_rng(2)
    base = rng.beta(2, 1, 80)

    def scores(values):
        rows = [ImageScore(str(i), {"Dice": float(v)}, 0.05) for i, v in enumerate(values)]
        return SetScores("set", "deploy", tuple(rows))

    first, second = scores(base), scores(base - 0.01 + rng.normal(0, 0.005, 80))
    difference = paired_difference(first, second, "Dice")
    assert 0 < difference.low < 0.01 < difference.high < 0.02
    separate = first.estimate("Dice"), second.estimate("Dice")
    assert separate[0].low < separate[1].mean


def test_a_paired_difference_of_other_images_is_refused():
    one = SetScores("s", "deploy", (ImageScore("a", {"Dice": 1.0}, 0.05),))
    other = SetScores("s", "deploy", (ImageScore("b", {"Dice": 1.0}, 0.05),))
    with pytest.raises(ValueError, match="same images"):
        paired_difference(one, other, "Dice")


def test_the_fingerprint_changes_with_one_pixel_of_one_mask(image_set):
    before = accuracy.data_fingerprint(image_set)
    assert accuracy.data_fingerprint(image_set) == before
    path = image_set.pairs[2].mask
    mask = cv2.imread(str(path), 0)
    mask[0, 0] ^= 255
    cv2.imwrite(str(path), mask)
    assert accuracy.data_fingerprint(image_set) != before
    assert accuracy.data_fingerprint(image_set, limit=2) == accuracy.data_fingerprint(
        image_set, limit=2
    )


def test_a_missing_map_and_a_map_of_another_size_are_errors(image_set, tmp_path):
    maps = tmp_path / "maps"
    maps.mkdir()
    for pair in image_set.pairs[:3]:
        cv2.imwrite(str(maps / f"{pair.name}.png"), cv2.imread(str(pair.mask), 0))
    with pytest.raises(UserError, match=r"no map for 1 of 4 masks .*'f3'"):
        accuracy.evaluate_maps(maps, image_set.root / "masks", "clinic")
    cv2.imwrite(str(maps / "f3.png"), np.zeros((10, 10), np.uint8))
    with pytest.raises(UserError, match="10×10 pixels but its mask is 64×48"):
        accuracy.evaluate_maps(maps, image_set.root / "masks", "clinic")


def test_an_empty_map_file_is_an_error_of_one_line(image_set, tmp_path):
    maps = tmp_path / "maps"
    maps.mkdir()
    for pair in image_set.pairs:
        (maps / f"{pair.name}.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"is empty \(0 bytes\)") as caught:
        accuracy.evaluate_maps(maps, image_set.root / "masks", "clinic")
    assert "\n" not in str(caught.value)


# PraNet's table: mDice, mIoU, MAE (Kvasir as its published maps give it, see the module's note),
# then S-measure, E-measure (maximum of the mean curve) and weighted F
PUBLISHED = {
    "CVC-ClinicDB": (0.899, 0.849, 0.009, 0.936, 0.979, 0.896),
    "CVC-300": (0.871, 0.797, 0.010, 0.925, 0.972, 0.843),
    "Kvasir": (0.894, 0.836, 0.030, None, None, None),
}


@pytest.mark.data
@pytest.mark.parametrize("name", PUBLISHED)
def test_pranets_published_maps_give_its_published_table(name):
    masks = DATA / "TestDataset" / name / "masks"
    if not masks.is_dir() or not (MAPS / name).is_dir():
        pytest.skip(f"needs {masks} and {MAPS / name}; set KDAS_EDGE_DATA")
    scores = accuracy.evaluate_maps(MAPS / name, masks, name)["paper"]
    summary = scores.summary()
    got = [summary[m].mean for m in ("mDice", "mIoU", "MAE", "Smeasure")]
    got += [scores.set_metrics["maxEmeasure"], summary["wFmeasure"].mean]
    for value, published in zip(got, PUBLISHED[name], strict=True):
        assert published is None or value == pytest.approx(published, abs=0.001)
