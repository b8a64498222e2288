"""Accuracy of one or several predictors on a set of images: per image, with intervals.

PraNet resizes logits to the size of the mask and applies the sigmoid afterwards. A device has only
probabilities, so that probabilities are resized here, bilinearly, for every kind of model alike.
The 0.5 contour hardly moves (sigmoid is monotonic and nearly linear there).
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.data.layout import ImageSet, Pair, list_images, read_mask, read_pair
from kdas_edge.errors import UserError
from kdas_edge.metrics import deploy, paper

Protocol = Literal["paper", "deploy"]
PROTOCOLS: tuple[Protocol, ...] = ("paper", "deploy")
# the metric that tables and plots show for each protocol
MAIN_METRIC: dict[str, str] = {"paper": "mDice", "deploy": "Dice"}
# (H, W, 3) uint8 RGB frame -> (S, S) or (H, W) polyp probability, float 0…1 or uint8
Predict = Callable[[NDArray[np.uint8]], NDArray[Any]]

_RESAMPLES = 2000
_SEED = 20231


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
    """The metrics of one image; None where a metric is undefined on it."""

    name: str
    metrics: dict[str, float | None]


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
            "per_image": [{"name": row.name, **row.metrics} for row in self.rows],
        }


def bootstrap_mean(values: NDArray[np.float64], seed: int = _SEED) -> Estimate:
    """Mean of `values` (N,) with its 95 % percentile bootstrap interval, seeded."""
    if len(values) == 1:
        only = float(values[0])
        return Estimate(only, only, only, 1)
    rng = np.random.default_rng(seed)
    # counts instead of indices: N numbers a resample, whatever the size of the set
    weights = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=_RESAMPLES)
    means = weights @ values / len(values)
    low, high = np.percentile(means, (2.5, 97.5))
    return Estimate(float(values.mean()), float(low), float(high), len(values))


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


def to_size(probability: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Resize a probability map bilinearly, half-pixel centres, no antialiasing (as PraNet does)."""
    if probability.shape == (height, width):
        return probability
    return cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR)


def evaluate(
    predict: Predict,
    image_set: ImageSet,
    protocols: Sequence[Protocol] = PROTOCOLS,
    threshold: float = 0.5,
    limit: int | None = None,
    advance: Callable[[], None] | None = None,
    on_map: Callable[[Pair, NDArray[Any]], None] | None = None,
) -> dict[Protocol, SetScores]:
    """Score one predictor on a set; every image is decoded and predicted once for all protocols.

    Args:
        predict: frame to probability; see `Predict`.
        image_set: pairs with masks.
        protocols: `paper`, `deploy` or both.
        threshold: of the deploy protocol, 0…1.
        limit: only the first so many images.
        advance: called after each image, for a progress bar.
        on_map: called with each pair and its probability map at the mask's size.

    Returns:
        One `SetScores` per protocol.

    Raises:
        UserError: an unreadable file, or no image that a protocol can score.
    """
    result = evaluate_many(
        {"": predict}, image_set, protocols, {"": threshold}, limit, advance, on_map=on_map
    )[""]
    if isinstance(result, Exception):
        raise result
    return result


def evaluate_many(
    predictors: Mapping[str, Predict],
    image_set: ImageSet,
    protocols: Sequence[Protocol] = PROTOCOLS,
    thresholds: Mapping[str, float] | None = None,
    limit: int | None = None,
    advance: Callable[[], None] | None = None,
    on_map: Callable[[Pair, NDArray[Any]], None] | None = None,
) -> dict[str, dict[Protocol, SetScores] | Exception]:
    """Score several predictors on one set with one decoding of each image.

    The images are the outer loop, so that memory does not grow with the set.

    Returns:
        Per predictor the scores of `evaluate`, or the exception with which it failed; the others
        go on.
    """
    tallies = {key: _Tally(image_set.name, protocols) for key in predictors}
    failures: dict[str, Exception] = {}
    for pair in image_set.pairs[:limit]:
        frame, mask = read_pair(pair)
        for key, predict in predictors.items():
            if key in failures:
                continue
            try:
                probability = to_size(predict(frame), *mask.shape)
            except Exception as error:  # a runtime's failure must not end the other rows
                failures[key] = error
                continue
            tallies[key].add(pair.name, probability, mask, (thresholds or {}).get(key, 0.5))
            if on_map is not None:
                on_map(pair, probability)
        if advance is not None:
            advance()
    return {key: failures.get(key) or tallies[key].scores() for key in predictors}


