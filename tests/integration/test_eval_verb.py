import csv
import json
import shutil

import cv2
import numpy as np
import pytest
from run_verb import only_line, run_verb
from tiny_bundle import make_tiny_bundle, rewrite_manifest, scene, write_discs

from kdas_edge.data.duplicates import pixel_digest
from kdas_edge.data.lineage import Lineage, extend
from kdas_edge.image_files import read_image


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Test sets `discs` (one frame without a polyp) and `more` in the PraNet layout."""
    root = tmp_path_factory.mktemp("data")
    for name, count in (("discs", 3), ("more", 2)):
        write_discs(root / "TestDataset" / name, count, polyp_free=2)
    return root


def test_a_bundle_is_scored_on_every_set_under_both_protocols(bundle, data, tmp_path, capsys):
    result = tmp_path / "result.json"
    done = run_verb(capsys, "eval", bundle, "--data", data, "--json", result)
    assert done.code == 0, done.err
    assert "protocol paper" in done.out and "protocol deploy" in done.out
    values = json.loads(result.read_text())
    assert values["schema"] == "kdas-edge/eval/2"
    assert values["precision"] == "int8" and values["target"] == "openvino:CPU"
    assert "precision" in values["effective"]
    found = {(entry["dataset"], entry["protocol"]): entry for entry in values["accuracy"]}
    assert set(found) == {(s, p) for s in ("discs", "more") for p in ("paper", "deploy")}
    discs = found["discs", "deploy"]
    # the pale disc is what the tiny network looks for
    assert discs["metrics"]["Dice"]["mean"] > 0.9
    assert discs["per_image"]["names"] == ["0", "1", "2"]
    assert found["discs", "paper"]["skipped_polyp_free"] == 1


def test_maps_that_were_written_score_like_the_model_that_wrote_them(
    bundle, data, tmp_path, capsys
):
    first, second, maps = tmp_path / "model.json", tmp_path / "maps.json", tmp_path / "maps"
    done = run_verb(
        capsys, "eval", bundle, "--data", data, "--sets", "discs", "--protocol", "paper",
        "--maps-out", maps, "--json", first,
    )  # fmt: skip
    assert done.code == 0, done.err
    # the polyp-free frame has a map but no place in the paper protocol
    done = run_verb(
        capsys, "eval", "--maps", maps / "discs", "--data", data / "TestDataset" / "discs",
        "--protocol", "paper", "--json", second,
    )  # fmt: skip
    assert done.code == 0, done.err
    direct, stored = (json.loads(p.read_text())["accuracy"][0] for p in (first, second))
    assert stored["images"] == direct["images"] == 2
    for name in ("mDice", "mIoU", "MAE", "Smeasure", "wFmeasure"):
        # 8 bits round what lies near 0, and a third of this map does
        assert stored["metrics"][name]["mean"] == pytest.approx(
            direct["metrics"][name]["mean"], abs=0.01
        )


def test_a_missing_map_is_one_line(bundle, data, tmp_path, capsys):
    masks = data / "TestDataset" / "discs" / "masks"
    maps = tmp_path / "maps"
    maps.mkdir()
    (maps / "0.png").write_bytes((masks / "0.png").read_bytes())
    done = run_verb(capsys, "eval", "--maps", maps, "--data", masks.parent)
    assert "no map for 2 of 3 masks" in only_line(done)


def test_an_absent_device_is_one_line_that_lists_what_is_present(bundle, data, tmp_path, capsys):
    maps = tmp_path / "maps"
    done = run_verb(
        capsys, "eval", bundle, "--data", data, "--target", "openvino:NPU", "--maps-out", maps
    )
    assert "openvino:CPU" in only_line(done)
    assert list(tmp_path.iterdir()) == []


def test_wrong_arguments_are_one_line_each(bundle, data, tmp_path, capsys):
    for arguments, words in (
        ([bundle, "--maps", data, "--data", data], "MODEL or --maps"),
        ([bundle, "--data", tmp_path / "nowhere"], "nowhere"),
        ([bundle, "--data", data, "--protocol", "pranet"], "paper, deploy or both"),
        ([bundle, "--data", data, "--sets", "dics"], "discs, more"),
        ([bundle, "--data", data, "--target", "openvino:TPU"], "TPU"),
        ([bundle, "--data", data, "--precision", "fp16"], "fp16"),
        ([tmp_path / "absent", "--data", data], "does not exist"),
        ([__file__, "--data", data], "is no model"),
    ):
        assert words in only_line(run_verb(capsys, "eval", *arguments))


def test_every_image_is_a_line_of_the_csv(bundle, data, tmp_path, capsys):
    table, result = tmp_path / "images.csv", tmp_path / "result.json"
    done = run_verb(capsys, "eval", bundle, "--data", data, "--csv", table, "--json", result)
    assert done.code == 0, done.err
    with table.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["dataset"], line["image"]) for line in lines] == [
        ("discs", "0"), ("discs", "1"), ("discs", "2"), ("more", "0"), ("more", "1"),
    ]  # fmt: skip
    first, polyp_free = lines[0], lines[2]
    assert (first["model"], first["precision"], first["target"]) == (
        "tiny", "int8", "openvino:CPU",
    )  # fmt: skip
    assert float(first["polyp_fraction"]) > 0.03 and first["size"] in ("medium", "large")
    # the paper protocol leaves the frame out, and nothing there can be missed
    assert polyp_free["size"] == "polyp-free"
    assert polyp_free["paper.mDice"] == "" and polyp_free["deploy.missed_frame"] == ""
    entries = {(e["dataset"], e["protocol"]): e for e in json.loads(result.read_text())["accuracy"]}
    for protocol, metric in (("deploy", "Dice"), ("paper", "wFmeasure")):
        metrics = entries["discs", protocol]["per_image"]["metrics"]
        assert float(first[f"{protocol}.{metric}"]) == metrics[metric][0]


def test_images_that_the_model_was_trained_on_are_marked_wherever_a_number_is_shown(
    bundle, data, tmp_path, capsys
):
    images = data / "TestDataset" / "discs" / "images"
    digest, other = (pixel_digest(read_image(images / f"{i}.png")) for i in (2, 1))
    split = extend(Lineage(), {digest: "train"}, near_duplicates=[other]).as_json()
    copy = shutil.copytree(bundle, tmp_path / "tiny")
    rewrite_manifest(copy, lambda values: values["provenance"].update(split=split))
    result, table = tmp_path / "result.json", tmp_path / "images.csv"
    done = run_verb(capsys, "eval", copy, "--data", data, "--json", result, "--csv", table)
    assert done.code == 0, done.err
    shown = " ".join(done.out.split())
    assert "tiny was trained on 1 of the 3 images of discs" in shown and "†" in done.out
    assert "1 of the 3 images of discs look like one it was trained on" in shown
    entries = {e["dataset"]: e for e in json.loads(result.read_text())["accuracy"]}
    assert entries["discs"]["trained_on"] == 1 and entries["more"]["trained_on"] == 0
    with table.open(newline="") as file:
        lines = {(line["dataset"], line["image"]): line for line in csv.DictReader(file)}
    assert lines["discs", "2"]["trained_on"] == "True"
    assert lines["discs", "1"]["trained_on"] == "False"


def test_a_set_without_a_polyp_is_scored_as_polyp_free_frames(bundle, tmp_path, capsys):
    for part in ("images", "masks"):
        (tmp_path / "healthy" / part).mkdir(parents=True)
    for index in range(3):
        image = scene(96, 128, seed=index, polyp=index == 2)
        cv2.imwrite(str(tmp_path / f"healthy/images/{index}.png"), image[..., ::-1])
        mask = np.zeros((96, 128), np.uint8)
        cv2.imwrite(str(tmp_path / f"healthy/masks/{index}.png"), mask)
    result = tmp_path / "result.json"
    done = run_verb(
        capsys, "eval", bundle, "--data", tmp_path / "healthy", "--protocol", "deploy",
        "--json", result,
    )  # fmt: skip
    assert done.code == 0, done.err
    (entry,) = json.loads(result.read_text())["accuracy"]
    # the third frame shows what the network looks for, so that it is marked
    assert entry["frames"]["false_positive_frames"]["mean"] == pytest.approx(1 / 3)
    assert "Dice" not in entry["metrics"]
    assert "1.000" not in done.out.split("pixel specificity")[0] and "1 of 3" in done.out


def test_a_name_that_a_spreadsheet_would_run_is_text_in_the_csv(bundle, data, tmp_path, capsys):
    maps = tmp_path / "maps"
    maps.mkdir()
    for index in range(3):
        mask = data / f"TestDataset/discs/masks/{index}.png"
        (maps / mask.name).write_bytes(mask.read_bytes())
    named = shutil.copytree(data / "TestDataset" / "discs", tmp_path / "@discs")
    table = tmp_path / "images.csv"
    done = run_verb(capsys, "eval", "--maps", maps, "--data", named, "--csv", table)
    assert done.code == 0, done.err
    with table.open(newline="") as file:
        cells = [cell for line in csv.reader(file) for cell in line]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    assert "'@discs" in cells


def test_the_table_by_size_and_the_counted_frames_are_shown(bundle, data, capsys):
    done = run_verb(capsys, "eval", bundle, "--data", data, "--protocol", "deploy")
    assert done.code == 0, done.err
    assert "by size of polyp" in done.out and "no polyp" in done.out


def test_a_set_without_masks_is_one_line_and_the_other_sets_still_run(
    bundle, data, tmp_path, capsys
):
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    shutil.rmtree(copy / "TestDataset" / "more" / "masks")
    line = only_line(run_verb(capsys, "eval", bundle, "--data", copy))
    assert "has no masks/" in line and "--sets discs" in line
    done = run_verb(capsys, "eval", bundle, "--data", copy, "--sets", "discs")
    assert done.code == 0, done.err


def test_a_mask_of_another_size_is_one_line_that_names_it(bundle, data, tmp_path, capsys):
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    path = copy / "TestDataset" / "more" / "masks" / "1.png"
    cv2.imwrite(str(path), np.zeros((50, 60), np.uint8))
    line = only_line(run_verb(capsys, "eval", bundle, "--data", copy))
    assert str(path) in line and "60×50 pixels" in line and "export the mask again" in line


@pytest.mark.slow
def test_a_checkpoint_is_evaluated_in_torch(data, tmp_path, capsys):
    from kdas_edge.models.checkpoints import save_network
    from kdas_edge.models.zoo import build
    from kdas_edge.recipe import ModelRecipe

    network = build(ModelRecipe(backbone="mobilenetv2_035", width=8, pretrained=False), size=64)
    checkpoint = tmp_path / "random.safetensors"
    save_network(checkpoint, network.state_dict(), network.architecture)
    result = tmp_path / "result.json"
    done = run_verb(
        capsys, "eval", checkpoint, "--data", data, "--limit", 1, "--protocol", "deploy",
        "--json", result,
    )  # fmt: skip
    assert done.code == 0, done.err
    values = json.loads(result.read_text())
    assert (values["target"], values["precision"]) == ("torch:cpu", "fp32")
    assert values["model"]["kind"] == "checkpoint"
    assert values["model"]["provenance"]["parameters"] > 100_000
