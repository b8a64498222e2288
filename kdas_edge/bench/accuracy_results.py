"""Accuracies in a result file: per data set and protocol, per image, and under corruptions."""

from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import Field, model_validator

from kdas_edge.bench.result_base import MAIN_METRIC, AccuracyKey, Protocol, Record
from kdas_edge.metrics.bootstrap import Estimate
from kdas_edge.metrics.sizes import size_group


@dataclass(frozen=True)
class Difference(Estimate):
    """A paired difference over the same images.

    Attributes:
        metric: the protocol's main metric, or `false_positive_frame` where no frame has a polyp.
    """

    metric: str


class ScoredImage(NamedTuple):
    """One image of an `ImageScores`.

    Attributes:
        name: of the image.
        fraction: share of the frame that is polyp, 0…1; None in the oldest files.
        metrics: name to value, None where a metric is undefined on it.
        trained_on: the model was trained on this very image; None where that is not known.
    """

    name: str
    fraction: float | None
    metrics: dict[str, float | None]
    trained_on: bool | None

    @property
    def size(self) -> str:
        """Group of the polyp's size; see `metrics.sizes`."""
        return "" if self.fraction is None else size_group(self.fraction)


class ImageScores(Record):
    """The metrics of every image, column by column: a file of rows would be three times larger.

    Attributes:
        names: of the images, in the order of the set.
        polyp_fractions: share of each frame that is polyp, 0…1; empty in the oldest files.
        metrics: name to one value per image, None where the metric is undefined on it.
        trained_on: of each image whether the model was trained on it; None where not known.
    """

    names: list[str] = Field(default_factory=list)
    polyp_fractions: list[float] = Field(default_factory=list)
    metrics: dict[str, list[float | None]] = Field(default_factory=dict)
    trained_on: list[bool] | None = None

    @model_validator(mode="after")
    def _same_length(self) -> "ImageScores":
        columns: list[Sized] = [*self.metrics.values(), self.polyp_fractions or self.names]
        columns += [self.trained_on] if self.trained_on is not None else []
        if any(len(column) != len(self.names) for column in columns):
            raise ValueError("the columns have not the same length")
        return self

    def rows(self) -> Iterator[ScoredImage]:
        """One image after the other."""
        for i, name in enumerate(self.names):
            yield ScoredImage(
                name,
                self.polyp_fractions[i] if self.polyp_fractions else None,
                {metric: values[i] for metric, values in self.metrics.items()},
                self.trained_on[i] if self.trained_on is not None else None,
            )

    def defined(self, metric: str) -> dict[str, float]:
        """Image to value of a metric, of the images on which it is defined."""
        values = self.metrics.get(metric, [])
        return {
            name: value
            for name, value in zip(self.names, values, strict=False)
            if value is not None
        }


class WorstImage(Record):
    """An image with a low main metric."""

    name: str
    score: float
    polyp_fraction: float
    size: str


class SizeGroup(Record):
    """The scores of the polyps of one size; see `metrics.sizes`."""

    what: str
    images: int
    metrics: dict[str, Estimate]
    difference_to_teacher: Difference | None = None
    difference_to_fp32: Difference | None = None


class FrameShares(Record):
    """Whole frames that were missed or falsely marked (deploy protocol).

    The interval is a bootstrap over frames like every other; where all frames agree (none missed)
    it shrinks to a point, and the count says how little that may mean: 0 of n frames is compatible
    with a rate of 3 / n.

    Attributes:
        polyp_frames: frames with a polyp.
        polyp_free_frames: frames without.
        sensitivity: share of polyp frames on which at least one pixel of the polyp is marked.
        sensitivity_iou50: share of polyp frames that are marked with an IoU of at least 0.5.
        false_positive_frames: share of polyp-free frames on which anything is marked.
    """

    polyp_frames: int
    polyp_free_frames: int
    sensitivity: Estimate | None = None
    sensitivity_iou50: Estimate | None = None
    false_positive_frames: Estimate | None = None


class AccuracyEntry(Record):
    """One model in one precision and runtime, on one data set, under one protocol.

    Attributes:
        images: images that were scored.
        skipped_polyp_free: polyp-free images, which the paper protocol leaves out.
        metrics: mean and interval over the images.
        set_metrics: numbers of the set as a whole that are no mean over images.
        per_image: the scores of every image.
        by_size: `small`, `medium`, `large` and, under the deploy protocol, `polyp-free`: those
            that the set has.
        frames: of the deploy protocol.
        worst: images with the lowest main metric, worst first.
        difference_to_teacher, difference_to_fp32: the protocol's main metric, this entry minus the
            teacher's fp32, or minus the same model's fp32, in the same runtime.
        data_sha256: of the images and masks; see `accuracy.data_fingerprint`.
        trained_on: how many of the images the model was trained on; None where that is not known.
        near_duplicates: how many look like an image that it was trained on.
        machine: label of the file, in joined results.
    """

    model: str
    precision: str
    target: str
    machine: str | None = None
    dataset: str
    protocol: Protocol
    images: int
    skipped_polyp_free: int = 0
    metrics: dict[str, Estimate]
    set_metrics: dict[str, float] = Field(default_factory=dict)
    per_image: ImageScores = ImageScores()
    by_size: dict[str, SizeGroup] = Field(default_factory=dict)
    frames: FrameShares | None = None
    worst: list[WorstImage] = Field(default_factory=list)
    difference_to_teacher: Difference | None = None
    difference_to_fp32: Difference | None = None
    data_sha256: str | None = None
    trained_on: int | None = None
    near_duplicates: int | None = None

    @property
    def key(self) -> AccuracyKey:
        """What the rows that share these masks have in common."""
        return AccuracyKey(self.model, self.precision, self.target, self.machine)

    @property
    def main(self) -> Estimate | None:
        """The protocol's main metric: `mDice` or `Dice`; None where no image defines it."""
        return self.metrics.get(MAIN_METRIC[self.protocol])


class RobustnessEntry(Record):
    """Deploy-protocol scores on the images of one set under one corruption of one strength.

    Attributes:
        strength: 0 is the clean image, once for each corruption, then 1, 2, 3.
        difference_to_clean: Dice minus Dice of the same model on the clean images.
        difference_to_teacher, difference_to_fp32: minus the teacher's fp32, or the same model's
            fp32, on the same corrupted images. All are paired per image.
    """

    model: str
    precision: str
    target: str
    machine: str | None = None
    dataset: str
    corruption: str
    strength: int = Field(ge=0)
    images: int = Field(gt=0)
    metrics: dict[str, Estimate]
    difference_to_clean: Estimate | None = None
    difference_to_teacher: Estimate | None = None
    difference_to_fp32: Estimate | None = None

    @property
    def key(self) -> AccuracyKey:
        """Whose masks these are."""
        return AccuracyKey(self.model, self.precision, self.target, self.machine)


def pooled_dice(entries: Sequence[RobustnessEntry]) -> float:
    """Mean Dice of entries of several data sets, each image counting alike."""
    found = [entry.metrics["Dice"] for entry in entries if "Dice" in entry.metrics]
    return sum(dice.count * dice.mean for dice in found) / sum(dice.count for dice in found)
