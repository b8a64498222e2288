"""Energy per inference from RAPL, the energy counters of Intel and AMD processors.

Linux shows them under `/sys/class/powercap`. They count the whole package: every process, and what
the package draws while nothing runs. So they are read around a block of one candidate's inferences,
not in the interleaved rounds, and beside the energy stands the power of the package at rest.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kdas_edge.bench.measurement_results import Energy
from kdas_edge.bench.result_base import Unavailable
from kdas_edge.latency import Run

POWERCAP = Path("/sys/class/powercap")
# a counter is updated every millisecond; a block of this length makes that nothing
_BLOCK_SECONDS = 2.0
_IDLE_SECONDS = 1.0
_MINIMUM_INFERENCES = 10


@dataclass(frozen=True)
class _Counter:
    """One processor package: file of its counter in µJ, and where the counter starts again."""

    file: Path
    wraps_at: int

    def read(self) -> int:
        return int(self.file.read_text())

    def joules(self, before: int, after: int) -> float:
        taken = after - before
        # at 100 W a 32-bit counter starts again every 40 s, once at most in a block
        return (taken if taken >= 0 else taken + self.wraps_at + 1) / 1e6


class EnergyMeter:
    """The energy counters of all processor packages of this machine.

    Attributes:
        unavailable: why nothing can be measured, or None.
    """

    def __init__(self, root: Path = POWERCAP) -> None:
        """Find the counters below `root`, a tree in the format of Linux's powercap."""
        self._counters, self.unavailable = _find(root)
        self._before: list[int] = []

    def start(self) -> None:
        """Read the counters; `joules` counts from here."""
        self._before = [counter.read() for counter in self._counters]

    def joules(self) -> float:
        """Energy in joules of all packages since `start`."""
        return sum(
            counter.joules(before, counter.read())
            for counter, before in zip(self._counters, self._before, strict=True)
        )


def energy_per_frame(
    run: Run,
    meter: EnergyMeter,
    batch: int = 1,
    seconds: float = _BLOCK_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> Energy | Unavailable:
    """Energy per frame of a candidate that has been warmed up.

    Args:
        run: one inference, synchronous.
        meter: where the energy is read.
        batch: frames in one inference.
        seconds: length of the block, at least ten inferences.
        sleep: how to wait for the power at rest.
    """
    if meter.unavailable is not None:
        return Unavailable(unavailable=meter.unavailable)
    try:
        begun = time.perf_counter()
        meter.start()
        sleep(min(_IDLE_SECONDS, seconds))
        idle = meter.joules() / (time.perf_counter() - begun)
        count = 0
        begun = time.perf_counter()
        meter.start()
        while count < _MINIMUM_INFERENCES or time.perf_counter() - begun < seconds:
            run()
            count += 1
        joules = meter.joules()
        taken = time.perf_counter() - begun
    except (OSError, ValueError) as error:
        return Unavailable(unavailable=f"RAPL counters stopped being readable ({error})")
    frames = count * batch
    return Energy(
        joules_per_frame=round(joules / frames, 6),
        watts=round(joules / taken, 3),
        idle_watts=round(idle, 3),
        frames=frames,
        seconds=round(taken, 3),
        source="RAPL, processor packages",
    )


def _find(root: Path) -> tuple[list[_Counter], str | None]:
    """The counters of all packages, or none and the reason."""
    # intel-rapl:0 is a package (AMD's too); intel-rapl:0:1 a part of it, which it already contains
    zones = sorted(
        zone for zone in root.glob("intel-rapl:*") if zone.name.count(":") == 1 and zone.is_dir()
    )
    if not zones:
        return [], f"no RAPL counters in {root} (not Linux, a virtual machine, or not x86)"
    counters = []
    for zone in zones:
        try:
            # psys is the whole board and contains the packages
            if not (zone / "name").read_text().strip().startswith("package"):
                continue
            counter = _Counter(
                zone / "energy_uj", int((zone / "max_energy_range_uj").read_text().strip())
            )
            counter.read()
        except PermissionError:
            return [], f"{zone / 'energy_uj'} is readable by root only; run as root, or chmod it"
        except (OSError, ValueError) as error:
            return [], f"{zone} cannot be read ({error})"
        counters.append(counter)
    return counters, None if counters else f"{root} has no counter of a processor package"
