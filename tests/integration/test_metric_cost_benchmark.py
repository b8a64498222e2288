import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_bundle import make_tiny_bundle

ROOT = Path(__file__).resolve().parents[2]


def test_the_cost_of_the_metrics_is_set_against_inference(tmp_path):
    bundle = make_tiny_bundle(tmp_path / "tiny", presets=("core",))
    result = tmp_path / "cost.json"
    command = [
        sys.executable, ROOT / "benchmarks" / "metric_cost.py", bundle,
        "--limit", 3, "--repeats", 2, "--compare", "--json", result,
    ]  # fmt: skip
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    values = json.loads(result.read_text())
    parts, share = values["milliseconds_per_image"], values["share_of_inference"]
    assert values["images"] == {"scenes": 3} and values["precision"] == "int8"
    assert parts["metrics"] == pytest.approx(parts["deploy"] + parts["paper"])
    assert share["inference"] == 1
    assert share["paper"] == pytest.approx(parts["paper"] / parts["inference"])
    # S-measure and weighted F by PySODMetrics cost several times all eight measures of ours
    assert parts["paper"] < parts["PySODMetrics"]
    assert parts["paper, mask known"] < parts["paper"]
    whole = values["pass"]
    assert whole["target"] == "openvino:CPU" and whole["seconds_without_metrics"] > 0
    ratio = whole["seconds"] / whole["seconds_without_metrics"]
    assert whole["added"] == pytest.approx(ratio - 1)
