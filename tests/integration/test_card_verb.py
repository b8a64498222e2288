"""A benchmark's figures on the model card, with real measurements of a tiny bundle."""

import json
import re
import shutil
from pathlib import Path

import pytest
from bench_results import make_results
from run_verb import only_line, run_verb
from tiny_bundle import make_tiny_bundle, rewrite_manifest

from kdas_edge.bench.accuracy_results import AccuracyEntry, RobustnessEntry
from kdas_edge.bench.records import benchmark_note
from kdas_edge.bench.results import write_result
from kdas_edge.bundle.benchmark_note import read_note
from kdas_edge.bundle.manifest import AccuracyRecord
from kdas_edge.bundle.reader import open_bundle
from kdas_edge.errors import UserError
from kdas_edge.evidence.materials import check_materials
from kdas_edge.export.card import model_card
from kdas_edge.files import sha256
from kdas_edge.metrics.bootstrap import Estimate


@pytest.fixture(scope="module")
def measured(tmp_path_factory, scenes):
    """A bundle and the benchmark of it; the teacher is a copy under another name."""
    from kdas_edge.bench import harness
    from kdas_edge.bench.evaluation import choose_sets
    from kdas_edge.runtime.targets import parse_targets

    root = tmp_path_factory.mktemp("card")
    bundle = make_tiny_bundle(root / "tiny", presets=("core",))
    teacher = make_tiny_bundle(root / "teacher", presets=("core",))
    rewrite_manifest(teacher, lambda values: values.update(name="large"))
    settings = harness.Settings(
        iterations=10, protocols=("deploy",), robustness=("jpeg", "bubbles"), robustness_limit=2
    )
    targets = parse_targets("openvino:CPU:threads=1")
    opened = open_bundle(bundle), open_bundle(teacher)
    results = harness.run([opened[0]], opened[1], targets, choose_sets(scenes), settings)
    write_result(root / "out.json", results)
    return bundle, root / "out.json"


@pytest.fixture
def bundle(measured, tmp_path):
    return Path(shutil.copytree(measured[0], tmp_path / "tiny"))


def test_the_card_holds_what_was_measured(measured, bundle, capsys):
    before = {name: sha256(bundle / name) for name in open_bundle(bundle).manifest.files}
    done = run_verb(capsys, "card", bundle, measured[1])
    assert done.code == 0, done.err
    opened = open_bundle(bundle)
    assert {name: opened.manifest.files[name].sha256 for name in before} == before
    (check,) = check_materials(opened)
    assert check.verdict == "pass"

    results = json.loads(measured[1].read_text())
    entry = next(e for e in results["accuracy"] if (e["model"], e["precision"]) == ("tiny", "int8"))
    dice = entry["metrics"]["Dice"]
    record = next(r for r in opened.manifest.accuracy if r.precision == "int8")
    assert record.metrics["Dice"] == dice["mean"]
    assert record.intervals["Dice"] == (dice["low"], dice["high"])
    card = (bundle / "MODEL_CARD.md").read_text()
    assert f"{dice['mean']:.3f} ({dice['low']:.3f}–{dice['high']:.3f})" in card
    row = next(r for r in results["rows"] if (r["model"], r["precision"]) == ("tiny", "int8"))
    assert f"| int8 | openvino:CPU:threads=1 | {row['latency']['p50']:.2f} |" in card
    assert "Difference to the fp32 teacher, paired per image" in card
    for section in ("Intended use", "Data", "Accuracy", "Speed", "Limits", "Licences"):
        assert f"\n## {section}" in card
    assert "No regulatory clearance" in card


def test_the_card_says_where_it_fails(measured, bundle, capsys):
    run_verb(capsys, "card", bundle, measured[1])
    card = (bundle / "MODEL_CARD.md").read_text()
    section = card.split("\n## Where it fails\n")[1].split("\n## ")[0]
    assert section.startswith("Measured with int8 on openvino:CPU, protocol deploy.")

    results = json.loads(measured[1].read_text())
    mine = ("tiny", "int8")
    for entry in results["accuracy"]:
        if (entry["model"], entry["precision"]) != mine:
            continue
        for size, group in entry["by_size"].items():
            if "Dice" in group["metrics"]:
                mean = group["metrics"]["Dice"]["mean"]
                start = f"| {entry['dataset']} | {size}, {group['what']} | {group['images']} |"
                assert f"{start} {mean:.3f} (" in section
    dice = {"jpeg": [], "bubbles": []}
    for entry in results["robustness"]:
        if (entry["model"], entry["precision"]) == mine and entry["strength"]:
            dice[entry["corruption"]].append(entry["metrics"]["Dice"]["mean"])
    # one data set, so that nothing is averaged; what costs most stands first
    lines = [
        f"| {name} | {' | '.join(f'{v:.3f}' for v in values)} |" for name, values in dice.items()
    ]
    assert all(line in section for line in lines)
    order = sorted(dice, key=lambda name: sum(dice[name]))
    assert section.index(f"| {order[0]} |") < section.index(f"| {order[1]} |")


