"""Lines that belong to a benchmark's tables: what failed, what was unavailable, how it ran."""

from collections.abc import Iterator

from kdas_edge.bench.result_base import Unavailable
from kdas_edge.bench.results import BenchResult, Row, SettingsRecord
from kdas_edge.report.accuracy_tables import known_images


def failures(results: BenchResult) -> list[str]:
    """One line for each row that failed, with the reason."""
    return [
        f"FAILED {row.network} on {row.place}: {row.reason}"
        for row in results.rows
        if row.status != "ok"
    ]


def notes(results: BenchResult) -> list[str]:
    """One line for each thing that a reader of the tables should know."""
    rows = [row for row in results.rows if row.status == "ok"]
    lines = []
    unstable = [row for row in rows if _is_unstable(row, results.settings)]
    if unstable:
        lines.append(
            f"latency had not settled after the warm-up in {len(unstable)} of {len(rows)} rows "
            "(a busy machine?): trust ratios more than milliseconds"
        )
    lines += [
        f"REFUSED {row.network} on {row.place}: kdas-edge verify refuses it here: {row.refused}"
        for row in rows
        if row.refused
    ]
    lines += known_images(e for e in results.accuracy if e.protocol == "deploy")
    lines += unavailable(results)
    lines += [
        f"throughput: FAILED {entry.model} {entry.precision} on {entry.place}: "
        f"{entry.measured.unavailable}"
        for entry in results.throughput
        if isinstance(entry.measured, Unavailable)
    ]
    return lines


def unavailable(results: BenchResult) -> list[str]:
    """What could not be measured, and why; one line for each reason."""
    lines = [
        f"{name}: unavailable: {part.unavailable}"
        for row in results.rows
        for name, part in _parts(row)
        if isinstance(part, Unavailable)
    ]
    return list(dict.fromkeys(lines))


def effective_lines(results: BenchResult) -> list[tuple[str, str]]:
    """Each row's name and what its runtime says it does."""
    return [
        (
            f"{row.network}, {row.place}",
            "; ".join(f"{key}: {value}" for key, value in row.effective.items()),
        )
        for row in results.rows
        if row.effective
    ]


def _parts(row: Row) -> Iterator[tuple[str, object]]:
    yield "end to end", row.end_to_end
    yield "startup", row.startup
    yield "energy", row.energy
    yield "sustained", row.sustained


def _is_unstable(row: Row, settings: SettingsRecord) -> bool:
    """A row that was given the chance to settle and did not; older results do not say."""
    asked = settings.warmup_rounds_at_most > settings.warmup_rounds
    warmup = row.latency.warmup if row.latency is not None else None
    return asked and warmup is not None and not warmup.settled
