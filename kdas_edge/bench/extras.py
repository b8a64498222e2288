"""What is measured beside the interleaved latencies: start-up, energy, heat, throughput."""

from collections.abc import Sequence
from typing import Any

from kdas_edge.bench.energy import EnergyMeter, measure_energy
from kdas_edge.bench.rows import Row, Settings, timed_frames
from kdas_edge.bench.startup import measure_startup
from kdas_edge.bench.sustained import WINDOWS, sustain
from kdas_edge.bench.throughput import measure_throughput
from kdas_edge.bench.timing import model_only
from kdas_edge.console import progress
from kdas_edge.data.layout import ImageSet
from kdas_edge.errors import last_line

# a rate is steady after some seconds; --seconds is meant for a hundred slow inferences
_THROUGHPUT_SECONDS = 10.0


def start_rows(group: Sequence[Row]) -> None:
    """Load each row in a fresh process, for its time to load and its memory."""
    alive = [row for row in group if row.reason is None]
    if not alive:
        return
    with progress(len(alive), f"starting {group[0].target}") as advance:
        for row in alive:
            row.values["startup"] = measure_startup(row.bundle, row.precision, row.target)
            advance()


def weigh_rows(group: Sequence[Row], sets: dict[str, ImageSet], meter: EnergyMeter) -> None:
    """Energy per frame of each row, or why it cannot be told."""
    alive = [row for row in group if row.reason is None]
    if meter.unavailable is not None or not alive:
        for row in alive:
            row.values["energy"] = {"unavailable": meter.unavailable}
        return
    frames = timed_frames(sets)
    with progress(len(alive), f"energy on {group[0].target}") as advance:
        for row in alive:
            try:
                row.values["energy"] = measure_energy(
                    model_only(row, frames), meter, row.target.batch
                )
            except Exception as error:  # the latencies of this row stand all the same
                row.values["energy"] = {"unavailable": last_line(error)}
            advance()


def sustain_rows(group: Sequence[Row], sets: dict[str, ImageSet], minutes: float) -> None:
    """Run each row for so long without a pause; one after the other, since heat is shared."""
    alive = [row for row in group if row.reason is None]
    frames = timed_frames(sets)
    for row in alive:
        label = f"{minutes:g} min of {row.model} {row.precision} on {row.target}"
        with progress(WINDOWS, label) as advance:
            try:
                row.values["sustained"] = sustain(
                    model_only(row, frames), 60 * minutes, advance=advance
                )
            except Exception as error:  # what the runtime raises after an hour, nobody knows
                row.values["sustained"] = {"unavailable": last_line(error)}


def throughput_rows(
    group: Sequence[Row], sets: dict[str, ImageSet], settings: Settings
) -> list[dict[str, Any]]:
    """Frames a second of every row of a target that has a latency, for a table of its own.

    The rows' own models are idle meanwhile.

    Returns:
        One entry a row: `model`, `precision`, `target`, `status`, `reason` and what
        `measure_throughput` returns.
    """
    alive = [row for row in group if row.reason is None]
    if not alive:
        return []
    frames = timed_frames(sets)
    seconds = min(settings.seconds, _THROUGHPUT_SECONDS)
    entries = []
    with progress(len(alive), f"throughput on {group[0].target}") as advance:
        for row in alive:
            entry: dict[str, Any] = {
                "model": row.model,
                "role": row.role,
                "precision": row.precision,
                "target": str(row.target),
            }
            try:
                found = measure_throughput(
                    row.bundle, row.precision, row.target, row.inputs(frames), seconds
                )
                entry |= {"status": "ok", "reason": None, **found}
            except Exception as error:  # a row fails, the table continues
                entry |= {"status": "failed", "reason": last_line(error)}
            entries.append(entry)
            advance()
    return entries