def test_corrupted_images_of_several_sets_count_each_image_alike():
    def entry(dataset: str, strength: int, images: int, mean: float) -> RobustnessEntry:
        dice = Estimate(mean, mean, mean, images)
        return RobustnessEntry(
            model="m", precision="int8", target="t", dataset=dataset, corruption="smoke",
            strength=strength, images=images, metrics={"Dice": dice},
        )  # fmt: skip

    corrupted = [
        entry(*row) for s in range(4) for row in (("a", s, 30, 0.9 - s / 10), ("b", s, 10, 0.5))
    ]
    accuracy = [
        AccuracyEntry(
            model="m", precision="int8", target="t", protocol="deploy", dataset=name, images=1,
            metrics={},
        )
        for name in ("a", "b")
    ]  # fmt: skip
    results = make_results().model_copy(
        update={"robustness": corrupted, "accuracy": accuracy, "rows": []}
    )
    failures = benchmark_note(results, "m").failures
    assert failures is not None
    (row,) = failures.corrupted
    assert row.images == 40
    assert row.dice == pytest.approx([0.8, 0.725, 0.65, 0.575])


def test_measuring_again_replaces_the_figures(measured, bundle, capsys):
    run_verb(capsys, "card", bundle, measured[1])
    once = open_bundle(bundle).manifest.accuracy
    run_verb(capsys, "card", bundle, measured[1])
    assert open_bundle(bundle).manifest.accuracy == once and len(once) == 2


def test_a_benchmark_of_other_model_files_is_refused(measured, bundle, capsys):
    (bundle / "int8/core.bin").write_bytes(b"other weights")
    rewrite_manifest(bundle, lambda values: None)
    before = (bundle / "manifest.json").read_bytes()
    line = only_line(run_verb(capsys, "card", bundle, measured[1]))
    assert "not the model files of tiny" in line and "kdas-edge bench" in line
    assert (bundle / "manifest.json").read_bytes() == before
    assert not (bundle / "MODEL_CARD.md").exists()


def test_a_card_without_measurements_says_so(measured):
    card = model_card(open_bundle(measured[0]).manifest)
    assert "Not measured when this was written" in card and "nothing yet" in card


def test_a_benchmark_of_the_first_release_is_read_as_it_is_and_a_wrong_one_is_one_line():
    failures = {
        "precision": "int8", "target": "openvino:CPU", "sizes": [],
        "spoilt": [{"corruption": "smoke", "images": 3, "dice": [0.9, 0.8, 0.7, 0.6]}],
    }  # fmt: skip
    old = {"cpu": "c", "created": "", "code_version": "", "failures": failures}
    note = read_note({"benchmark": old}, "tiny")
    assert note is not None and note.failures is not None
    assert [row.corruption for row in note.failures.corrupted] == ["smoke"]
    assert read_note({}, "tiny") is None
    with pytest.raises(UserError, match=r"tiny: provenance.notes.benchmark.rows: ") as caught:
        read_note({"benchmark": {**old, "rows": 3}}, "tiny")
    assert "\n" not in str(caught.value)


def test_a_name_in_a_manifest_cannot_become_markup_on_the_card(measured):
    manifest = open_bundle(measured[0]).manifest
    hostile = "<img src=x>[a](http://b)|`\n# x"
    record = AccuracyRecord(
        dataset=hostile, protocol="deploy", precision="int8", runtime="openvino:CPU", images=3,
        metrics={"Dice": 0.5}, trained_on=1,
    )  # fmt: skip
    recipe = {"data": {"root": hostile}, "model": {"backbone": hostile}}
    provenance = manifest.provenance.model_copy(update={"recipe": recipe})
    changed = {"name": hostile, "accuracy": [record], "provenance": provenance}
    card = model_card(manifest.model_copy(update=changed))
    # an escaped sign is text, and so is what stands in a code span
    bare = re.sub(r"`[^`\n]*`", "", re.sub(r"\\.", "", card))
    assert "<" not in bare and "](" not in bare and "\n# x" not in card
