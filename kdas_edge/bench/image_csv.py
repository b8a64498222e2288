"""Every image's scores as one CSV table, for a spreadsheet or a statistics package."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from kdas_edge.bench.accuracy_results import AccuracyEntry
from kdas_edge.bench.result_base import PROTOCOLS, Protocol
from kdas_edge.errors import UserError
from kdas_edge.files import write_text_atomic

_KEYS = ("dataset", "image", "model", "precision", "target", "polyp_fraction", "size")
# with these a spreadsheet begins a formula, and some run programs
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_image_csv(path: Path, entries: Sequence[AccuracyEntry]) -> None:
    """Write one line per data set, image, model, precision and target.

    Args:
        path: of the file; replaced if it exists.
        entries: `accuracy` of a result.

    The columns are `dataset, image, model, precision, target, polyp_fraction` (0…1), `size`
    (small, medium, large, polyp-free), then every metric as `protocol.metric`, for example
    `deploy.Dice` and `paper.mDice`. A cell is empty where a metric is undefined on the image. A
    name that a spreadsheet would take for a formula has an apostrophe before it. Where it is known
    which images the model was trained on, `trained_on` is the last column.

    Raises:
        UserError: no accuracy was measured, or the file cannot be written.
    """
    if not entries:
        raise UserError("--csv lists the scores of images; name a data set with --data")
    lines: dict[tuple[str, ...], dict[str, object]] = {}
    metrics: dict[Protocol, dict[str, None]] = {protocol: {} for protocol in PROTOCOLS}
    known = any(entry.per_image.trained_on is not None for entry in entries)
    for entry in entries:
        for image in entry.per_image.rows():
            about = (entry.dataset, image.name, entry.model, entry.precision, entry.target)
            names = dict(zip(_KEYS, map(plain, about), strict=False))
            line = lines.setdefault(about, dict(names))
            line.update(polyp_fraction=image.fraction, size=image.size)
            if known:
                line["trained_on"] = image.trained_on
            for name, value in image.metrics.items():
                line[f"{entry.protocol}.{name}"] = value
                metrics[entry.protocol][f"{entry.protocol}.{name}"] = None
    columns = [*_KEYS, *(name for found in metrics.values() for name in found)]
    columns += ["trained_on"] if known else []
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines.values())
    write_text_atomic(path, text.getvalue())


def plain(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text
