"""`kdas-edge bench`: models × precisions × targets, latency and accuracy, as one JSON object.

One target after the other: all models are loaded on it, timed in turns, scored, and closed again,
so that the thread pools of another runtime never disturb a measurement. The ratio to the teacher
is between rows of one target and comes from the same rounds.
"""

from collections.abc import Sequence
from typing import Any

from kdas_edge import environment
from kdas_edge.bench.accuracy import Protocol, SetScores, data_fingerprint
from kdas_edge.bench.models import describe, unique_names
from kdas_edge.bench.rows import Row, Settings, load_rows, precisions_of
from kdas_edge.bench.scoring import accuracy_json, score_elsewhere, score_rows, share_key
from kdas_edge.bench.timing import profile_rows, time_rows
from kdas_edge.bundle.reader import Bundle
from kdas_edge.data.layout import ImageSet
from kdas_edge.errors import UserError
from kdas_edge.runtime.targets import Target

__all__ = ["DISCLAIMER", "SCHEMA", "Settings", "run"]

SCHEMA = "kdas-edge/bench/1"
DISCLAIMER = "Research software. No regulatory clearance. Not for clinical use."


def run(
    models: Sequence[Bundle],
    teacher: Bundle | None,
    targets: Sequence[Target],
    sets: dict[str, ImageSet],
    settings: Settings,
    accuracy_target: Target | None = None,
) -> dict[str, Any]:
    """Measure every model in every precision on every target.

    Args:
        models: the students, or any models.
        teacher: what the ratios and differences refer to; its fp32 row on each target.
        targets: where to run.
        sets: data sets; none for latency alone, which then runs on noise.
        settings: iterations, limits, protocols.
        accuracy_target: compute accuracies on this target only and let all rows share them;
            by default once per runtime.

    Returns:
        The JSON object of schema `SCHEMA`: environment, settings, data, models, rows, accuracy.

    Raises:
        UserError: an unreadable image, or every row failed.
    """
    bundles = ([teacher] if teacher is not None else []) + list(models)
    names = unique_names(bundles)
    roles = (["teacher"] if teacher is not None else []) + ["student"] * len(models)
    rows: list[Row] = []
    accuracies: dict[str, dict[str, dict[Protocol, SetScores]]] = {}
    before = environment.load_average()
    for target in targets:
        group = [
            Row(name, role, precision, target, bundle)
            for name, role, bundle in zip(names, roles, bundles, strict=True)
            for precision in precisions_of(bundle, target, settings)
        ]
        rows += group
        try:
            load_rows(group)
            time_rows(group, sets, settings)
            if settings.profile:
                profile_rows(group, sets)
            if sets and accuracy_target is None:
                score_rows(group, sets, settings, accuracies)
        finally:
            for row in group:
                row.close()
    if sets and accuracy_target is not None:
        shared = score_elsewhere(rows, accuracy_target, sets, settings, accuracies)
    else:
        shared = {}
    if all(row.reason is not None for row in rows):
        reasons = list(dict.fromkeys(row.reason or "" for row in rows))
        raise UserError(
            reasons[0] if len(reasons) == 1 else f"every row failed; the first: {reasons[0]}"
        )
    for row in rows:
        if row.reason is None and sets:
            row.values["accuracy"] = shared.get(share_key(row), row.accuracy_key)
    return {
        "schema": SCHEMA,
        "disclaimer": DISCLAIMER,
        "environment": {**environment.describe(), "load_average_before": before},
        "settings": {
            "iterations": settings.iterations,
            "seconds": settings.seconds,
            "warmup_rounds": settings.warmup,
            "limit": settings.limit,
            "batch": 1,
            "mode": "synchronous, one request, candidates of a target interleaved",
        },
        "data": {
            name: {
                "images": len(image_set.pairs[: settings.limit]),
                "sha256": data_fingerprint(image_set, settings.limit),
            }
            for name, image_set in sets.items()
        },
        "models": {
            name: {"role": role, **describe(bundle)}
            for name, role, bundle in zip(names, roles, bundles, strict=True)
        },
        "rows": [row.as_json() for row in rows],
        "accuracy": accuracy_json(accuracies, names[0] if teacher is not None else None),
    }
