"""A quantisation's summary as tables for the screen: (title, columns, rows)."""

from typing import Any

Table = tuple[str, list[str], list[list[object]]]

_RANKED = 10


def attempts(summary: dict[str, Any]) -> Table:
    """Everything that was tried, the one that is delivered marked."""
    rows: list[list[object]] = []
    for row in summary["attempts"]:
        rows.append(
            [
                row["label"],
                f"{row['dice']:.4f}",
                f"{row['drop']:.4f}",
                f"{row['agreement']:.4f}",
                f"{row['seconds']:.0f}",
                f"{row['verdict']}, kept" if row["kept"] else row["verdict"],
            ]
        )
    return (
        "what was tried (Dice: deploy protocol, validation split; agreement: of its masks with "
        "the float student's)",
        ["setting", "Dice", "lost", "agreement", "s", "gate"],
        rows,
    )


def groups(summary: dict[str, Any]) -> Table:
    """Dice by size of polyp, float and int8, and false alarms where there is no polyp."""
    rows: list[list[object]] = []
    for row in summary["gate"]["groups"]:
        alarms = "" if row["float_alarms"] is None else f"{row['float_alarms']}"
        alarms_int8 = "" if row["int8_alarms"] is None else f"{row['int8_alarms']}"
        rows.append(
            [
                f"{row['name']} ({row['what']})",
                row["images"],
                f"{row['float_dice']:.4f}",
                f"{row['int8_dice']:.4f}",
                f"{row['drop']:.4f}",
                "{:.4f} – {:.4f}".format(*row["interval"]),
                alarms,
                alarms_int8,
            ]
        )
    return (
        f"by size of polyp, {summary['gate']['kept']} against float",
        [
            "polyps",
            "images",
            "float Dice",
            "int8 Dice",
            "lost",
            "95 % interval",
            "false alarms, float",
            "int8",
        ],
        rows,
    )


def verdict(summary: dict[str, Any]) -> Table:
    """The float student and the best of each phase."""
    gate = summary["gate"]
    rows: list[list[object]] = [["float", f"{gate['float_dice']:.4f}", "", ""]]
    labels = {"ptq": "int8 PTQ", "qat": "int8 QAT", "mixed": "int8, some layers float"}
    for phase, label in labels.items():
        dice = gate[f"{phase}_dice"]
        if dice is not None:
            said = "kept" if gate["passed"] else f"kept, gate {gate['verdict']}"
            lost = f"{gate['float_dice'] - dice:.4f}"
            rows.append([label, f"{dice:.4f}", lost, said if gate["kept"] == phase else ""])
    return (
        f"{summary['run']} (Dice: deploy protocol, validation split)",
        ["network", "Dice", "Dice lost", "verdict"],
        rows,
    )


def ranking(summary: dict[str, Any]) -> Table:
    """The layers that int8 hurts most, and which of them compute in float."""
    mixed = summary["mixed"]
    found = mixed["ranking"]
    rows: list[list[object]] = [
        [
            effect["layer"],
            f"{effect['share']:.3f}",
            f"{effect['alone']:.2e}",
            f"{effect['gain']:.2e}",
            f"{effect['alone_dice']:.4f}",
            f"{effect['gain_dice']:.4f}",
            "float" if effect["layer"] in mixed["layers"] else "int8",
        ]
        for effect in found["effects"][:_RANKED]
    ]
    return (
        f"layers that int8 hurts most, of {mixed['of']}: squared difference of the probability "
        f"map and Dice lost when quantised alone, and won when left out, on "
        f"{len(found['images'])} validation images",
        ["layer", "share", "alone", "won", "Dice alone", "Dice won", "tried best as"],
        rows,
    )


def latency(summary: dict[str, Any]) -> Table:
    """What the layers in float cost in time."""
    timed = summary["mixed"]["latency"]
    rows: list[list[object]] = []
    for name, row in timed["networks"].items():
        ratio = row["speedup"]
        interval = f"{ratio['low']:.2f} – {ratio['high']:.2f}"
        rows.append([name, f"{row['p50']:.2f}", f"{ratio['value']:.2f}", interval])
    return (
        f"{timed['target']}, batch 1, measured in turns",
        ["network", "ms (p50)", f"× {timed['reference']}", "95 % interval"],
        rows,
    )


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
