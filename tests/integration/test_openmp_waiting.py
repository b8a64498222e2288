"""Training verbs let OpenMP's threads sleep before torch is loaded, unless the user says how."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
# prints what the environment says at the first import of torch
_HOOK = """
import os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            sys.meta_path.remove(self)
            found = [os.environ.get(key) for key in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")]
            print("torch:", found, file=sys.stderr)

sys.meta_path.insert(0, Watch())
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "data.root=absent", "schedule.epochs=1"),
        ("distill", "--teacher", "absent", "data.root=absent", "schedule.epochs=1"),
        ("quantize", "--student", "absent", "--data", "absent"),
        ("demo", "--quick", "--data", "absent", "--out", "out"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_the_threads_of_a_training_verb_sleep_unless_told_otherwise(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(_HOOK)
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    plain = {key: value for key, value in os.environ.items() if key not in names}
    root = str(Path(__file__).resolve().parents[2])
    plain["PYTHONPATH"] = os.pathsep.join([str(tmp_path), root])
    active = {"OMP_WAIT_POLICY": "ACTIVE"}
    for said, expected in (({}, "['PASSIVE', '0']"), (active, "['ACTIVE', None]")):
        done = subprocess.run(
            [sys.executable, "-m", "kdas_edge", *arguments],
            cwd=tmp_path,
            env={**plain, **said},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert f"torch: {expected}" in done.stderr, done.stderr


@pytest.mark.slow
def test_the_benchmark_of_waiting_threads_compares_both_idle_and_busy(tmp_path: Path) -> None:
    result = tmp_path / "out.json"
    done = subprocess.run(
        [
            *(sys.executable, str(BENCHMARKS / "openmp_waiting.py"), "--json", str(result)),
            *("--backbone", "test_efficientnet", "--size", "64", "--threads", "2"),
            *("--steps", "2", "--blocks", "2"),
        ],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(result.read_text())
    for name, busy in (("idle", 0), ("busy", 1)):
        row = found[name]
        assert row["busy_processes"] == busy and set(row["blocks"]) == {"spinning", "asleep"}
        pairs = zip(row["blocks"]["asleep"], row["blocks"]["spinning"], strict=True)
        ratios = [asleep / spinning for asleep, spinning in pairs]
        assert row["asleep_to_spinning"] == pytest.approx(sum(ratios) / 2)
