"""A quantisation's summary as tables."""

from collections.abc import Callable
from typing import Any

from kdas_edge.table import Cell, Column, Table, build, count, number

_RANKED = 10
# a row of the summary, as its JSON holds it
_Columns = list[tuple[Column, Callable[[dict[str, Any]], Cell]]]


def attempts(summary: dict[str, Any]) -> Table:
    """Everything that was tried, the one that is delivered marked."""
    columns: _Columns = [
        (Column("setting"), lambda row: Cell(row["label"])),
        (Column("Dice", True), lambda row: number(row["dice"], 4)),
        (Column("lost", True), lambda row: number(row["drop"], 4)),
        (Column("agreement", True, 1), lambda row: number(row["agreement"], 4)),
        (Column("s", True, 2), lambda row: number(row["seconds"], 0)),
        (
            Column("gate"),
            lambda row: Cell(f"{row['verdict']}, kept" if row["kept"] else row["verdict"]),
        ),
    ]
    title = (
        "what was tried (Dice: deploy protocol, validation split; agreement: of its masks with "
        "the float student's)"
    )
    return build(title, columns, summary["attempts"])


def groups(summary: dict[str, Any]) -> Table:
    """Dice by size of polyp, float and int8, and false alarms where there is no polyp."""
    columns: _Columns = [
        (Column("polyps"), lambda row: Cell(f"{row['name']} ({row['what']})")),
        (Column("images", True, 2), lambda row: count(row["images"])),
        (Column("float Dice", True, 1), lambda row: number(row["float_dice"], 4)),
        (Column("int8 Dice", True), lambda row: number(row["int8_dice"], 4)),
        (Column("lost", True), lambda row: number(row["drop"], 4)),
        (
            Column("95 % interval", rank=1),
            lambda row: Cell("{:.4f} – {:.4f}".format(*row["interval"])),
        ),
        (Column("false alarms, float", True, 1), lambda row: count(row["float_alarms"])),
        (Column("int8", True, 1), lambda row: count(row["int8_alarms"])),
    ]
    title = f"by size of polyp, {summary['gate']['kept']} against float"
    return build(title, columns, summary["gate"]["groups"])


def verdict(summary: dict[str, Any]) -> Table:
    """The float student and the best of each phase."""
    gate = summary["gate"]
    labels = {"ptq": "int8 PTQ", "qat": "int8 QAT", "mixed": "int8, some layers float"}
    phases = ["float", *(phase for phase in labels if gate[f"{phase}_dice"] is not None)]
    said = "kept" if gate["passed"] else f"kept, gate {gate['verdict']}"

    def lost(phase: str) -> Cell:
        dice = gate[f"{phase}_dice"]
        return Cell("") if phase == "float" else number(gate["float_dice"] - dice, 4)

    columns: list[tuple[Column, Callable[[str], Cell]]] = [
        (Column("network"), lambda phase: Cell(labels.get(phase, phase))),
        (Column("Dice", True), lambda phase: number(gate[f"{phase}_dice"], 4)),
        (Column("Dice lost", True), lost),
        (Column("verdict"), lambda phase: Cell(said if gate["kept"] == phase else "")),
    ]
    return build(f"{summary['run']} (Dice: deploy protocol, validation split)", columns, phases)


def ranking(summary: dict[str, Any]) -> Table:
    """The layers that int8 hurts most, and which of them compute in float."""
    mixed = summary["mixed"]
    found = mixed["ranking"]

    def error(name: str) -> Callable[[dict[str, Any]], Cell]:
        return lambda effect: Cell(f"{effect[name]:.2e}", effect[name])

    columns: _Columns = [
        (Column("layer"), lambda effect: Cell(effect["layer"])),
        (Column("share", True, 2), lambda effect: number(effect["share"], 3)),
        (Column("alone", True, 1), error("alone")),
        (Column("won", True, 1), error("gain")),
        (Column("Dice alone", True, 1), lambda effect: number(effect["alone_dice"], 4)),
        (Column("Dice won", True, 1), lambda effect: number(effect["gain_dice"], 4)),
        (
            Column("tried best as"),
            lambda effect: Cell("float" if effect["layer"] in mixed["layers"] else "int8"),
        ),
    ]
    title = (
        f"layers that int8 hurts most, of {mixed['of']}: squared difference of the probability "
        f"map and Dice lost when quantised alone, and won when left out, on "
        f"{len(found['images'])} validation images"
    )
    return build(title, columns, found["effects"][:_RANKED])


def latency(summary: dict[str, Any]) -> Table:
    """What the layers in float cost in time."""
    timed = summary["mixed"]["latency"]
    networks = timed["networks"]

    def ratio(name: str) -> dict[str, float]:
        found: dict[str, float] = networks[name]["speedup"]
        return found

    columns: list[tuple[Column, Callable[[str], Cell]]] = [
        (Column("network"), Cell),
        (Column("ms (p50)", True), lambda name: number(networks[name]["p50"])),
        (Column(f"× {timed['reference']}", True), lambda name: number(ratio(name)["value"])),
        (
            Column("95 % interval", rank=1),
            lambda name: Cell(f"{ratio(name)['low']:.2f} – {ratio(name)['high']:.2f}"),
        ),
    ]
    return build(f"{timed['target']}, batch 1, measured in turns", columns, list(networks))


def sentence(summary: dict[str, Any]) -> str:
    """The verdict in one line."""
    gate = summary["gate"]
    low, high = gate["interval"]
    text = (
        f"{gate['drop']:.4f} Dice lost on {gate['images']} images "
        f"(95 % interval {low:.4f} to {high:.4f}); allowed {gate['max_drop']:g}: {gate['verdict']}"
    )
    mixed = summary["mixed"]
    if gate["kept"] == "mixed" and mixed is not None:
        text += f"; {len(mixed['layers'])} of {mixed['of']} layers in float"
    return text
