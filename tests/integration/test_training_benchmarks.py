"""The scripts that compare trainings run on a CPU, and what was trained is not trained again."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from kdas_edge.data.layout import ImageSet, read_pair, training_set
from kdas_edge.data.layout import test_sets as sets_of_tests
from kdas_edge.export.sources import load_sources
from kdas_edge.models.checkpoints import RECIPE, known_recipe, load_network, save_network
from kdas_edge.models.zoo import build
from kdas_edge.recipe import ModelRecipe

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)


@pytest.mark.slow
def test_an_ablation_trains_what_is_missing_and_pairs_it_by_image(
    scenes: Path, tmp_path: Path
) -> None:
    network = build(ModelRecipe(backbone="test_efficientnet", width=8), 64)
    teacher = tmp_path / "teacher.safetensors"
    save_network(teacher, network.state_dict(), network.architecture)
    results, runs = tmp_path / "results", tmp_path / "runs"
    arguments = [
        "--data", scenes, "--teacher", teacher, "--runs", runs, "--results", results,
        "--only", "supervised", "temperature_4", "--", "data.size=64", "teacher_size=96",
        "model.backbone=test_efficientnet", "model.width=8", "model.pretrained=false",
        "schedule.epochs=1",
    ]  # fmt: skip
    done = run("kdas_ablation.py", *arguments)
    assert done.returncode == 0, done.stderr
    files = {path.name for path in runs.glob("*_s*.json")}
    assert files == {f"{name}.json" for name in (
        "supervised_s0", "supervised_s1", "supervised_s2", "temperature_4_s0",
    )}  # fmt: skip
    row = json.loads((runs / "temperature_4_s0.json").read_text())
    rows = json.loads((results / "rows.json").read_text())["rows"]
    assert row in rows and len(rows) == 4
    assert row["recipe"]["loss"]["temperature"] == 4 and row["gradient_shares"]
    # no folder of this machine in what is published
    assert str(tmp_path) not in (results / "rows.json").read_text()
    summary = json.loads((results / "summary.json").read_text())["rows"]
    [image_set] = summary["supervised"]["sets"]
    assert summary["temperature_4"]["validation_dice"] == row["validation_dice"]
    # the seed that both rows have is compared, image by image
    twin = json.loads((runs / "supervised_s0.json").read_text())["dice"][image_set]
    own = row["dice"][image_set]
    expected = sum(own[name] - twin[name] for name in own) / len(own)
    found = summary["temperature_4"]["sets"][image_set]["minus_supervised"]
    assert found["mean"] == pytest.approx(expected, abs=1e-12)
    assert found["low"] <= found["mean"] <= found["high"]

    # what one part gives: two rows that differ in it alone, paired too
    for name, source in (
        ("attention_kd", "supervised_s0"),
        ("attention_kd_sgm", "temperature_4_s0"),
    ):
        copied = json.loads((runs / f"{source}.json").read_text()) | {"cell": name}
        (tmp_path / "twins").mkdir(exist_ok=True)
        (tmp_path / "twins" / f"{name}_s0.json").write_text(json.dumps(copied))
    shutil.copy(runs / "supervised_s0.json", tmp_path / "twins")
    tables = run(
        "kdas_ablation.py", "--table", "--runs", tmp_path / "twins", "--results", tmp_path / "twins"
    )
    assert tables.returncode == 0, tables.stderr
    twins = json.loads((tmp_path / "twins" / "summary.json").read_text())["twins"]
    difference = twins["attention_kd_sgm − attention_kd"][image_set]
    assert difference["mean"] == pytest.approx(expected, abs=1e-12)

    before = (results / "rows.json").read_bytes()
    shutil.rmtree(runs)  # another machine has the collected rows alone
    again = run("kdas_ablation.py", *arguments)
    assert again.returncode == 0, again.stderr
    assert (results / "rows.json").read_bytes() == before and not runs.exists()
    # another setting does not slip into the same table
    other = run("kdas_ablation.py", *arguments, "schedule.learning_rate=0.1")
    assert other.returncode != 0 and "another setting" in other.stderr


@pytest.mark.slow
def test_a_row_with_another_encoder_takes_its_weights_from_beside_the_students(
    scenes: Path, tmp_path: Path
) -> None:
    known = ["--data", scenes, "--teacher", tmp_path / "t", "--results", tmp_path / "results"]
    encoder = tmp_path / "mobilenetv2_100.imagenet.safetensors"
    row = ["--only", "encoder_lite0", "--encoder", encoder]
    done = run("kdas_ablation.py", *known, *row)
    assert done.returncode == 2
    assert "0 files tf_efficientnet_lite0.*.safetensors" in done.stderr
    (tmp_path / "tf_efficientnet_lite0.here.safetensors").write_bytes(b"no weights")
    done = run("kdas_ablation.py", *known, *row, "--runs", tmp_path / "runs")
    assert done.returncode == 2
    assert "tf_efficientnet_lite0.here.safetensors" in done.stderr


@pytest.mark.slow
def test_the_throughput_of_distillation_is_compared_with_a_plain_loop(
    scenes: Path, tmp_path: Path
) -> None:
    result = tmp_path / "out.json"
    done = run(
        "distillation_throughput.py", "--data", scenes, "--teacher", "test_efficientnet",
        "--student", "test_efficientnet", "--size", 64, "--batch", 4, "--workers", 0,
        "--steps", 1, "--blocks", 2, "--warmup", 1, "--precision", "fp32", "--json", result,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(result.read_text())
    assert set(found["images_per_second"]) == {"plain loop", "kdas-edge"}
    ratios = [
        a / b
        for a, b in zip(*(found["blocks"][k] for k in ("kdas-edge", "plain loop")), strict=True)
    ]
    assert found["ratio_to_plain_loop"]["kdas-edge"] == pytest.approx(sum(ratios) / 2)
    assert "plain loop" in done.stdout


def test_two_networks_are_averaged_by_weight_and_other_kinds_are_refused(
    tmp_path: Path,
) -> None:
    paths, states = [], []
    for name, width in (("a", 8), ("b", 8), ("wider", 16)):
        network = build(ModelRecipe(backbone="test_efficientnet", width=width), 64)
        paths.append(tmp_path / f"{name}.safetensors")
        states.append(network.state_dict())
        recipe = json.dumps({"name": name, "data": {"root": "/where/it/was/images"}})
        save_network(paths[-1], network.state_dict(), network.architecture, {RECIPE: recipe})
    out = tmp_path / "mean.safetensors"
    done = run("average_weights.py", paths[0], paths[1], "--out", out)
    assert done.returncode == 0, done.stderr
    mean = load_network(out).state_dict()
    for key, value in mean.items():
        if value.is_floating_point():
            expected = (states[0][key].double() + states[1][key].double()) / 2
            assert torch.allclose(value.double(), expected, rtol=1e-6, atol=1e-7), key
    # a bundle of the mean says what it was trained on
    assert known_recipe(out) == {
        "name": "mean",
        "data": {"root": "/where/it/was/images"},
        "averaged": ["a.safetensors", "b.safetensors"],
    }
    assert load_sources(out, None).recipe["data"] == {"root": "images"}
    # a finer network and a coarser one: the latter's refinement adds nothing
    fine = tmp_path / "fine.safetensors"
    model = ModelRecipe(backbone="test_efficientnet", width=8, stride=4)
    network = build(model, 64)
    assert network.refine is not None
    torch.nn.init.ones_(network.refine.extend.weight)
    save_network(fine, network.state_dict(), network.architecture)
    done = run("average_weights.py", fine, paths[0], "--out", out)
    assert done.returncode == 0, done.stderr
    mixed = load_network(out)
    assert mixed.architecture.stride == 4 and mixed.refine is not None
    assert (mixed.refine.extend.weight == 0.5).all()
    own, theirs, joined = (n.state_dict() for n in (network, load_network(paths[0]), mixed))
    key = "refine.join.conv.weight"
    assert torch.equal(joined[key], own[key])
    half = (own["cfm.out.conv.weight"] + theirs["cfm.out.conv.weight"]) / 2
    assert torch.allclose(joined["cfm.out.conv.weight"], half)
    refused = run("average_weights.py", paths[0], fine, "--out", tmp_path / "other.safetensors")
    assert refused.returncode == 2 and "stride 4" in refused.stderr
    refused = run("average_weights.py", *paths, "--out", tmp_path / "other.safetensors")
    assert refused.returncode == 2 and "wider.safetensors" in refused.stdout + refused.stderr
    assert not (tmp_path / "other.safetensors").exists()


def test_the_best_dice_of_a_map_is_1_at_the_masks_size_and_falls_with_coarseness(
    scenes: Path, tmp_path: Path
) -> None:
    done = run("map_resolution.py", "--data", scenes, "--json", tmp_path / "found.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    dice = {(row["size"], row["stride"]): row["dice"]["all"]["mean"] for row in found["rows"]}
    # the scenes have 96 pixels a side: a map of twice as many says everything
    assert dice[192, 1] == 1
    for size in (192, 352):
        assert dice[size, 8] < dice[size, 4] < dice[size, 1]
    assert dice[192, 8] < dice[352, 8]


def test_each_hospital_becomes_a_data_set_whose_test_sets_are_the_others(
    scenes: Path, tmp_path: Path
) -> None:
    train = training_set(scenes)
    even = {pair.name for pair in train.pairs if pair.name[-1] in "02468"}
    out = tmp_path / "hospitals"
    patterns = ["--hospital", r"even=.*[02468]", "--hospital", r"odd=.*[13579]"]
    done = run("hospital_split.py", "--data", scenes, "--out", out, *patterns)
    assert done.returncode == 0, done.stderr
    assert {pair.name for pair in training_set(out / "even").pairs} == even
    assert {pair.name for pair in training_set(out / "odd").pairs} == names_of(train) - even
    # the test sets of the whole data set stay out of it
    assert set(sets_of_tests(out / "even")) == {"odd"}
    assert names_of(sets_of_tests(out / "odd")["even"]) == even
    image, mask = read_pair(training_set(out / "odd").pairs[0])
    own = next(pair for pair in train.pairs if pair.name not in even)
    assert np.array_equal(image, read_pair(own)[0]) and np.array_equal(mask, read_pair(own)[1])

    for arguments, line in (
        (patterns, f"{out} "),  # is there already
        ([], "no image is of Kvasir"),  # all names are numbers
        (["--hospital", "a=x", "--hospital", "b=y"], "are of no centre"),
        (["--hospital", "a=.*", "--hospital", "b=.*0"], "is of a and b"),
        (["--hospital", "a=.*", "--hospital", "b=x"], "no image is of b"),
        (["--hospital", "a=.*"], "no other to be tried on"),
        (["--hospital", "a=(", "--hospital", "b=x"], "correct the expression"),
        (["--hospital", "a/..=.*", "--hospital", "b=x"], "write NAME=PATTERN"),
    ):
        where = out if str(out) in line else tmp_path / "none"
        refused = run("hospital_split.py", "--data", scenes, "--out", where, *arguments)
        assert refused.returncode == 2 and line in refused.stderr, refused.stderr
    assert not (tmp_path / "none").exists()


def names_of(image_set: ImageSet) -> set[str]:
    return {pair.name for pair in image_set.pairs}


def test_networks_are_compared_on_the_validation_split_as_it_is_and_corrupted(
    scenes: Path, tmp_path: Path
) -> None:
    names = ("teacher_effb0_352_b8", "student_mnv2_352_last")
    networks = [tmp_path / f"{name}.safetensors" for name in names]
    for copy in networks:
        shutil.copy(BENCHMARKS / "results" / "runs" / copy.stem / "weights.safetensors", copy)
    result = tmp_path / "out.json"
    known = ["--data", scenes, "--validation", 0.4, "--json", result]
    done = run("validation_dice.py", *networks, *known, "--corruptions", "bubbles,noise")
    assert done.returncode == 0, done.stderr
    first, second = json.loads(result.read_text())["rows"].values()
    corrupted = [f"{name} {strength}" for name in ("bubbles", "noise") for strength in (1, 2, 3)]
    assert list(first) == ["as they are", *corrupted, "all of these"]
    whole = [row["all of these"]["dice"]["mean"] for row in (first, second)]
    parts = [[row[name]["dice"]["mean"] for name in list(row)[:-1]] for row in (first, second)]
    assert whole == pytest.approx([sum(part) / 7 for part in parts], abs=1e-12)
    assert first["noise 3"]["minus_first"] is None
    assert second["all of these"]["minus_first"]["mean"] == pytest.approx(
        whole[1] - whole[0], abs=1e-12
    )
    assert first["noise 3"]["dice"]["mean"] < first["as they are"]["dice"]["mean"]

    alone = run("validation_dice.py", networks[0], *known)
    assert alone.returncode == 0, alone.stderr
    [row] = json.loads(result.read_text())["rows"].values()
    assert row == {"as they are": first["as they are"]}
