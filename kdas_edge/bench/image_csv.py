"""Every image's scores as one CSV table, for a spreadsheet or a statistics package."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdas_edge.bench.scores import PROTOCOLS
from kdas_edge.errors import UserError
from kdas_edge.files import write_text_atomic

_KEYS = ("dataset", "image", "model", "precision", "target", "polyp_fraction", "size")
_OF_IMAGE = ("name", "polyp_fraction", "size")


def write_image_csv(path: Path, results: dict[str, Any]) -> None:
    """Write one line per data set, image, model, precision and target.

    Args:
        path: of the file; replaced if it exists.
        results: the JSON object of `kdas-edge bench` or `kdas-edge eval`.

    The columns are `dataset, image, model, precision, target, polyp_fraction` (0…1), `size`
    (small, medium, large, polyp-free), then every metric as `protocol.metric`, for example
    `deploy.Dice` and `paper.mDice`. A cell is empty where a metric is undefined on the image.

    Raises:
        UserError: no accuracy was measured, or the file cannot be written.
    """
    entries = results["accuracy"] if "accuracy" in results else _of_evaluation(results)
    if not entries:
        raise UserError("--csv lists the scores of images; name a data set with --data")
    lines: dict[tuple[str, ...], dict[str, Any]] = {}
    metrics: dict[str, list[str]] = {protocol: [] for protocol in PROTOCOLS}
    for entry in entries:
        protocol = entry["protocol"]
        for row in entry["per_image"]:
            about = (entry["dataset"], row["name"], *(entry[key] for key in _KEYS[2:5]))
            line = lines.setdefault(about, dict(zip(_KEYS, about, strict=False)))
            line.update(polyp_fraction=row["polyp_fraction"], size=row["size"])
            for name, value in row.items():
                if name not in _OF_IMAGE:
                    column = f"{protocol}.{name}"
                    line[column] = value
                    if column not in metrics[protocol]:
                        metrics[protocol].append(column)
    columns = [*_KEYS, *(name for found in metrics.values() for name in found)]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines.values())
    write_text_atomic(path, text.getvalue())


def _of_evaluation(results: dict[str, Any]) -> Sequence[dict[str, Any]]:
    """The entries of an `eval` result, with the model that stands once above them."""
    model = results["model"]["name"] if "model" in results else results["maps"]
    about = {
        "model": model,
        "precision": results.get("precision", ""),
        "target": results.get("target", ""),
    }
    return [{**about, **entry} for entry in results["results"]]
