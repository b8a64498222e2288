"""What is measured beside the interleaved latencies: start-up, energy, heat, throughput."""

from collections.abc import Sequence

from kdas_edge.bench.candidates import BenchCandidate, Settings, timed_frames
from kdas_edge.bench.energy import EnergyMeter, energy_per_frame
from kdas_edge.bench.measurement_results import Throughput, ThroughputEntry
from kdas_edge.bench.result_base import Unavailable
from kdas_edge.bench.startup import measure_startup
from kdas_edge.bench.sustained import WINDOWS, sustain
from kdas_edge.bench.throughput import measure_throughput
from kdas_edge.bench.timing import model_only
from kdas_edge.console import progress
from kdas_edge.data.layout import ImageSet
from kdas_edge.errors import last_line

# a rate is steady after some seconds; --seconds is meant for a hundred slow inferences
_THROUGHPUT_SECONDS = 10.0


def measure_startups(group: Sequence[BenchCandidate]) -> None:
    """Load each model in a fresh process, for its time to load and its memory."""
    alive = [candidate for candidate in group if not candidate.failed]
    if not alive:
        return
    with progress(len(alive), f"starting {group[0].target}") as advance:
        for one in alive:
            one.row.startup = measure_startup(one.bundle, one.row.precision, one.target)
            advance()


def measure_energy(
    group: Sequence[BenchCandidate], sets: dict[str, ImageSet], meter: EnergyMeter
) -> None:
    """Energy per frame of each candidate, or why it cannot be told."""
    alive = [candidate for candidate in group if not candidate.failed]
    if meter.unavailable is not None or not alive:
        for one in alive:
            one.row.energy = Unavailable(unavailable=meter.unavailable or "")
        return
    frames = timed_frames(sets)
    with progress(len(alive), f"energy on {group[0].target}") as advance:
        for one in alive:
            try:
                one.row.energy = energy_per_frame(model_only(one, frames), meter, one.target.batch)
            except Exception as error:  # the latencies of this row stand all the same
                one.row.energy = Unavailable(unavailable=last_line(error))
            advance()


def run_sustained(
    group: Sequence[BenchCandidate], sets: dict[str, ImageSet], minutes: float
) -> None:
    """Run each candidate for so long without a pause, one after the other: they share the heat."""
    frames = timed_frames(sets)
    for one in group:
        if one.failed:
            continue
        label = f"{minutes:g} min of {one.row.network} on {one.target}"
        with progress(WINDOWS, label) as advance:
            try:
                one.row.sustained = sustain(model_only(one, frames), 60 * minutes, advance=advance)
            except Exception as error:  # a runtime may raise anything after an hour
                one.row.sustained = Unavailable(unavailable=last_line(error))


def measure_throughputs(
    group: Sequence[BenchCandidate], sets: dict[str, ImageSet], settings: Settings
) -> list[ThroughputEntry]:
    """Frames a second of every candidate that has a latency, for a table of its own.

    Their own models are idle meanwhile.
    """
    alive = [candidate for candidate in group if not candidate.failed]
    if not alive:
        return []
    frames = timed_frames(sets)
    seconds = min(settings.seconds, _THROUGHPUT_SECONDS)
    entries = []
    with progress(len(alive), f"throughput on {group[0].target}") as advance:
        for one in alive:
            row = one.row
            measured: Throughput | Unavailable
            try:
                measured = measure_throughput(
                    one.bundle, row.precision, one.target, one.inputs(frames), seconds
                )
            except Exception as error:  # a row fails, the table continues
                measured = Unavailable(unavailable=last_line(error))
            entries.append(
                ThroughputEntry(
                    model=row.model,
                    role=row.role,
                    precision=row.precision,
                    target=row.target,
                    measured=measured,
                )
            )
            advance()
    return entries
