"""What a mean hides: scores by size of polyp, whole frames missed or falsely marked, worst images.

Every accuracy entry of `kdas-edge eval` and `kdas-edge bench` carries these keys:

- `by_size`: `small`, `medium`, `large` and, under the deploy protocol, `polyp-free`, those that
  the set has; each with `what` (the limits), `images`, `metrics` (name to mean and interval) and,
  in a benchmark, `difference_to_teacher` and `difference_to_fp32`.
- `frames` (deploy protocol): `polyp_frames`, `polyp_free_frames`, and with intervals
  `sensitivity` (share of polyp frames on which at least one pixel of the polyp is marked),
  `sensitivity_iou50` (marked with an IoU of at least 0.5) and `false_positive_frames` (share of
  polyp-free frames on which anything is marked); a share without frames is absent.
- `worst`: the images with the lowest main metric, worst first: `name`, `score`,
  `polyp_fraction`, `size`.
- `difference_to_teacher`, `difference_to_fp32` (benchmark only): the protocol's main metric
  (`false_positive_frame` where no frame has a polyp), this entry minus the teacher's fp32, or
  minus the same model's fp32, paired per image; `metric`, `mean`, `low`, `high`, `count`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kdas_edge.bench.scores import MAIN_METRIC, Estimate, SetScores, bootstrap_mean
from kdas_edge.bench.scores import paired_difference as difference
from kdas_edge.metrics.sizes import GROUPS

_WORST = 5


def entry_json(
    scores: SetScores, references: Mapping[str, SetScores | None] | None = None
) -> dict[str, Any]:
    """The scores of one predictor on one set as a JSON object; see the module.

    Args:
        scores: of one protocol.
        references: name to the scores that this entry is compared with: `teacher`, `fp32`. None,
            and the entry itself, are left out.
    """
    compared = {
        name: found
        for name, found in (references or {}).items()
        if found is not None and found is not scores and scores.rows
    }
    entry = {**scores.as_json(), "by_size": by_size(scores, compared), "worst": worst(scores)}
    if scores.protocol == "deploy":
        entry["frames"] = frames(scores)
    return {**entry, **_differences(scores, compared)}


def by_size(scores: SetScores, references: Mapping[str, SetScores]) -> dict[str, Any]:
    """The summary of each size group that has images; see the module."""
    found: dict[str, Any] = {}
    for name, what in GROUPS.items():
        chosen = _only(scores, name)
        if not chosen.rows:
            continue
        compared = {key: _only(other, name) for key, other in references.items()}
        found[name] = {
            "what": what,
            "images": len(chosen.rows),
            "metrics": {key: value.as_json() for key, value in chosen.summary().items()},
            **_differences(chosen, compared),
        }
    return found


def frames(scores: SetScores) -> dict[str, Any]:
    """Sensitivity and false alarms counted in frames; see the module.

    The interval is a bootstrap over frames like every other; where all frames agree (none missed)
    it shrinks to a point, and the count says how little that may mean: 0 of n frames is compatible
    with a rate of 3 / n.
    """
    missed = scores.values("missed_frame")
    overlap = scores.values("detected_frame")
    alarms = scores.values("false_positive_frame")
    shares: dict[str, Estimate | None] = {
        "sensitivity": bootstrap_mean(1 - missed) if len(missed) else None,
        "sensitivity_iou50": bootstrap_mean(overlap) if len(overlap) else None,
        "false_positive_frames": bootstrap_mean(alarms) if len(alarms) else None,
    }
    return {
        "polyp_frames": len(missed),
        "polyp_free_frames": len(alarms),
        **{name: share.as_json() for name, share in shares.items() if share is not None},
    }


def worst(scores: SetScores, count: int = _WORST) -> list[dict[str, Any]]:
    """The images with the lowest main metric, worst first."""
    metric = MAIN_METRIC[scores.protocol]
    rows = [(row.metrics[metric], row) for row in scores.rows]
    order = sorted(
        ((value, row) for value, row in rows if value is not None),
        key=lambda item: (item[0], item[1].name),
    )
    return [
        {
            "name": row.name,
            "score": value,
            "polyp_fraction": round(row.fraction, 6),
            "size": row.size,
        }
        for value, row in order[:count]
    ]


def _differences(scores: SetScores, references: Mapping[str, SetScores]) -> dict[str, Any]:
    metric = MAIN_METRIC[scores.protocol]
    if scores.protocol == "deploy" and not len(scores.values(metric)):
        metric = "false_positive_frame"  # polyp-free frames have no Dice to compare
    return {
        f"difference_to_{name}": {
            "metric": metric,
            **difference(scores, other, metric).as_json(),
        }
        for name, other in references.items()
    }


def _only(scores: SetScores, size: str) -> SetScores:
    rows = tuple(row for row in scores.rows if row.size == size)
    return replace(scores, rows=rows, set_metrics={}, skipped=0)
