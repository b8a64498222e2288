"""Scores per image, their means with intervals, and paired differences between models."""

import functools
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kdas_edge.metrics.sizes import size_group

Protocol = Literal["paper", "deploy"]
PROTOCOLS: tuple[Protocol, ...] = ("paper", "deploy")
# the metric that tables and plots show for each protocol
MAIN_METRIC: dict[str, str] = {"paper": "mDice", "deploy": "Dice"}
_RESAMPLES = 2000
_SEED = 20231
# images up to which resampled sets are kept for the next metric; 6 MB each
_SHARED = 400


@dataclass(frozen=True)
class Estimate:
    """A mean over images with its 95 % bootstrap interval.

    Attributes:
        mean: over the `count` images for which the metric is defined.
        low, high: the 2.5 % and 97.5 % points of the means of resampled image sets. They say how
            much another draw of images from the same source would change the mean, no more.
        count: images that entered.
    """

    mean: float
    low: float
    high: float
    count: int

    def as_json(self) -> dict[str, float | int]:
        """A JSON object with the four numbers."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "count": self.count}


@dataclass(frozen=True)
class ImageScore:
    """The metrics of one image; None where a metric is undefined on it.

    Attributes:
        name: of the image.
        metrics: name to value.
        fraction: share of the frame that is polyp, 0…1.
    """

    name: str
    metrics: dict[str, float | None]
    fraction: float

    @property
    def size(self) -> str:
        """Group of the polyp's size; see `metrics.sizes`."""
        return size_group(self.fraction)

    def as_json(self) -> dict[str, Any]:
        """A JSON object: `name`, `polyp_fraction`, `size` and every metric, to six decimals."""
        return {
            "name": self.name,
            "polyp_fraction": round(self.fraction, 6),
            "size": self.size,
            **{
                name: None if value is None else round(value, 6)
                for name, value in self.metrics.items()
            },
        }


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

    def as_json(self) -> dict[str, Any]:
        """A JSON object with the summary and every image's values."""
        return {
            "dataset": self.dataset,
            "protocol": self.protocol,
            "images": len(self.rows),
            "skipped_polyp_free": self.skipped,
            "metrics": {name: value.as_json() for name, value in self.summary().items()},
            "set_metrics": self.set_metrics,
            "per_image": [row.as_json() for row in self.rows],
        }


def bootstrap_mean(values: NDArray[np.float64], seed: int = _SEED) -> Estimate:
    """Mean of `values` (N,) with its 95 % percentile bootstrap interval, seeded."""
    if len(values) == 1:
        only = float(values[0])
        return Estimate(only, only, only, 1)
    count = len(values)
    draw = _shared_resamples if count <= _SHARED else _resamples
    means = draw(count, seed) @ values / count
    low, high = np.percentile(means, (2.5, 97.5))
    return Estimate(float(values.mean()), float(low), float(high), len(values))


def _resamples(count: int, seed: int) -> NDArray[np.float64]:
    """(2000, N): how often each of N images occurs in each resampled set."""
    rng = np.random.default_rng(seed)
    # counts instead of indices: N numbers a resample, whatever the size of the set
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)
    return drawn.astype(np.float64)


# every metric of every model on a set is resampled alike, and drawing costs more than averaging
_shared_resamples = functools.lru_cache(maxsize=16)(_resamples)


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
