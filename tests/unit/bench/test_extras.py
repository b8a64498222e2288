"""What is measured beside the latencies fails alone: every row keeps its other numbers."""

import numpy as np
import pytest
from tiny_bundle import make_tiny_bundle

from kdas_edge.bench.candidates import BenchCandidate, Settings, load
from kdas_edge.bench.energy import EnergyMeter
from kdas_edge.bench.extras import (
    measure_energy,
    measure_startups,
    measure_throughputs,
    run_sustained,
)
from kdas_edge.bench.measurement_results import Energy, Sustained
from kdas_edge.bench.models import predictor
from kdas_edge.bench.result_base import Unavailable
from kdas_edge.bench.timing import measure_latencies
from kdas_edge.bench.verified import check_golden_vectors
from kdas_edge.bundle.reader import open_bundle
from kdas_edge.errors import KdasEdgeError
from kdas_edge.runtime.targets import parse_target


@pytest.fixture
def rows(tmp_path):
    """Two rows that run, and one whose device is absent."""
    bundle = open_bundle(make_tiny_bundle(tmp_path / "tiny", presets=("core",)))
    targets = ("openvino:CPU:threads=1", "openvino:CPU:threads=1", "openvino:NPU")
    group = [
        BenchCandidate.of(f"m{i}", "student", "int8", parse_target(t), bundle)
        for i, t in enumerate(targets)
    ]
    load(group)
    yield group
    for row in group:
        row.close()


@pytest.fixture
def meter(tmp_path):
    zone = tmp_path / "powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    for name, text in (("name", "package-0"), ("energy_uj", "5"), ("max_energy_range_uj", "99")):
        (zone / name).write_text(text)
    return EnergyMeter(tmp_path / "powercap")


def break_down(row):
    def infer(x):
        raise RuntimeError("lost the device")

    row.backend.infer = infer


def test_energy_is_told_for_each_row_that_runs_and_a_failure_stays_its_own(rows, meter):
    break_down(rows[1])
    measure_energy(rows, {}, meter)
    assert isinstance(rows[0].row.energy, Energy) and rows[0].row.energy.frames >= 10
    assert rows[1].row.energy == Unavailable(unavailable="lost the device")
    assert not rows[1].failed and rows[2].row.energy is None


def test_a_machine_without_counters_measures_nothing_and_says_why(rows, tmp_path):
    measure_energy(rows, {}, EnergyMeter(tmp_path / "absent"))
    assert "no RAPL" in rows[0].row.energy.unavailable


def test_a_sustained_run_that_breaks_down_keeps_the_row(rows):
    break_down(rows[0])
    run_sustained(rows, {}, 0.002)
    assert rows[0].row.sustained == Unavailable(unavailable="lost the device")
    assert isinstance(rows[1].row.sustained, Sustained) and rows[1].row.sustained.inferences > 0
    assert not rows[0].failed and rows[2].row.sustained is None


def test_rows_that_failed_are_neither_started_nor_counted(rows):
    absent = rows[2:]
    assert absent[0].row.failure == "device absent"
    measure_startups(absent)
    assert absent[0].row.startup is None
    assert measure_throughputs(absent, {}, Settings()) == []


def test_a_network_that_computes_nan_fails_and_the_others_go_on(rows):
    rows[0].backend.infer = lambda x: np.full((1, 2, 64, 64), np.nan, np.float32)
    measure_latencies(rows, {}, Settings(iterations=3, warmup=1, end_to_end=False))
    assert rows[0].failed and "NaN" in rows[0].row.reason
    assert rows[1].row.latency is not None and not rows[1].failed
    with pytest.raises(KdasEdgeError, match="NaN"):
        predictor(rows[0].bundle, rows[0].backend)(np.zeros((48, 64, 3), np.uint8))


def test_a_bundle_that_verify_refuses_is_marked_and_keeps_its_numbers(tmp_path):
    path = make_tiny_bundle(
        tmp_path / "wrong", presets=("core",), expected=lambda *_: np.zeros((64, 64), np.float32)
    )
    target = parse_target("openvino:CPU:threads=1")
    wrong, right = (
        BenchCandidate.of("m", "student", "int8", target, open_bundle(one))
        for one in (path, make_tiny_bundle(tmp_path / "right", presets=("core",)))
    )
    load([wrong, right])
    check_golden_vectors([wrong, right])
    wrong.close()
    right.close()
    assert wrong.row.refused is not None and "% of pixels differ" in wrong.row.refused
    assert not wrong.failed and right.row.refused is None
