"""The main table of a benchmark: one row per model × precision × target."""

from collections.abc import Callable

from kdas_edge.bench.accuracy_results import AccuracyEntry
from kdas_edge.bench.measurement_results import LatencyRecord
from kdas_edge.bench.results import BenchResult, Row
from kdas_edge.latency import Ratio
from kdas_edge.metrics.bootstrap import Estimate
from kdas_edge.table import NONE, Cell, Column, Table, build, number

# stands beside a number that was computed on images that the model was trained on
TRAINED_ON = "†"
# a table of Dice says this where no frame could be falsely marked
UNKNOWN_ALARMS = "no polyp-free frames: false alarms unknown"


def results_table(results: BenchResult) -> Table:
    """Latency, ratio to the teacher, size and Dice of every row."""
    dice = results.dice

    def score(name: str) -> Callable[[Row], Cell]:
        def cell(row: Row) -> Cell:
            key = row.accuracy_key
            return dice_cell(dice.get(key, {}).get(name) if key is not None else None)

        return cell

    columns: list[tuple[Column, Callable[[Row], Cell]]] = [
        *name_columns(),
        (Column("p50 ms", True), _time(lambda timing: timing.p50)),
        (Column("p90 ms", True, 4), _time(lambda timing: timing.p90)),
        (Column("p99 ms", True, 5), _time(lambda timing: timing.p99)),
        (Column("max ms", True, 6), _time(lambda timing: timing.max)),
        (Column("× teacher", True, 1), lambda row: ratio_cell(row.speedup)),
        (Column("95 %", rank=4), lambda row: ratio_interval(row.speedup)),
        (Column("MB", True, 3), lambda row: number(megabytes(row.file_bytes))),
    ]
    for place, name in enumerate(results.data):
        columns.append((Column(f"Dice {name}", True, 1 if place == 0 else 2), score(name)))
    columns.append((Column("load ms", True, 7), lambda row: number(row.load_ms, 0)))
    if any(row.status != "ok" or row.refused for row in results.rows):
        columns.append((Column("status", rank=1), _status))
    table = build(_title(results), columns, results.rows)
    failed = frozenset(i for i, row in enumerate(results.rows) if row.status != "ok")
    below = []
    deployed = [entry for entry in results.accuracy if entry.protocol == "deploy"]
    if deployed and not any(e.frames and e.frames.polyp_free_frames for e in deployed):
        below.append(UNKNOWN_ALARMS)
    if any(entry.trained_on for entry in results.accuracy):
        below.append(f"{TRAINED_ON} on images that the model was trained on")
    return Table(table.title, table.columns, table.rows, failed, "; ".join(below))


def name_columns() -> list[tuple[Column, Callable[[Row], Cell]]]:
    """Which row it is."""
    return [
        (Column("model"), lambda row: Cell(row.model)),
        (Column("precision"), lambda row: Cell(row.precision)),
        (Column("target"), lambda row: Cell(row.place)),
    ]


def dice_cell(entry: AccuracyEntry | None) -> Cell:
    """The main metric of an entry with its interval, marked if the model knows the images."""
    if entry is None or entry.main is None:
        return NONE
    cell = estimate_cell(entry.main)
    return Cell(f"{cell.text} {TRAINED_ON}", cell.value, cell.note) if entry.trained_on else cell


def estimate_cell(found: Estimate | None) -> Cell:
    """A mean, with its interval and count beside it."""
    if found is None:
        return NONE
    note = f"95 %: {found.low:.3f}–{found.high:.3f}, {found.count} images"
    return Cell(f"{found.mean:.3f}", found.mean, note)


def difference_cell(found: Estimate | None) -> Cell:
    """A paired difference with its interval."""
    if found is None:
        return NONE
    return Cell(f"{found.mean:+.3f} ({found.low:+.3f} … {found.high:+.3f})", found.mean)


def ratio_cell(ratio: Ratio | None) -> Cell:
    """How many times faster, with as many digits as its interval is worth."""
    if ratio is None:
        return NONE
    return Cell(f"{ratio.value:.{_digits(ratio)}f}", ratio.value, ratio_interval(ratio).text)


def ratio_interval(ratio: Ratio | None) -> Cell:
    """The interval of a ratio; none where its ends look the same, as for the reference itself."""
    if ratio is None:
        return NONE
    low, high = (f"{end:.{_digits(ratio)}f}" for end in (ratio.low, ratio.high))
    return NONE if low == high else Cell(f"{low}–{high}")


def megabytes(size: int | None) -> float | None:
    """Bytes as megabytes."""
    return None if size is None else size / 1e6


def _digits(ratio: Ratio) -> int:
    return 1 if ratio.value >= 10 else 2


def _time(choose: Callable[[LatencyRecord], float]) -> Callable[[Row], Cell]:
    return lambda row: number(choose(row.latency)) if row.latency is not None else NONE


def _status(row: Row) -> Cell:
    if row.status != "ok":
        return Cell(f"FAILED: {row.failure}" if row.failure else "FAILED", note=row.reason or "")
    return Cell("refused by verify", note=row.refused) if row.refused else Cell("ok")


def _title(results: BenchResult) -> str:
    batched = any(":batch=" in row.target for row in results.rows)
    batch = "as the target says, else 1" if batched else "1"
    title = f"latency: synchronous, batch {batch}, model only"
    return f"{title}; Dice: protocol deploy, fixed threshold" if results.data else title
