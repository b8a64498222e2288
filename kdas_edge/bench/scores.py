"""Scores per image, their means with intervals, and paired differences between models."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kdas_edge.bench.result_base import Protocol
from kdas_edge.metrics.bootstrap import Estimate, bootstrap_mean
from kdas_edge.metrics.sizes import size_group


@dataclass(frozen=True)
class ImageScore:
    """The metrics of one image; None where a metric is undefined on it.

    Attributes:
        name: of the image.
        metrics: name to value.
        fraction: share of the frame that is polyp, 0…1.
        trained_on: the model was trained on this very image; None where that is not known.
        near_duplicate: it looks like an image that the model was trained on.
    """

    name: str
    metrics: dict[str, float | None]
    fraction: float
    trained_on: bool | None = None
    near_duplicate: bool = False

    @property
    def size(self) -> str:
        """Group of the polyp's size; see `metrics.sizes`."""
        return size_group(self.fraction)


@dataclass(frozen=True)
class SetScores:
    """The scores of one predictor on one set under one protocol.

    Attributes:
        dataset: name of the set.
        protocol: `paper` or `deploy`.
        rows: one per image, in the order of the set.
        set_metrics: numbers of the set as a whole that are no mean over images
            (`maxEmeasure` of the paper protocol).
        skipped: polyp-free images, which the paper protocol leaves out.
    """

    dataset: str
    protocol: Protocol
    rows: tuple[ImageScore, ...]
    set_metrics: dict[str, float] = field(default_factory=dict)
    skipped: int = 0

    def values(self, metric: str) -> NDArray[np.float64]:
        """The defined values of a metric, one per image."""
        found = [row.metrics[metric] for row in self.rows]
        return np.array([value for value in found if value is not None], dtype=np.float64)

    def estimate(self, metric: str) -> Estimate | None:
        """Mean and interval of a metric, or None when no image defines it."""
        values = self.values(metric)
        return bootstrap_mean(values) if len(values) else None

    def summary(self) -> dict[str, Estimate]:
        """Mean and interval of every metric that some image defines."""
        names = self.rows[0].metrics if self.rows else {}
        found = {name: self.estimate(name) for name in names}
        return {name: value for name, value in found.items() if value is not None}


def paired_difference(first: SetScores, second: SetScores, metric: str) -> Estimate:
    """Mean of `first - second` over the same images, with its 95 % interval.

    Pairing removes what both models find easy or hard, so that a difference of thousandths can be
    told from noise that the two separate intervals would hide it in.

    Raises:
        ValueError: other images, another set or another protocol.
    """
    if (first.dataset, first.protocol) != (second.dataset, second.protocol):
        raise ValueError("a paired difference needs one data set and one protocol")
    left = {row.name: row.metrics[metric] for row in first.rows}
    right = {row.name: row.metrics[metric] for row in second.rows}
    if left.keys() != right.keys():
        raise ValueError("a paired difference needs the same images")
    pairs = [(left[name], right[name]) for name in left]
    differences = [a - b for a, b in pairs if a is not None and b is not None]
    if not differences:
        raise ValueError(f"{metric} is defined on no image of both")
    return bootstrap_mean(np.array(differences))
