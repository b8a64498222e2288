"""Where the time of an inference goes: the precisions of one model on one target side by side."""

from collections.abc import Callable, Sequence

from kdas_edge.bench.measurement_results import LayerGroupRecord, LayerRecord, ProfileRecord
from kdas_edge.bench.results import BenchResult, Row
from kdas_edge.table import NONE, Cell, Column, Table, build, count, number

# a cell names the kernels that together take most of the time, at most so many
_KERNELS = 2
# more precisions side by side leave no room for the kernels
_WIDE = 2
_TOTAL = "total"
Profiled = tuple[Row, ProfileRecord]


def profile_tables(results: BenchResult, top: int = 0) -> list[Table]:
    """One table per model and target, and the slowest layers of each row.

    Args:
        results: of `kdas-edge bench --profile`.
        top: list so many of the slowest layers of each row, too.
    """
    tables = []
    for (model, place), rows in _profiled(results).items():
        rounds = rows[0][1].rounds
        tables.append(_groups(f"{model} on {place}: median of {rounds} inferences", rows))
        tables += [_layers(row, profile, top) for row, profile in rows if top]
    return tables


def profile_summaries(results: BenchResult) -> list[str]:
    """One line per row: the layers' sum beside the latency without profiling, and the int8 share.

    Args:
        results: of `kdas-edge bench --profile`.
    """
    lines = []
    for row in results.rows:
        profile = row.profile
        if profile is None:
            continue
        name = f"{row.network} on {row.place}"
        if not isinstance(profile, ProfileRecord):
            lines.append(f"{name}: no profile ({profile.unavailable})")
            continue
        line = f"{name}: layers {profile.total:.2f} ms"
        if row.latency is not None:
            line += f", unprofiled median {row.latency.p50:.2f} ms"
        if profile.int8_share is not None:
            line += f"; {profile.int8_share:.0%} of convolution and matmul time in int8"
        lines.append(line)
    return lines


def _profiled(results: BenchResult) -> dict[tuple[str, str], list[Profiled]]:
    found: dict[tuple[str, str], list[Profiled]] = {}
    for row in results.rows:
        if isinstance(row.profile, ProfileRecord):
            found.setdefault((row.model, row.place), []).append((row, row.profile))
    return found


def _groups(title: str, rows: Sequence[Profiled]) -> Table:
    by_name = [{group.group: group for group in profile.groups} for _, profile in rows]
    longest = {
        name: max(groups[name].ms for groups in by_name if name in groups)
        for groups in by_name
        for name in groups
    }
    columns: list[tuple[Column, Callable[[str], Cell]]] = [(Column("layer type"), Cell)]
    for (row, profile), groups in zip(rows, by_name, strict=True):
        every = {**groups, _TOTAL: _total(profile)}
        columns += [
            (Column(f"{row.precision} layers", True, 2), _of(every, lambda g: count(g.calls))),
            (Column(f"{row.precision} ms", True), _of(every, lambda g: number(g.ms))),
            (Column("share %", True, 1), _of(every, lambda g: number(g.share, 1, scale=100))),
        ]
        if len(rows) <= _WIDE:
            columns.append((Column("kernels", rank=3), _of(every, _kernels)))
    return build(title, columns, [*sorted(longest, key=lambda name: -longest[name]), _TOTAL])


def _total(profile: ProfileRecord) -> LayerGroupRecord:
    calls = sum(group.calls for group in profile.groups)
    return LayerGroupRecord(group=_TOTAL, calls=calls, ms=profile.total, share=1.0)


def _of(
    groups: dict[str, LayerGroupRecord], cell: Callable[[LayerGroupRecord], Cell]
) -> Callable[[str], Cell]:
    return lambda name: cell(groups[name]) if name in groups else NONE


def _kernels(group: LayerGroupRecord) -> Cell:
    names = list(group.kernels)
    return Cell(", ".join(names[:_KERNELS]) + (" …" if len(names) > _KERNELS else ""))


def _layers(row: Row, profile: ProfileRecord, top: int) -> Table:
    slowest = sorted(profile.layers, key=lambda layer: -layer.ms)[:top]
    columns: list[tuple[Column, Callable[[LayerRecord], Cell]]] = [
        (Column("layer"), lambda layer: Cell(layer.name)),
        (Column("type", rank=1), lambda layer: Cell(layer.group)),
        (Column("kernel", rank=2), lambda layer: Cell(layer.kernel)),
        (Column("precision", rank=1), lambda layer: Cell(layer.precision)),
        (Column("ms", True), lambda layer: number(layer.ms, 3)),
        (
            Column("share %", True, 1),
            lambda layer: number(layer.ms / profile.total if profile.total else None, 1, scale=100),
        ),
    ]
    title = f"{row.network} on {row.place}: the slowest {len(slowest)}"
    return build(title, columns, slowest)
