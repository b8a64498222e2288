"""The harness must not distort: what it adds to an inference that does nothing."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "harness_overhead.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("harness_overhead", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_inference_costs_less_than_fifty_microseconds_more_than_itself(script):
    # noise of other processes only ever adds
    best = {}
    for _ in range(4):
        for name, value in script.overheads(rounds=200, size=32).items():
            best[name] = min(value, best.get(name, value))
        if max(best.values()) < script.LIMIT_US:
            break
    assert max(best.values()) < script.LIMIT_US, best
    assert best["clock"] > 0 and best["backend"] > 0


def test_the_script_writes_what_it_found_and_fails_above_its_limit(script, tmp_path, monkeypatch):
    result = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["x", "--rounds", "20", "--json", str(result)])
    monkeypatch.setattr(script, "LIMIT_US", 0.0)
    assert script.main() == 1
    assert set(json.loads(result.read_text())["overhead"]) == {
        "clock", "loop", "backend", "end to end",
    }  # fmt: skip