def evaluate_maps(
    maps: Path,
    masks: Path,
    name: str,
    protocols: Sequence[Protocol] = ("paper",),
    threshold: float = 0.5,
    advance: Callable[[], None] | None = None,
) -> dict[Protocol, SetScores]:
    """Score a folder of 8-bit probability maps against a folder of masks, paired by stem.

    Args:
        maps: folder of maps, grey 0…255.
        masks: folder of masks.
        name: of the set.
        protocols: `paper`, `deploy` or both.
        threshold: of the deploy protocol, 0…1.
        advance: called after each map, for a progress bar.

    Raises:
        UserError: a folder is absent, a map is missing, unreadable or of another size.
    """
    found = {path.stem: path for path in list_images(maps)}
    targets = list_images(masks)
    missing = [path.stem for path in targets if path.stem not in found]
    if missing:
        raise UserError(
            f"{maps} has no map for {len(missing)} of {len(targets)} masks of {masks}, "
            f"for example {missing[0]!r}; write one map per mask, with the mask's stem"
        )
    tally = _Tally(name, protocols)
    for path in targets:
        mask = read_mask(path)
        grey = _read_grey(found[path.stem])
        if grey.shape != mask.shape:
            raise UserError(
                f"{found[path.stem]} is {grey.shape[1]}×{grey.shape[0]} pixels but its mask is "
                f"{mask.shape[1]}×{mask.shape[0]}; write maps at the mask's size"
            )
        tally.add(path.stem, grey, mask, threshold)
        if advance is not None:
            advance()
    return tally.scores()


def data_fingerprint(image_set: ImageSet, limit: int | None = None) -> str:
    """SHA-256 over the names and contents of the images and masks that a score was computed on.

    Two results are comparable only if theirs agree.
    """
    digest = hashlib.sha256()
    for pair in image_set.pairs[:limit]:
        digest.update(pair.name.encode() + b"\0")
        for path in (pair.image, pair.mask):
            if path is not None:
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


class _Tally:
    """Collects the rows of one predictor under each protocol."""

    def __init__(self, dataset: str, protocols: Sequence[Protocol]) -> None:
        self.dataset = dataset
        self.rows: dict[Protocol, list[ImageScore]] = {protocol: [] for protocol in protocols}
        self.curves: list[NDArray[np.float64]] = []
        self.polyp_free = 0

    def add(
        self, name: str, probability: NDArray[Any], mask: NDArray[np.bool_], threshold: float
    ) -> None:
        if "deploy" in self.rows:
            values = deploy.score(probability, mask, threshold)
            self.rows["deploy"].append(ImageScore(name, values))
        if not mask.any():
            self.polyp_free += 1
        elif "paper" in self.rows:
            result = paper.measure(probability, mask)
            self.rows["paper"].append(ImageScore(name, dict(result.values)))
            self.curves.append(result.e_curve)

    def scores(self) -> dict[Protocol, SetScores]:
        result: dict[Protocol, SetScores] = {}
        for protocol, rows in self.rows.items():
            extra = {}
            skipped = self.polyp_free if protocol == "paper" else 0
            if protocol == "paper" and self.curves:
                extra["maxEmeasure"] = paper.max_e_measure(self.curves)
            result[protocol] = SetScores(self.dataset, protocol, tuple(rows), extra, skipped)
        return result


def _read_grey(path: Path) -> NDArray[np.uint8]:
    grey = cv2.imdecode(np.frombuffer(path.read_bytes() or b"\0", np.uint8), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise UserError(f"{path} cannot be read as an image; write the map again")
    return np.asarray(grey, dtype=np.uint8)
