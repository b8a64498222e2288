"""The table by size of polyp that `kdas-edge eval` shows."""

from typing import Any

from kdas_edge.metrics.sizes import GROUPS


def size_table(results: dict[str, Any]) -> tuple[str, list[str], list[list[str]]] | None:
    """Title, headings and cells: mean Dice of each size group, and frames missed or marked.

    Args:
        results: the JSON object of `kdas-edge eval`.

    Returns:
        None where the deploy protocol was not computed.
    """
    entries = [entry for entry in results["results"] if entry["protocol"] == "deploy"]
    if not entries:
        return None
    present = [name for name in GROUPS if any(name in entry["by_size"] for entry in entries)]
    headings = ["data set", *(f"{name} ({GROUPS[name]})" for name in present)]
    headings += ["polyps found", "at IoU 0.5", "polyp-free frames marked"]
    rows = []
    for entry in entries:
        cells = [_dice(entry["by_size"].get(name)) for name in present]
        frames = entry["frames"]
        shares = ("sensitivity", "sensitivity_iou50", "false_positive_frames")
        rows.append([entry["dataset"], *cells, *(_share(frames.get(name)) for name in shares)])
    return "Dice by size of polyp (95 % interval)", headings, rows


def _dice(group: dict[str, Any] | None) -> str:
    if group is None:
        return "–"
    dice = group["metrics"].get("Dice")
    if dice is None:
        return f"{group['images']} images"
    return f"{dice['mean']:.3f} ({dice['low']:.3f}–{dice['high']:.3f}), {group['images']} images"


def _share(value: dict[str, float] | None) -> str:
    if value is None:
        return "–"
    return (
        f"{round(value['mean'] * value['count'])} of {value['count']} "
        f"({100 * value['low']:.0f}–{100 * value['high']:.0f} %)"
    )
