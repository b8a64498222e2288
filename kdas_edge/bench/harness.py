"""`kdas-edge bench`: models × precisions × targets, latency and accuracy, as one JSON object.

One target after the other: all models are loaded on it, timed in turns, scored, and closed again,
so that the thread pools of another runtime never disturb a measurement. The ratio to the teacher
is between rows of one target and comes from the same rounds.

Every row of the result has `model`, `role` (`teacher`, `student` or `peer`), `precision`, `target`,
`status`, `reason` and `failure` (the reason in two words), and where it did not fail:

- `file_bytes`, `load_ms` (in this process), `effective` (what the runtime says it does);
- `latency`: the model alone, see `Latency.as_json` (p50 … p99, max, `deadline_misses`, `warmup`);
  `speedup` against the teacher's fp32 row; `ms_per_frame` where a batch has several frames;
- `end_to_end`: frame in, mask out, the same keys with its own `speedup`, and `stages` (median ms of
  `preprocess`, `inference`, `postprocess`), `decode` (p50, p90, p99 of reading the frame from its
  file, which is not in it; null without data), `frames` (sizes); or `unavailable` and why;
- `startup`: see `startup.measure_startup`; `energy`: see `energy.measure_energy`;
- `sustained`: see `sustained.sustain`; `profile`: see `bench.profile`;
- `accuracy`: key of the entries of the top-level list `accuracy`.

The top-level list `throughput` (see `extras.throughput_rows`) is no latency and has no ratio.
The keys of `accuracy` are described in `bench.groups`, those of `robustness` in `bench.robustness`.
"""

from collections.abc import Sequence
from typing import Any

from kdas_edge import environment
from kdas_edge.bench.accuracy import Protocol, SetScores, data_fingerprint
from kdas_edge.bench.energy import EnergyMeter
from kdas_edge.bench.extras import start_rows, sustain_rows, throughput_rows, weigh_rows
from kdas_edge.bench.models import describe, unique_names
from kdas_edge.bench.robustness import robustness_rows
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
    peers: Sequence[Bundle] = (),
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
        peers: models from elsewhere, of `bench.peers.open_peer`.

    Returns:
        The JSON object of schema `SCHEMA`: environment, settings, data, models, rows, accuracy and,
        where asked for, throughput.

    Raises:
        UserError: an unreadable image, or every row failed.
    """
    bundles = ([teacher] if teacher is not None else []) + [*models, *peers]
    names = unique_names(bundles)
    first = names[0] if teacher is not None else None
    roles = (["teacher"] if teacher is not None else []) + ["student"] * len(models)
    roles += ["peer"] * len(peers)
    meter = EnergyMeter()
    throughput: list[dict[str, Any]] = []
    robustness: list[dict[str, Any]] = []
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
            if settings.startup:
                start_rows(group)
            time_rows(group, sets, settings)
            if settings.energy:
                weigh_rows(group, sets, meter)
            if settings.profile:
                profile_rows(group, sets)
            if sets and accuracy_target is None:
                score_rows(group, sets, settings, accuracies)
            if sets and settings.robustness and not robustness:
                robustness = robustness_rows(group, sets, settings, first)
            if settings.minutes > 0:
                sustain_rows(group, sets, settings.minutes)
            if settings.throughput:
                throughput += throughput_rows(group, sets, settings)
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
        "settings": settings.as_json(),
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
        **({"throughput": throughput} if settings.throughput else {}),
        "accuracy": accuracy_json(accuracies, first),
        **({"robustness": robustness} if settings.robustness else {}),
    }
