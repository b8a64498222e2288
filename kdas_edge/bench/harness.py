"""`kdas-edge bench`: models × precisions × targets, latency and accuracy, as one JSON object.

One target after the other: all models are loaded on it, timed in turns, scored, and closed again,
so that the thread pools of another runtime never disturb a measurement. The ratio to the teacher
is between rows of one target and comes from the same rounds.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdas_edge import environment, latency
from kdas_edge.bench.accuracy import (
    MAIN_METRIC,
    PROTOCOLS,
    Protocol,
    SetScores,
    data_fingerprint,
    evaluate_many,
    paired_difference,
)
from kdas_edge.bench.models import describe, one_line, precisions, predictor, unique_names
from kdas_edge.bench.profile.rows import profile_row
from kdas_edge.bundle.manifest import Manifest
from kdas_edge.bundle.reader import Bundle
from kdas_edge.console import progress
from kdas_edge.data.layout import ImageSet, read_image
from kdas_edge.errors import UserError
from kdas_edge.runtime.backends import FORMATS, Backend, open_backend
from kdas_edge.runtime.segmenter import preprocess
from kdas_edge.runtime.targets import Target

SCHEMA = "kdas-edge/bench/1"
DISCLAIMER = "Research software. No regulatory clearance. Not for clinical use."

# Frames that are timed in turn: real content, since the speed of no layer should depend on it,
# and more than one, so that a cache of results could not hide.
_TIMED_FRAMES = 4
_PROFILED_INFERENCES = 20


@dataclass(frozen=True)
class Settings:
    """How to measure; see the options of `kdas-edge bench`."""

    iterations: int = 100
    seconds: float = 60.0
    warmup: int = 3
    limit: int | None = None
    protocols: tuple[Protocol, ...] = PROTOCOLS
    precisions: tuple[str, ...] | None = None
    profile: bool = False


@dataclass
class Row:
    """One model × precision × target, and what was measured on it."""

    model: str
    role: str
    precision: str
    target: Target
    bundle: Bundle
    reason: str | None = None
    backend: Backend | None = None
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def accuracy_key(self) -> str:
        """Rows with the same key give the same masks: threads change nothing but time."""
        arithmetic = self.target.options.get("precision")
        where = f"{self.target.runtime}:{self.target.device}"
        return f"{self.model}|{self.precision}|{where}" + (f":{arithmetic}" if arithmetic else "")

    def fail(self, error: Exception | str) -> None:
        """Remember why the row has no result; the first reason stays."""
        self.reason = self.reason or (error if isinstance(error, str) else one_line(error))

    def close(self) -> None:
        """Free the model."""
        if self.backend is not None:
            self.backend.close()
            self.backend = None

    def as_json(self) -> dict[str, Any]:
        """The row of the result file."""
        return {
            "model": self.model,
            "role": self.role,
            "precision": self.precision,
            "target": str(self.target),
            "status": "ok" if self.reason is None else "failed",
            "reason": self.reason,
            **self.values,
        }


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
            for precision in _precisions(bundle, target, settings)
        ]
        rows += group
        try:
            _load(group)
            _time(group, sets, settings)
            if settings.profile:
                _profile(group, sets)
            if sets and accuracy_target is None:
                _score(group, sets, settings, accuracies)
        finally:
            for row in group:
                row.close()
    if sets and accuracy_target is not None:
        shared = _score_elsewhere(rows, accuracy_target, sets, settings, accuracies)
    else:
        shared = {}
    if all(row.reason is not None for row in rows):
        reasons = list(dict.fromkeys(row.reason or "" for row in rows))
        raise UserError(
            reasons[0] if len(reasons) == 1 else f"every row failed; the first: {reasons[0]}"
        )
    for row in rows:
        if row.reason is None and sets:
            row.values["accuracy"] = shared.get(_share(row), row.accuracy_key)
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
        "accuracy": _accuracy_json(accuracies, names[0] if teacher is not None else None),
    }


def _precisions(bundle: Bundle, target: Target, settings: Settings) -> list[str]:
    """Those that the bundle holds for this runtime; one row that fails where it holds none."""
    held = precisions(bundle, target.runtime)
    if settings.precisions is not None:
        held = [precision for precision in held if precision in settings.precisions]
    return held or ["fp32" if settings.precisions is None else settings.precisions[0]]


def _load(group: Sequence[Row]) -> None:
    for row in group:
        try:
            row.backend = open_backend(row.bundle, row.precision, row.target)
        except Exception as error:  # a row fails, the table continues
            row.fail(error)
            continue
        model = row.bundle.model(row.precision, FORMATS[row.target.runtime])
        if model is not None:
            row.values["file_bytes"] = row.bundle.size_bytes(model)
        row.values["load_ms"] = round(row.backend.load_seconds * 1e3, 2)
        row.values["effective"] = row.backend.effective


def _time(group: Sequence[Row], sets: dict[str, ImageSet], settings: Settings) -> None:
    alive = {str(index): row for index, row in enumerate(group) if row.backend is not None}
    if not alive:
        return
    frames = _frames(sets)
    runs = {key: _inference(row, frames) for key, row in alive.items()}
    with progress(settings.iterations, f"timing {group[0].target}") as advance:
        timings = latency.measure(
            runs, settings.iterations, settings.seconds, settings.warmup, advance
        )
    good: dict[str, latency.Latency] = {}
    for key, timing in timings.items():
        if isinstance(timing, latency.Latency):
            good[key] = timing
            alive[key].values["latency"] = timing.as_json()
        else:
            alive[key].fail(timing)
    reference = next(
        (
            good[key]
            for key, row in alive.items()
            if row.role == "teacher" and row.precision == "fp32" and key in good
        ),
        None,
    )
    for key, timing in good.items():
        if reference is not None:
            alive[key].values["speedup"] = latency.speedup(reference, timing).as_json()


def _profile(group: Sequence[Row], sets: dict[str, ImageSet]) -> None:
    """Where the time goes; a runtime that cannot tell does not fail the row."""
    frames = _frames(sets)
    alive = [row for row in group if row.reason is None]
    with progress(len(alive), f"profiling {group[0].target}") as advance:
        for row in alive:
            inputs = _inputs(frames, row.bundle.manifest)
            try:
                found = profile_row(
                    row.bundle, row.precision, row.target, inputs, _PROFILED_INFERENCES
                )
                row.values["profile"] = found.as_json()
            except UserError as error:
                row.values["profile"] = {"unavailable": one_line(error)}
            advance()


def _score(
    group: Sequence[Row],
    sets: dict[str, ImageSet],
    settings: Settings,
    accuracies: dict[str, dict[str, dict[Protocol, SetScores]]],
) -> None:
    """Score the rows whose accuracy no earlier target has computed."""
    pending: dict[str, Row] = {}
    for row in group:
        if row.reason is None and row.backend is not None and row.accuracy_key not in accuracies:
            pending.setdefault(row.accuracy_key, row)
    if not pending:
        return
    total = sum(len(image_set.pairs[: settings.limit]) for image_set in sets.values())
    predictors = {
        key: predictor(row.bundle, row.backend)
        for key, row in pending.items()
        if row.backend is not None
    }
    thresholds = {key: row.bundle.manifest.threshold for key, row in pending.items()}
    with progress(total, f"accuracy on {group[0].target}") as advance:
        for name, image_set in sets.items():
            results = evaluate_many(
                predictors, image_set, settings.protocols, thresholds, settings.limit, advance
            )
            for key, result in results.items():
                if isinstance(result, Exception):
                    pending[key].fail(f"accuracy on {name}: {one_line(result)}")
                    del predictors[key]
                    accuracies.pop(key, None)
                else:
                    accuracies.setdefault(key, {})[name] = result


def _score_elsewhere(
    rows: Sequence[Row],
    target: Target,
    sets: dict[str, ImageSet],
    settings: Settings,
    accuracies: dict[str, dict[str, dict[Protocol, SetScores]]],
) -> dict[tuple[str, str], str]:
    """Score each model and precision once, on the target named for it."""
    group: dict[tuple[str, str], Row] = {}
    for row in rows:
        if row.reason is None and _share(row) not in group:
            group[_share(row)] = Row(row.model, row.role, row.precision, target, row.bundle)
    try:
        _load(list(group.values()))
        _score(list(group.values()), sets, settings, accuracies)
    finally:
        for row in group.values():
            row.close()
    for row in rows:
        other = group.get(_share(row))
        if other is not None and other.reason is not None and row.reason is None:
            row.fail(f"accuracy on {target}: {other.reason}")
    return {key: row.accuracy_key for key, row in group.items()}


def _share(row: Row) -> tuple[str, str]:
    return row.model, row.precision


def _frames(sets: dict[str, ImageSet]) -> list[NDArray[np.uint8]]:
    pairs = [pair for image_set in sets.values() for pair in image_set.pairs[:_TIMED_FRAMES]]
    if not pairs:
        rng = np.random.default_rng(0)
        return [rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)]
    return [read_image(pair.image) for pair in pairs[:_TIMED_FRAMES]]


def _inference(row: Row, frames: Sequence[NDArray[np.uint8]]) -> latency.Run:
    """Model only: the input is ready, as it is when a host prepares the next frame meanwhile."""
    backend, manifest = row.backend, row.bundle.manifest
    assert backend is not None
    inputs = itertools.cycle(_inputs(frames, manifest))
    return lambda: backend.infer(next(inputs))


def _inputs(frames: Sequence[NDArray[np.uint8]], manifest: Manifest) -> list[NDArray[np.float32]]:
    return [preprocess(frame, manifest) for frame in frames]


def _accuracy_json(
    accuracies: dict[str, dict[str, dict[Protocol, SetScores]]], teacher: str | None
) -> list[dict[str, Any]]:
    entries = []
    for key, by_set in accuracies.items():
        model, precision, where = key.rsplit("|", 2)
        for scores in (found for result in by_set.values() for found in result.values()):
            entry: dict[str, Any] = {
                "key": key,
                "model": model,
                "precision": precision,
                "target": where,
                **scores.as_json(),
            }
            metric = MAIN_METRIC[scores.protocol]
            reference = (
                accuracies.get(f"{teacher}|fp32|{where}", {})
                .get(scores.dataset, {})
                .get(scores.protocol)
            )
            if reference is not None and reference is not scores and scores.rows:
                difference = paired_difference(scores, reference, metric)
                entry["difference_to_teacher"] = {"metric": metric, **difference.as_json()}
            entries.append(entry)
    return entries
