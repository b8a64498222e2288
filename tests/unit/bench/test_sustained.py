import pytest

from kdas_edge.bench.sustained import sustain
from kdas_edge.errors import UserError


class Machine:
    """A clock that an inference moves on: 10 ms each, 20 ms from the fortieth second."""

    def __init__(self):
        self.now = 100.0

    def clock(self):
        return self.now

    def run(self):
        self.now += 0.010 if self.now < 140 else 0.020


def test_throttling_shows_as_a_curve_and_as_the_last_window_by_the_first():
    machine = Machine()
    found = sustain(machine.run, 60, windows=6, clock=machine.clock)
    medians = [window.p50 for window in found.windows]
    assert medians == pytest.approx([10, 10, 10, 10, 20, 20])
    assert [window.start_s for window in found.windows] == pytest.approx(
        [0, 10, 20, 30, 40, 50], abs=0.03
    )
    assert found.slowdown == pytest.approx(2) and found.worst_slowdown == pytest.approx(2)
    assert found.inferences == sum(window.inferences for window in found.windows)
    assert found.inferences == pytest.approx(4000 + 1000, abs=3)
    assert found.seconds == pytest.approx(60, abs=0.05)


def test_a_machine_that_recovers_still_shows_its_worst_window():
    machine = Machine()

    def run():
        machine.now += 0.030 if 120 <= machine.now < 140 else 0.010

    found = sustain(run, 60, windows=6, clock=machine.clock)
    assert found.slowdown == pytest.approx(1)
    assert found.worst_slowdown == pytest.approx(3)


def test_a_short_run_has_few_windows_rather_than_tiny_ones():
    machine = Machine()
    found = sustain(machine.run, 3, windows=30, clock=machine.clock)
    assert len(found.windows) == 3 and found.window_seconds == pytest.approx(1)


def test_a_candidate_slower_than_a_window_has_a_sample_in_each():
    machine = Machine()

    def run():
        machine.now += 7

    found = sustain(run, 10, windows=10, clock=machine.clock)
    assert all(window.inferences == 1 for window in found.windows)
    assert [window.p50 for window in found.windows] == pytest.approx([7000] * 10)


def test_progress_is_told_after_each_window():
    machine, told = Machine(), []
    sustain(machine.run, 4, windows=4, advance=lambda: told.append(1), clock=machine.clock)
    assert len(told) == 4


def test_no_time_is_refused():
    with pytest.raises(UserError, match="--minutes above 0"):
        sustain(lambda: None, 0)
