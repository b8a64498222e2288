"""Accuracy entries of a result file: what a mean hides is told beside it.

Scores by size of polyp, whole frames missed or falsely marked, the worst images, and the paired
differences to the teacher and to float; see `accuracy_results.AccuracyEntry`.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Literal

from kdas_edge.bench.accuracy_results import (
    AccuracyEntry,
    Difference,
    FrameShares,
    ImageScores,
    SizeGroup,
    WorstImage,
)
from kdas_edge.bench.result_base import MAIN_METRIC, AccuracyKey
from kdas_edge.bench.scores import SetScores, paired_difference
from kdas_edge.metrics.bootstrap import bootstrap_mean
from kdas_edge.metrics.sizes import GROUPS

Reference = Literal["teacher", "fp32"]
References = Mapping[Reference, SetScores | None]
_WORST = 5


def accuracy_entry(
    scores: SetScores,
    key: AccuracyKey,
    references: References | None = None,
    data_sha256: str | None = None,
) -> AccuracyEntry:
    """The scores of one predictor on one set as an entry of a result file.

    Args:
        scores: of one protocol.
        key: whose they are.
        references: the scores that this entry is compared with. None, and the entry itself, are
            left out.
        data_sha256: of `accuracy.data_fingerprint`.
    """
    compared: References = {
        name: found
        for name, found in (references or {}).items()
        if found is not None and found is not scores
    }
    known = _is_known(scores)
    return AccuracyEntry(
        model=key.model,
        precision=key.precision,
        target=key.target,
        dataset=scores.dataset,
        protocol=scores.protocol,
        images=len(scores.rows),
        skipped_polyp_free=scores.skipped,
        metrics=scores.summary(),
        set_metrics=scores.set_metrics,
        per_image=images(scores),
        by_size=by_size(scores, compared),
        frames=frames(scores) if scores.protocol == "deploy" else None,
        worst=worst(scores),
        difference_to_teacher=_difference(scores, compared.get("teacher")),
        difference_to_fp32=_difference(scores, compared.get("fp32")),
        data_sha256=data_sha256,
        trained_on=sum(row.trained_on or False for row in scores.rows) if known else None,
        near_duplicates=sum(row.near_duplicate for row in scores.rows) if known else None,
    )


def images(scores: SetScores) -> ImageScores:
    """The scores of every image, to six decimals."""
    names = scores.rows[0].metrics if scores.rows else {}

    def column(metric: str) -> list[float | None]:
        values = (row.metrics[metric] for row in scores.rows)
        return [None if value is None else round(value, 6) for value in values]

    return ImageScores(
        names=[row.name for row in scores.rows],
        polyp_fractions=[round(row.fraction, 6) for row in scores.rows],
        metrics={metric: column(metric) for metric in names},
        trained_on=[bool(row.trained_on) for row in scores.rows] if _is_known(scores) else None,
    )


def by_size(scores: SetScores, references: References) -> dict[str, SizeGroup]:
    """The summary of each size group that has images."""
    found = {}
    for name, what in GROUPS.items():
        chosen = _only(scores, name)
        if chosen.rows:
            teacher, fp32 = references.get("teacher"), references.get("fp32")
            found[name] = SizeGroup(
                what=what,
                images=len(chosen.rows),
                metrics=chosen.summary(),
                difference_to_teacher=_difference(chosen, teacher and _only(teacher, name)),
                difference_to_fp32=_difference(chosen, fp32 and _only(fp32, name)),
            )
    return found


def frames(scores: SetScores) -> FrameShares:
    """Sensitivity and false alarms counted in frames."""
    missed = scores.values("missed_frame")
    overlap = scores.values("detected_frame")
    alarms = scores.values("false_positive_frame")
    return FrameShares(
        polyp_frames=len(missed),
        polyp_free_frames=len(alarms),
        sensitivity=bootstrap_mean(1 - missed) if len(missed) else None,
        sensitivity_iou50=bootstrap_mean(overlap) if len(overlap) else None,
        false_positive_frames=bootstrap_mean(alarms) if len(alarms) else None,
    )


def worst(scores: SetScores, count: int = _WORST) -> list[WorstImage]:
    """The images with the lowest main metric, worst first."""
    metric = MAIN_METRIC[scores.protocol]
    rows = [(row.metrics[metric], row) for row in scores.rows]
    order = sorted(
        ((value, row) for value, row in rows if value is not None),
        key=lambda item: (item[0], item[1].name),
    )
    return [
        WorstImage(name=row.name, score=value, polyp_fraction=round(row.fraction, 6), size=row.size)
        for value, row in order[:count]
    ]


def _is_known(scores: SetScores) -> bool:
    """Is it recorded which of these images the model was trained on?"""
    return any(row.trained_on is not None for row in scores.rows)


def _difference(scores: SetScores, other: SetScores | None) -> Difference | None:
    """The paired difference of the main metric; None where no image of both defines it."""
    metric = MAIN_METRIC[scores.protocol]
    if scores.protocol == "deploy" and not len(scores.values(metric)):
        metric = "false_positive_frame"  # polyp-free frames have no Dice to compare
    if other is None or not len(scores.values(metric)) or not len(other.values(metric)):
        return None
    return Difference(**asdict(paired_difference(scores, other, metric)), metric=metric)


def _only(scores: SetScores, size: str) -> SetScores:
    rows = tuple(row for row in scores.rows if row.size == size)
    return replace(scores, rows=rows, set_metrics={}, skipped=0)
