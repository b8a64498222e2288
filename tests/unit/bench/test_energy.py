"""Energy from a made-up tree of RAPL counters; a real one is there on few machines."""

import os

import pytest

from kdas_edge.bench.energy import EnergyMeter, energy_per_frame
from kdas_edge.bench.result_base import Unavailable


def add_zone(root, name, label, microjoules=0, range_=2**32 - 1):
    zone = root / name
    zone.mkdir(parents=True)
    (zone / "name").write_text(label + "\n")
    (zone / "energy_uj").write_text(f"{microjoules}\n")
    (zone / "max_energy_range_uj").write_text(f"{range_}\n")
    return zone / "energy_uj"


def spend(counter, microjoules, range_=2**32 - 1):
    counter.write_text(str((int(counter.read_text()) + microjoules) % (range_ + 1)))


def test_the_packages_are_added_and_their_parts_and_the_board_are_not_counted_again(tmp_path):
    counters = [
        add_zone(tmp_path, "intel-rapl:0", "package-0"),
        add_zone(tmp_path, "intel-rapl:1", "package-1"),
        add_zone(tmp_path, "intel-rapl:0:0", "core"),
        add_zone(tmp_path, "intel-rapl:2", "psys"),
    ]
    meter = EnergyMeter(tmp_path)
    assert meter.unavailable is None
    meter.start()
    for counter in counters:
        spend(counter, 3_000_000)
    assert meter.joules() == pytest.approx(6)


def test_a_counter_that_starts_again_loses_nothing(tmp_path):
    counter = add_zone(tmp_path, "intel-rapl:0", "package-0", 9_500_000, range_=9_999_999)
    meter = EnergyMeter(tmp_path)
    meter.start()
    spend(counter, 2_000_000, range_=9_999_999)
    assert int(counter.read_text()) == 1_500_000
    assert meter.joules() == pytest.approx(2)


def test_energy_per_frame_is_that_of_the_block_divided_by_its_frames(tmp_path):
    counter = add_zone(tmp_path, "intel-rapl:0", "package-0")

    def inference():
        spend(counter, 50_000)

    def rest(seconds):
        spend(counter, 1_000_000)

    found = energy_per_frame(inference, EnergyMeter(tmp_path), batch=2, seconds=0.01, sleep=rest)
    assert found.frames >= 20
    assert found.joules_per_frame == pytest.approx(0.025)
    assert found.watts == pytest.approx(0.025 * found.frames / found.seconds, rel=0.1)
    assert found.idle_watts > 0


def test_a_machine_without_counters_says_so(tmp_path):
    found = energy_per_frame(lambda: None, EnergyMeter(tmp_path / "nothing"))
    assert isinstance(found, Unavailable) and "no RAPL counters" in found.unavailable


def test_a_board_counter_alone_is_not_taken_for_the_processor(tmp_path):
    add_zone(tmp_path, "intel-rapl:0", "psys")
    assert "no counter of a processor package" in EnergyMeter(tmp_path).unavailable


def test_a_damaged_counter_is_told_not_guessed(tmp_path):
    add_zone(tmp_path, "intel-rapl:0", "package-0").write_text("many")
    assert "cannot be read" in EnergyMeter(tmp_path).unavailable


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_counters_that_only_root_may_read_are_told_with_the_remedy(tmp_path):
    add_zone(tmp_path, "intel-rapl:0", "package-0").chmod(0)
    assert "root" in EnergyMeter(tmp_path).unavailable


def test_counters_that_vanish_while_measuring_do_not_end_the_benchmark(tmp_path):
    counter = add_zone(tmp_path, "intel-rapl:0", "package-0")
    meter = EnergyMeter(tmp_path)
    counter.unlink()
    assert "stopped being readable" in energy_per_frame(lambda: None, meter).unavailable
