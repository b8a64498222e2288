"""What is measured beside the latencies fails alone: every row keeps its other numbers."""

import pytest
from tiny_bundle import make_tiny_bundle

from kdas_edge.bench.energy import EnergyMeter
from kdas_edge.bench.extras import start_rows, sustain_rows, throughput_rows, weigh_rows
from kdas_edge.bench.rows import Row, Settings, load_rows
from kdas_edge.bundle.reader import open_bundle
from kdas_edge.runtime.targets import parse_target


@pytest.fixture
def rows(tmp_path):
    """Two rows that run, and one whose device is absent."""
    bundle = open_bundle(make_tiny_bundle(tmp_path / "tiny", presets=("core",)))
    targets = ("openvino:CPU:threads=1", "openvino:CPU:threads=1", "openvino:NPU")
    group = [
        Row(f"m{i}", "student", "int8", parse_target(t), bundle) for i, t in enumerate(targets)
    ]
    load_rows(group)
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
    weigh_rows(rows, {}, meter)
    assert rows[0].values["energy"]["frames"] >= 10
    assert rows[1].values["energy"] == {"unavailable": "lost the device"}
    assert rows[1].reason is None and "energy" not in rows[2].values


def test_a_machine_without_counters_measures_nothing_and_says_why(rows, tmp_path):
    weigh_rows(rows, {}, EnergyMeter(tmp_path / "absent"))
    assert "no RAPL" in rows[0].values["energy"]["unavailable"]


def test_a_sustained_run_that_breaks_down_keeps_the_row(rows):
    break_down(rows[0])
    sustain_rows(rows, {}, 0.002)
    assert rows[0].values["sustained"] == {"unavailable": "lost the device"}
    assert rows[1].values["sustained"]["inferences"] > 0
    assert rows[0].reason is None and "sustained" not in rows[2].values


def test_rows_that_failed_are_neither_started_nor_counted(rows):
    absent = rows[2:]
    assert absent[0].failure == "device absent"
    start_rows(absent)
    assert "startup" not in absent[0].values
    assert throughput_rows(absent, {}, Settings()) == []
