"""What `kdas-edge info` tells of bundles and runs: what they record, and nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hidden_modules import without
from run_verb import only_line, run_verb
from tiny_bundle import make_tiny_bundle, rewrite_manifest

from kdas_edge import __version__
from kdas_edge.bundle.shipped import or_shipped

RUNS = Path(__file__).resolve().parents[3] / "benchmarks" / "results" / "runs"


def told(capsys: pytest.CaptureFixture[str], path: Path, out: Path) -> dict:
    done = run_verb(capsys, "info", path, "--json", out)
    assert done.code == 0, done.err
    assert max(map(len, done.out.splitlines())) <= 80
    return json.loads(out.read_text())


def test_a_bundle_tells_what_its_manifest_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shipped = or_shipped(None)
    found = told(capsys, shipped, tmp_path / "i.json")
    manifest = json.loads((shipped / "manifest.json").read_text())
    assert found["numbers"]["parameters"] == manifest["provenance"]["parameters"]
    assert found["encoder"] == "mobilenetv2_100"
    assert found["terms"]["terms"].startswith("research and education")
    assert found["versions"]["schema"] == manifest["schema_version"]
    assert found["lineage"]["teacher"] == "runs/student_effb0_352"
    recorded = [value for one in manifest["accuracy"] for value in one["metrics"].values()]
    assert [one["value"] for one in found["accuracy"]] == recorded


def test_a_bundle_without_recipe_and_accuracy_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny")
    found = told(capsys, bundle, tmp_path / "i.json")
    assert found["encoder"] is None and found["accuracy"] == []
    assert found["terms"] == {"terms": "not stated (data.terms of the recipe)"}
    assert "no accuracy is recorded" in run_verb(capsys, "info", bundle).out


def test_sections_of_another_type_are_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny")

    def change(values: dict) -> None:
        values["provenance"]["recipe"] = {"model": 3, "data": [1], "teacher": {"a": 1}}
        values["provenance"]["notes"] = {"backbone": 5, "quantization": {"gate": {"drop": "x"}}}

    rewrite_manifest(bundle, change)
    found = told(capsys, bundle, tmp_path / "i.json")
    assert found["encoder"] is None and "teacher" not in found["lineage"]
    assert found["lineage"]["gate of int8"] == "failed"


def test_published_runs_tell_their_figures_and_where_they_come_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    student = told(capsys, RUNS / "student_effb0_352", tmp_path / "s.json")
    assert student["kind"] == "distill" and student["encoder"] == "tf_efficientnet_b0"
    assert student["lineage"]["images trained on"] == 1305
    state = json.loads((RUNS / "student_effb0_352" / "run.json").read_text())
    assert student["accuracy"][0]["value"] == state["best_dice"]
    int8 = told(capsys, RUNS / "int8_effb0_352", tmp_path / "q.json")
    gate = json.loads((RUNS / "int8_effb0_352" / "run.json").read_text())["gate"]
    assert [one["value"] for one in int8["accuracy"]] == [gate["float_dice"], gate["ptq_dice"]]
    assert int8["lineage"]["gate of int8"].startswith("passed: -0.0008 Dice lost")


def test_a_folder_that_is_neither_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "neither a bundle (manifest.json) nor a run" in only_line(
        run_verb(capsys, "info", tmp_path)
    )


def test_info_needs_no_torch_and_the_version_is_printed(tmp_path: Path) -> None:
    script = without(("torch", "timm", "nncf", "safetensors", "onnx", "jinja2"))
    script += "\nfrom kdas_edge.cli import main\nmain()\n"
    for path in (or_shipped(None), RUNS / "student_effb0_352"):
        done = subprocess.run(
            [sys.executable, "-c", script, "info", str(path)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [sys.executable, "-c", script, "--version"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"kdas-edge {__version__}\n")
