"""What a benchmark measured beside its main table: one table for each kind of measurement."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from kdas_edge.bench.measurement_results import (
    EndToEnd,
    Energy,
    LatencyRecord,
    Startup,
    Sustained,
    Throughput,
    ThroughputEntry,
)
from kdas_edge.bench.result_base import Record
from kdas_edge.bench.results import BenchResult, Row
from kdas_edge.latency import DEADLINES
from kdas_edge.report.results_table import megabytes, name_columns
from kdas_edge.table import NONE, Cell, Column, Table, build, count, number

_LATE = f"late at {'/'.join(str(fps) for fps in DEADLINES)} fps, %"
Part = TypeVar("Part", bound=Record)


def measurement_tables(results: BenchResult) -> list[Table]:
    """Every table that these results fill."""
    found = (
        _latency(results),
        _end_to_end(results),
        _startup(results),
        _energy(results),
        _sustained(results),
        _throughput(results),
    )
    return [table for table in found if table.rows]


def _having(
    results: BenchResult, choose: Callable[[Row], object], kind: type[Part]
) -> Iterator[tuple[Row, Part]]:
    """The rows in which a measurement was made, with it."""
    for row in results.rows:
        part = choose(row)
        if isinstance(part, kind):
            yield row, part


def _of_row(
    cells: Sequence[tuple[Column, Callable[[Part], Cell]]],
) -> list[tuple[Column, Callable[[tuple[Row, Part]], Cell]]]:
    """Columns of a measurement behind the names of its row."""

    def of_name(cell: Callable[[Row], Cell]) -> Callable[[tuple[Row, Part]], Cell]:
        return lambda item: cell(item[0])

    def of_part(cell: Callable[[Part], Cell]) -> Callable[[tuple[Row, Part]], Cell]:
        return lambda item: cell(item[1])

    columns = [(column, of_name(cell)) for column, cell in name_columns()]
    columns += [(column, of_part(cell)) for column, cell in cells]
    return columns


def _latency(results: BenchResult) -> Table:
    columns = _of_row(
        [
            *_percentiles(),
            (Column("first ms", True, 3), lambda timing: number(timing.first)),
            (Column("warm-up", rank=2), _rounds),
            (Column(_LATE, rank=4), _misses),
        ]
    )
    per_frame: tuple[Column, Callable[[tuple[Row, LatencyRecord]], Cell]] = (
        Column("ms a frame", True, 1),
        lambda item: number(item[0].ms_per_frame),
    )
    rows = list(_having(results, lambda row: row.latency, LatencyRecord))
    return build("latency: model only, synchronous", [*columns, per_frame], rows)


def _end_to_end(results: BenchResult) -> Table:
    rows = list(_having(results, lambda row: row.end_to_end, EndToEnd))
    sizes = ", ".join(dict.fromkeys(size for _, timing in rows for size in timing.frames))
    parts: list[tuple[Column, Callable[[EndToEnd], Cell]]] = [
        *_percentiles(),
        (Column("prepare", True, 1), _stage("preprocess")),
        (Column("infer", True, 1), _stage("inference")),
        (Column("mask", True, 1), _stage("postprocess")),
        (
            Column("decode (apart)", True, 3),
            lambda timing: number(timing.decode.p50) if timing.decode else NONE,
        ),
        (Column(_LATE, rank=4), _misses),
    ]
    return build(f"end to end: frame in, mask out; frames of {sizes}", _of_row(parts), rows)


def _startup(results: BenchResult) -> Table:
    rows = list(_having(results, lambda row: row.startup, Startup))
    columns = _of_row(
        [
            (Column("load ms", True), lambda start: number(start.load_ms, 0)),
            (
                Column("with model cache ms", True, 2),
                lambda start: number(start.cache.load_ms, 0) if start.cache else NONE,
            ),
            (Column("first inference ms", True, 3), lambda start: number(start.first_ms, 1)),
            (
                Column("resident MB", True, 1),
                lambda start: number(megabytes(start.resident_bytes), 1),
            ),
            (Column("peak MB", True, 2), lambda start: number(megabytes(start.peak_bytes), 1)),
        ]
    )
    files: tuple[Column, Callable[[tuple[Row, Startup]], Cell]] = (
        Column("files MB", True, 3),
        lambda item: number(megabytes(item[0].file_bytes), 1),
    )
    title = "starting, in a fresh process: what loading a model costs"
    return build(title, [*columns, files], rows)


def _energy(results: BenchResult) -> Table:
    columns = _of_row(
        [
            (
                Column("mJ a frame", True),
                lambda energy: number(energy.joules_per_frame, 1, scale=1e3),
            ),
            (Column("W", True, 1), lambda energy: number(energy.watts, 1)),
            (Column("W at rest", True, 1), lambda energy: number(energy.idle_watts, 1)),
        ]
    )
    title = "energy of the processor packages (RAPL), everything that runs included"
    return build(title, columns, list(_having(results, lambda row: row.energy, Energy)))


def _sustained(results: BenchResult) -> Table:
    columns = _of_row(
        [
            (Column("minutes", True, 2), lambda run: number(run.seconds / 60, 1)),
            (Column("first p50 ms", True, 1), lambda run: number(run.windows[0].p50)),
            (Column("last p50 ms", True, 1), lambda run: number(run.windows[-1].p50)),
            (Column("last p99 ms", True, 2), lambda run: number(run.windows[-1].p99)),
            (Column("last / first", True), lambda run: number(run.slowdown, 3)),
        ]
    )
    title = "sustained run: above 1 the machine became slower"
    return build(title, columns, list(_having(results, lambda row: row.sustained, Sustained)))


def _throughput(results: BenchResult) -> Table:
    rows = [
        (entry, entry.measured)
        for entry in results.throughput
        if isinstance(entry.measured, Throughput)
    ]
    columns: list[tuple[Column, Callable[[tuple[ThroughputEntry, Throughput]], Cell]]] = [
        (Column("model"), lambda item: Cell(item[0].model)),
        (Column("precision"), lambda item: Cell(item[0].precision)),
        (Column("target"), lambda item: Cell(item[0].place)),
        (Column("frames/s", True), lambda item: number(item[1].frames_per_second, 1)),
        (Column("requests", True, 1), lambda item: count(item[1].requests)),
        (Column("batch", True, 1), lambda item: count(item[1].batch)),
    ]
    return build("throughput: many requests in flight; NOT a latency", columns, rows)


def _percentiles() -> list[tuple[Column, Callable[[LatencyRecord], Cell]]]:
    return [
        (Column("p50 ms", True), lambda timing: number(timing.p50)),
        (Column("p90 ms", True, 2), lambda timing: number(timing.p90)),
        (Column("p95 ms", True, 3), lambda timing: number(timing.p95)),
        (Column("p99 ms", True, 1), lambda timing: number(timing.p99)),
        (Column("max ms", True, 2), lambda timing: number(timing.max)),
    ]


def _stage(name: str) -> Callable[[EndToEnd], Cell]:
    return lambda timing: number(timing.stages.get(name))


def _misses(timing: LatencyRecord) -> Cell:
    shares = [timing.deadline_misses.get(fps) for fps in DEADLINES]
    texts = ["–" if share is None else f"{100 * share:.3g}" for share in shares]
    return Cell(" / ".join(texts)) if timing.deadline_misses else NONE


def _rounds(timing: LatencyRecord) -> Cell:
    if timing.warmup is None:
        return NONE
    settled = "" if timing.warmup.settled else " (not settled)"
    return Cell(f"{timing.warmup.rounds}{settled}", timing.warmup.rounds)
