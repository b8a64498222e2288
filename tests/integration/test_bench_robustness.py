import csv
import json
import shutil
import time

import cv2
import numpy as np
import pytest
from run_verb import only_line, run_verb
from tiny_bundle import make_named_bundles, scene, write_discs

from kdas_edge.bench.models import open_model, predictor
from kdas_edge.data.corruptions import corrupt
from kdas_edge.metrics import deploy
from kdas_edge.runtime.backends import open_backend
from kdas_edge.runtime.targets import parse_target

QUICK = ("--iterations", 2, "--warmup", 1, "--warmup-limit", 1, "--no-startup", "--no-end-to-end")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return make_named_bundles(tmp_path_factory.mktemp("models"), teacher=96, student=64)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_discs(tmp_path_factory.mktemp("data") / "discs", 6)


@pytest.fixture(scope="module")
def measured(models, data, tmp_path_factory):
    """The result of one benchmark, with its table of images and what it printed."""
    folder = tmp_path_factory.mktemp("results")
    arguments = [
        "bench", models / "student", "--teacher", models / "teacher", "--data", data, *QUICK,
        "--corruptions", "underexposure,smoke", "--robustness-limit", 4,
        "--targets", "openvino:CPU:threads=1,openvino:CPU:threads=2",
        "--json", folder / "bench.json", "--csv", folder / "images.csv",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["kdas-edge", *map(str, arguments)])
        from kdas_edge.cli import main

        with pytest.raises(SystemExit) as end:
            main()
    assert not end.value.code
    return json.loads((folder / "bench.json").read_text()), folder / "images.csv"


def test_every_corruption_and_strength_is_scored_for_teacher_float_and_int8(measured):
    results, _ = measured
    entries = results["robustness"]
    found = [(e["model"], e["precision"], e["corruption"], e["strength"]) for e in entries]
    assert len(set(found)) == len(found)
    assert set(found) == {
        (*model, corruption, strength)
        for model in (("teacher", "fp32"), ("student", "fp32"), ("student", "int8"))
        for corruption in ("underexposure", "smoke")
        for strength in range(4)
    }
    assert all(entry["images"] == 4 and entry["dataset"] == "discs" for entry in entries)
    assert results["settings"]["robustness"]["corruptions"] == ["underexposure", "smoke"]


def test_a_dark_image_costs_dice_and_the_differences_are_those_of_the_means(measured):
    results, _ = measured
    entries = {
        (e["model"], e["precision"], e["corruption"], e["strength"]): e
        for e in results["robustness"]
    }

    def dice(*key):
        return entries[key]["metrics"]["Dice"]["mean"]

    # the tiny network knows a polyp by its paleness, and nothing is pale in the dark
    assert dice("student", "int8", "underexposure", 3) < dice("student", "int8", "smoke", 0) - 0.3
    dark = entries["student", "int8", "underexposure", 3]
    for name, other in (
        ("clean", ("student", "int8", "underexposure", 0)),
        ("teacher", ("teacher", "fp32", "underexposure", 3)),
        ("fp32", ("student", "fp32", "underexposure", 3)),
    ):
        difference = dark[f"difference_to_{name}"]
        expected = dice("student", "int8", "underexposure", 3) - dice(*other)
        assert difference["mean"] == pytest.approx(expected)
        assert difference["low"] <= difference["mean"] <= difference["high"]
    assert "difference_to_clean" not in entries["student", "fp32", "smoke", 0]
    assert "difference_to_teacher" not in entries["teacher", "fp32", "smoke", 1]


def test_the_scores_are_those_of_images_corrupted_by_hand(measured, models, data):
    results, _ = measured
    bundle = open_model(models / "student")
    backend = open_backend(bundle, "int8", parse_target("openvino:CPU:threads=1"))
    dice = []
    for name in ("0", "2", "5"):  # of four of six, evenly spread, those with a polyp
        frame = np.ascontiguousarray(cv2.imread(str(data / f"images/{name}.png"))[..., ::-1])
        mask = cv2.imread(str(data / f"masks/{name}.png"), 0) > 127
        map_ = predictor(bundle, backend)(corrupt(frame, "smoke", 2, name))
        map_ = cv2.resize(map_, (128, 96), interpolation=cv2.INTER_LINEAR)
        dice.append(deploy.score(map_, mask, 0.5)["Dice"])
    backend.close()
    entry = next(
        e
        for e in results["robustness"]
        if (e["model"], e["precision"], e["corruption"], e["strength"])
        == ("student", "int8", "smoke", 2)
    )
    assert entry["metrics"]["Dice"]["mean"] == pytest.approx(np.mean(dice), abs=1e-6)


def test_the_csv_has_one_line_per_image_and_scored_row(measured):
    results, table = measured
    with table.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 6 * 4  # teacher and student, fp32 and int8; threads change no mask
    line = next(
        one
        for one in lines
        if (one["image"], one["model"], one["precision"]) == ("2", "student", "int8")
    )
    entry = next(
        e
        for e in results["accuracy"]
        if (e["model"], e["precision"], e["protocol"]) == ("student", "int8", "deploy")
    )
    place = entry["per_image"]["names"].index("2")
    assert float(line["deploy.Dice"]) == entry["per_image"]["metrics"]["Dice"][place]
    assert "difference_to_fp32" in entry and "by_size" in entry and entry["worst"]


def test_the_table_shows_every_model_beside_the_others(models, data, capsys):
    done = run_verb(
        capsys, "bench", models / "student", "--teacher", models / "teacher", "--data", data,
        *QUICK, "--corruptions", "smoke", "--robustness-limit", 2, "--protocol", "deploy",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "Dice on corrupted images of discs (2 images)" in done.out
    assert "teacher fp32" in done.out and "student int8" in done.out


def test_wrong_arguments_are_one_line_each(models, data, tmp_path, capsys):
    for arguments, words in (
        (["--data", data, "--corruptions", "fog"], "no corruption 'fog'"),
        (["--robustness"], "name a data set with --data"),
        (["--csv", tmp_path / "images.csv"], "name a data set with --data"),
    ):
        assert words in only_line(run_verb(capsys, "bench", models / "student", *arguments))
    assert list(tmp_path.iterdir()) == []


def test_images_without_masks_are_refused_with_the_remedy_and_latency_alone_runs(
    models, tmp_path, capsys
):
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), scene())
    line = only_line(run_verb(capsys, "bench", models / "student", "--data", tmp_path))
    assert "has no masks/" in line and "leave out --data" in line
    assert run_verb(capsys, "bench", models / "student", *QUICK).code == 0


def test_a_mask_of_another_size_or_a_broken_image_is_told_before_anything_is_timed(
    models, data, tmp_path, capsys
):
    copy = tmp_path / "discs"
    shutil.copytree(data, copy)
    mask = copy / "masks" / "5.png"
    whole = mask.read_bytes()
    cv2.imwrite(str(mask), np.zeros((50, 60), np.uint8))
    result = tmp_path / "bench.json"
    command = ("bench", models / "student", "--data", copy, *QUICK, "--json", result)
    started = time.monotonic()
    line = only_line(run_verb(capsys, *command, "--minutes", 10))
    assert "60×50 pixels but its image is 128×96" in line and str(mask) in line
    assert time.monotonic() - started < 60
    mask.write_bytes(whole)
    (copy / "images" / "4.png").write_bytes(b"no picture")
    line = only_line(run_verb(capsys, *command))
    assert "4.png cannot be read as an image" in line
    assert not result.exists()
