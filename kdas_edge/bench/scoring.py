"""The accuracy of a benchmark's rows: computed once for all rows that give the same masks."""

from collections.abc import Sequence

from kdas_edge.bench.accuracy import evaluate_many
from kdas_edge.bench.accuracy_results import AccuracyEntry
from kdas_edge.bench.candidates import BenchCandidate, Settings, load
from kdas_edge.bench.entries import References, accuracy_entry
from kdas_edge.bench.models import lineage_of, predictor
from kdas_edge.bench.result_base import AccuracyKey, Protocol
from kdas_edge.bench.scores import SetScores
from kdas_edge.console import progress
from kdas_edge.data.layout import ImageSet
from kdas_edge.errors import last_line
from kdas_edge.runtime.targets import Target

# whose masks -> data set -> protocol
Scores = dict[AccuracyKey, dict[str, dict[Protocol, SetScores]]]


def score(
    group: Sequence[BenchCandidate], sets: dict[str, ImageSet], settings: Settings, scores: Scores
) -> None:
    """Score the candidates whose accuracy no earlier target has computed, into `scores`."""
    pending: dict[AccuracyKey, BenchCandidate] = {}
    for one in group:
        if not one.failed and one.backend is not None and one.accuracy_key not in scores:
            pending.setdefault(one.accuracy_key, one)
    if not pending:
        return
    total = sum(len(image_set.pairs[: settings.limit]) for image_set in sets.values())
    predictors = {
        key: predictor(one.bundle, one.backend)
        for key, one in pending.items()
        if one.backend is not None
    }
    thresholds = {key: one.bundle.manifest.threshold for key, one in pending.items()}
    lineages = {key: lineage_of(one.bundle) for key, one in pending.items()}
    with progress(total, f"accuracy on {group[0].target}") as advance:
        for name, image_set in sets.items():
            results = evaluate_many(
                predictors,
                image_set,
                settings.protocols,
                thresholds,
                settings.limit,
                advance,
                lineages=lineages,
            )
            for key, result in results.items():
                if isinstance(result, Exception):
                    pending[key].fail(f"accuracy on {name}: {last_line(result)}")
                    del predictors[key]
                    scores.pop(key, None)
                else:
                    scores.setdefault(key, {})[name] = result


def score_elsewhere(
    candidates: Sequence[BenchCandidate],
    target: Target,
    sets: dict[str, ImageSet],
    settings: Settings,
    scores: Scores,
) -> dict[tuple[str, str], AccuracyKey]:
    """Score each model and precision once, on the target named for it.

    Returns:
        Model and precision to the key under which their scores are found.
    """
    group: dict[tuple[str, str], BenchCandidate] = {}
    for one in candidates:
        row = one.row
        if not one.failed and (row.model, row.precision) not in group:
            group[row.model, row.precision] = BenchCandidate.of(
                row.model, row.role, row.precision, target, one.bundle
            )
    try:
        load(list(group.values()))
        score(list(group.values()), sets, settings, scores)
    finally:
        for one in group.values():
            one.close()
    for one in candidates:
        other = group.get((one.row.model, one.row.precision))
        if other is not None and other.failed and not one.failed:
            one.fail(f"accuracy on {target}: {other.row.reason}")
    return {key: one.accuracy_key for key, one in group.items()}


def accuracy_entries(
    scores: Scores, teacher: str | None, digests: dict[str, str]
) -> list[AccuracyEntry]:
    """The accuracy entries of the result file.

    Paired differences are to the teacher's fp32 and to the same model's fp32, on the same target.

    Args:
        scores: of `score`.
        teacher: its name.
        digests: data set to its `data_fingerprint`.
    """

    def find(model: str | None, where: str, like: SetScores) -> SetScores | None:
        by_set = scores.get(AccuracyKey(model or "", "fp32", where), {})
        return by_set.get(like.dataset, {}).get(like.protocol)

    entries = []
    for key, by_set in scores.items():
        for found in (found for by_protocol in by_set.values() for found in by_protocol.values()):
            of_teacher = find(teacher, key.target, found)
            of_float = find(key.model, key.target, found)
            references: References = {"teacher": of_teacher, "fp32": of_float}
            entries.append(accuracy_entry(found, key, references, digests.get(found.dataset)))
    return entries
