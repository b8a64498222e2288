"""Profiles as tables: the precisions of one model on one target side by side."""

from typing import Any

Table = tuple[str, list[str], list[list[str]]]

# a cell names the kernels that together take most of the time, at most so many
_KERNELS = 2
_WIDE = 2


def profile_tables(results: dict[str, Any], top: int = 0) -> list[Table]:
    """Title, headings and cells of each table.

    Args:
        results: the JSON object of `kdas-edge bench --profile`.
        top: list so many of the slowest layers of each row, too.
    """
    tables = []
    for (model, target), rows in _profiled(results).items():
        title = f"{model} on {target}: median of {rows[0]['profile']['rounds']} inferences"
        tables.append(_groups(title, rows))
        tables += [_layers(row, top) for row in rows if top]
    return tables


def profile_summaries(results: dict[str, Any]) -> list[str]:
    """One line per row: the layers' sum beside the latency without profiling, and the int8 share.

    Args:
        results: the JSON object of `kdas-edge bench --profile`.
    """
    lines = []
    for row in results["rows"]:
        profile = row.get("profile")
        if profile is None:
            continue
        name = f"{row['model']} {row['precision']} on {row['target']}"
        if "unavailable" in profile:
            lines.append(f"{name}: no profile ({profile['unavailable']})")
            continue
        line = f"{name}: layers {profile['total']:.2f} ms"
        if "latency" in row:
            line += f", unprofiled median {row['latency']['p50']:.2f} ms"
        share = profile["int8_share"]
        if share is not None:
            line += f"; {share:.0%} of convolution and matmul time in int8"
        lines.append(line)
    return lines


def _profiled(results: dict[str, Any]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in results["rows"]:
        if "layers" in row.get("profile", {}):
            found.setdefault((row["model"], row["target"]), []).append(row)
    return found


def _groups(title: str, rows: list[dict[str, Any]]) -> Table:
    by_name = [{group["group"]: group for group in row["profile"]["groups"]} for row in rows]
    longest = {
        name: max(groups.get(name, {"ms": 0.0})["ms"] for groups in by_name)
        for groups in by_name
        for name in groups
    }
    # more than two precisions side by side leave no room for the kernels
    wide = len(rows) <= _WIDE
    headings, totals = ["layer type"], ["total"]
    for row in rows:
        precision, profile = row["precision"], row["profile"]
        calls = sum(group["calls"] for group in profile["groups"])
        headings += [f"{precision} layers", f"{precision} ms", "share %"]
        totals += [str(calls), f"{profile['total']:.2f}", "100.0"]
        if wide:
            headings.append("kernels")
            totals.append("")
    cells = [
        [name, *(cell for groups in by_name for cell in _group(groups.get(name), wide))]
        for name in sorted(longest, key=lambda name: -longest[name])
    ]
    return title, headings, [*cells, totals]


def _group(group: dict[str, Any] | None, wide: bool) -> list[str]:
    if group is None:
        return ["–", "–", "–", *([""] if wide else [])]
    numbers = [str(group["calls"]), f"{group['ms']:.2f}", f"{100 * group['share']:.1f}"]
    names = list(group["kernels"])
    shown = ", ".join(names[:_KERNELS]) + (" …" if len(names) > _KERNELS else "")
    return [*numbers, *([shown] if wide else [])]


def _layers(row: dict[str, Any], top: int) -> Table:
    profile = row["profile"]
    slowest = sorted(profile["layers"], key=lambda layer: -layer["ms"])[:top]
    title = f"{row['model']} {row['precision']} on {row['target']}: the slowest {len(slowest)}"
    cells = [
        [
            layer["name"],
            layer["group"],
            layer["kernel"],
            layer["precision"],
            f"{layer['ms']:.3f}",
            f"{100 * layer['ms'] / profile['total']:.1f}" if profile["total"] else "–",
        ]
        for layer in slowest
    ]
    return title, ["layer", "type", "kernel", "precision", "ms", "share %"], cells
