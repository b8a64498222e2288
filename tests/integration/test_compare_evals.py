"""Networks compared image by image from what `eval` wrote of them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kdas_edge import environment
from kdas_edge.bench.accuracy_results import AccuracyEntry, ImageScores
from kdas_edge.bench.results import Environment, EvaluationResult, write_result

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "compare_evals.py"


def evaluation(path: Path, dice: dict[str, list[float]]) -> Path:
    accuracy = [
        AccuracyEntry(
            model="m", precision="fp32", target="torch:cpu", dataset=image_set,
            protocol="deploy", images=len(values), metrics={},
            per_image=ImageScores(
                names=[str(i) for i in range(len(values))], metrics={"Dice": values}
            ),
        )
        for image_set, values in dice.items()
    ]  # fmt: skip
    machine = Environment(**environment.describe())
    write_result(
        path, EvaluationResult(name="m", threshold=0.5, environment=machine, accuracy=accuracy)
    )
    return path


def compare(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=120
    )


def test_differences_are_paired_by_image(tmp_path: Path) -> None:
    # each image gains 0.1, while images differ by more than that: unpaired nothing would be seen
    one = evaluation(tmp_path / "one.json", {"A": [0.1, 0.5, 0.9], "B": [0.4, 0.6, 0.8]})
    two = evaluation(tmp_path / "two.json", {"A": [0.2, 0.6, 1.0], "B": [0.4, 0.6, 0.5]})
    done = compare(f"plain={one}", f"taught={two}", "--json", str(tmp_path / "found.json"))
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert rows["plain"]["A"]["dice"]["mean"] == pytest.approx(0.5)
    gained = rows["taught"]["A"]["difference"]
    assert [gained[key] for key in ("mean", "low", "high")] == pytest.approx([0.1] * 3)
    lost = rows["taught"]["B"]["difference"]
    assert lost["mean"] == pytest.approx(-0.1) and lost["low"] < -0.1 < lost["high"]
    assert "| taught | 0.600 (+0.100: +0.100 to +0.100) |" in done.stdout


def test_other_images_or_another_protocol_are_refused(tmp_path: Path) -> None:
    one = evaluation(tmp_path / "one.json", {"A": [0.1, 0.5]})
    two = evaluation(tmp_path / "two.json", {"A": [0.1, 0.5, 0.9]})
    for arguments, said in (
        ([f"plain={one}", f"taught={two}"], "taught has other images of A than plain"),
        ([f"plain={one}", "--protocol", "paper"], "no result of protocol paper"),
        ([f"plain={tmp_path / 'none.json'}"], "cannot read"),
    ):
        done = compare(*arguments)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
