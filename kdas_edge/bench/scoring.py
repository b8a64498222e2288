"""The accuracy of a benchmark's rows: computed once for all rows that give the same masks."""

from collections.abc import Sequence
from typing import Any

from kdas_edge.bench.accuracy import Protocol, SetScores, evaluate_many
from kdas_edge.bench.groups import entry_json
from kdas_edge.bench.models import predictor
from kdas_edge.bench.rows import Row, Settings, load_rows
from kdas_edge.console import progress
from kdas_edge.data.layout import ImageSet
from kdas_edge.errors import last_line
from kdas_edge.runtime.targets import Target


def score_rows(
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
                    pending[key].fail(f"accuracy on {name}: {last_line(result)}")
                    del predictors[key]
                    accuracies.pop(key, None)
                else:
                    accuracies.setdefault(key, {})[name] = result


def score_elsewhere(
    rows: Sequence[Row],
    target: Target,
    sets: dict[str, ImageSet],
    settings: Settings,
    accuracies: dict[str, dict[str, dict[Protocol, SetScores]]],
) -> dict[tuple[str, str], str]:
    """Score each model and precision once, on the target named for it."""
    group: dict[tuple[str, str], Row] = {}
    for row in rows:
        if row.reason is None and share_key(row) not in group:
            group[share_key(row)] = Row(row.model, row.role, row.precision, target, row.bundle)
    try:
        load_rows(list(group.values()))
        score_rows(list(group.values()), sets, settings, accuracies)
    finally:
        for row in group.values():
            row.close()
    for row in rows:
        other = group.get(share_key(row))
        if other is not None and other.reason is not None and row.reason is None:
            row.fail(f"accuracy on {target}: {other.reason}")
    return {key: row.accuracy_key for key, row in group.items()}


def share_key(row: Row) -> tuple[str, str]:
    """What decides the masks of a row that is scored on another target: model and precision."""
    return row.model, row.precision


def accuracy_json(
    accuracies: dict[str, dict[str, dict[Protocol, SetScores]]], teacher: str | None
) -> list[dict[str, Any]]:
    """The accuracy entries of the result file; see `bench.groups` for their keys.

    Paired differences are to the teacher's fp32 and to the same model's fp32, on the same target.
    """

    def find(model: str | None, where: str, like: SetScores) -> SetScores | None:
        by_set = accuracies.get(f"{model}|fp32|{where}", {})
        return by_set.get(like.dataset, {}).get(like.protocol)

    entries = []
    for key, by_set in accuracies.items():
        model, precision, where = key.rsplit("|", 2)
        for scores in (found for result in by_set.values() for found in result.values()):
            references = {
                "teacher": find(teacher, where, scores),
                "fp32": find(model, where, scores),
            }
            entries.append(
                {
                    "key": key,
                    "model": model,
                    "precision": precision,
                    "target": where,
                    **entry_json(scores, references),
                }
            )
    return entries
