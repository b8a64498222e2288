"""What `kdas-edge bench` prints below its main table: one table for each kind of measurement."""

from typing import Any

from kdas_edge.latency import DEADLINES

Table = tuple[str, list[str], list[list[str]]]
_NAMES = ["model", "precision", "target"]
_LATE = f"late at {'/'.join(str(fps) for fps in DEADLINES)} fps, %"


def overview_tables(results: dict[str, Any]) -> list[Table]:
    """Title, headings and cells of every table that these results fill.

    Args:
        results: the JSON object of `kdas-edge bench`.
    """
    found = (
        _latency(results),
        _end_to_end(results),
        _startup(results),
        _energy(results),
        _sustained(results),
        _throughput(results),
    )
    return [table for table in found if table is not None]


def notes(results: dict[str, Any]) -> list[str]:
    """One line for each thing that a reader of the tables should know.

    Args:
        results: the JSON object of `kdas-edge bench`.
    """
    rows = [row for row in results["rows"] if row["status"] == "ok"]
    lines = []
    restless = [row for row in rows if _restless(row, results["settings"])]
    if restless:
        lines.append(
            f"latency had not settled after the warm-up in {len(restless)} of {len(rows)} rows "
            "(a busy machine?): trust ratios more than milliseconds"
        )
    for key in ("energy", "startup", "sustained", "end_to_end"):
        reasons = {row[key]["unavailable"] for row in rows if "unavailable" in row.get(key, {})}
        lines += [f"{key.replace('_', ' ')}: unavailable: {reason}" for reason in sorted(reasons)]
    lines += [
        f"throughput: FAILED {entry['model']} {entry['precision']} on {entry['target']}: "
        f"{entry['reason']}"
        for entry in results.get("throughput", [])
        if entry["status"] != "ok"
    ]
    return lines


def _latency(results: dict[str, Any]) -> Table | None:
    rows = [row for row in results["rows"] if "latency" in row]
    headings = [*_NAMES, "p50 ms", "p90 ms", "p95 ms", "p99 ms", "max ms", "first ms", "warm-up"]
    headings += [_LATE]
    return _table(
        "latency: model only, synchronous",
        headings,
        [
            [
                *_names(row),
                *_percentiles(row["latency"]),
                f"{row['latency']['first']:.2f}",
                _rounds(row["latency"]),
                _misses(row["latency"]),
            ]
            for row in rows
        ],
    )


def _end_to_end(results: dict[str, Any]) -> Table | None:
    rows = [row for row in results["rows"] if "p50" in row.get("end_to_end", {})]
    headings = [*_NAMES, "p50 ms", "p90 ms", "p95 ms", "p99 ms", "max ms"]
    headings += ["prepare", "infer", "mask", "decode (apart)"]
    headings += [_LATE]
    sizes = ", ".join(dict.fromkeys(size for row in rows for size in row["end_to_end"]["frames"]))
    cells = []
    for row in rows:
        timing = row["end_to_end"]
        stages, decode = timing["stages"], timing["decode"]
        cells.append(
            [
                *_names(row),
                *_percentiles(timing),
                *(f"{stages[name]:.2f}" for name in ("preprocess", "inference", "postprocess")),
                f"{decode['p50']:.2f}" if decode else "–",
                _misses(timing),
            ]
        )
    return _table(f"end to end: frame in, mask out; frames of {sizes}", headings, cells)


def _startup(results: dict[str, Any]) -> Table | None:
    rows = [row for row in results["rows"] if "load_ms" in row.get("startup", {})]
    headings = [*_NAMES, "load ms", "with model cache ms", "first inference ms", "resident MB"]
    headings += ["peak MB", "files MB"]
    cells = []
    for row in rows:
        start = row["startup"]
        cache = start["cache"]
        cells.append(
            [
                *_names(row),
                f"{start['load_ms']:.0f}",
                f"{cache['load_ms']:.0f}" if cache else "–",
                f"{start['first_ms']:.1f}",
                _megabytes(start["resident_bytes"]),
                _megabytes(start["peak_bytes"]),
                _megabytes(row.get("file_bytes")),
            ]
        )
    return _table("starting, in a fresh process: what loading a model costs", headings, cells)


def _energy(results: dict[str, Any]) -> Table | None:
    rows = [row for row in results["rows"] if "joules_per_frame" in row.get("energy", {})]
    return _table(
        "energy of the processor packages (RAPL), everything that runs included",
        [*_NAMES, "mJ a frame", "W", "W at rest"],
        [
            [
                *_names(row),
                f"{1e3 * row['energy']['joules_per_frame']:.1f}",
                f"{row['energy']['watts']:.1f}",
                f"{row['energy']['idle_watts']:.1f}",
            ]
            for row in rows
        ],
    )


def _sustained(results: dict[str, Any]) -> Table | None:
    rows = [row for row in results["rows"] if "windows" in row.get("sustained", {})]
    headings = [*_NAMES, "minutes", "first p50 ms", "last p50 ms", "last p99 ms", "last / first"]
    cells = []
    for row in rows:
        run = row["sustained"]
        first, last = run["windows"][0], run["windows"][-1]
        cells.append(
            [
                *_names(row),
                f"{run['seconds'] / 60:.1f}",
                f"{first['p50']:.2f}",
                f"{last['p50']:.2f}",
                f"{last['p99']:.2f}",
                f"{run['slowdown']:.3f}",
            ]
        )
    return _table("sustained run: above 1 the machine became slower", headings, cells)


def _throughput(results: dict[str, Any]) -> Table | None:
    entries = [entry for entry in results.get("throughput", []) if entry["status"] == "ok"]
    return _table(
        "throughput: many requests in flight; NOT a latency",
        [*_NAMES, "frames/s", "requests", "batch"],
        [
            [
                *_names(entry),
                f"{entry['frames_per_second']:.1f}",
                str(entry["requests"]),
                str(entry["batch"]),
            ]
            for entry in entries
        ],
    )


def _table(title: str, headings: list[str], cells: list[list[str]]) -> Table | None:
    return (title, headings, cells) if cells else None


def _names(row: dict[str, Any]) -> list[str]:
    return [row[name] for name in _NAMES]


def _percentiles(timing: dict[str, Any]) -> list[str]:
    return [f"{timing[name]:.2f}" for name in ("p50", "p90", "p95", "p99", "max")]


def _misses(timing: dict[str, Any]) -> str:
    return " / ".join(f"{100 * timing['deadline_misses'][str(fps)]:.3g}" for fps in DEADLINES)


def _rounds(timing: dict[str, Any]) -> str:
    warmup = timing["warmup"]
    return f"{warmup['rounds']}" + ("" if warmup["settled"] else " (not settled)")


def _restless(row: dict[str, Any], settings: dict[str, Any]) -> bool:
    """A row that was given the chance to settle and did not; older results do not say."""
    asked = settings.get("warmup_rounds_at_most", 0) > settings.get("warmup_rounds", 0)
    return asked and not row.get("latency", {}).get("warmup", {}).get("settled", True)


def _megabytes(size: int | None) -> str:
    return f"{size / 1e6:.1f}" if size is not None else "–"
