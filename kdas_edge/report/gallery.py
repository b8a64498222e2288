"""Overlays for the page: the best, median and worst image of each set, model beside model.

The pictures are shown as JPEG without colour subsampling, so that a contour keeps its colour; as
PNG the page would be ten times larger.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.bench.accuracy import Predict, to_size
from kdas_edge.bench.accuracy_results import AccuracyEntry
from kdas_edge.bench.models import predictor, unique_names
from kdas_edge.bench.records import is_measured
from kdas_edge.bench.results import BenchResult
from kdas_edge.bundle.reader import Bundle
from kdas_edge.data.layout import ImageSet, Pair, read_pair
from kdas_edge.errors import UserError
from kdas_edge.overlay import GROUND_TRUTH, PREDICTION, draw_contours
from kdas_edge.runtime.backends import Backend, open_backend
from kdas_edge.runtime.targets import parse_target

_WIDTH = 400
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 88, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]


@dataclass(frozen=True)
class Panel:
    """One picture: who predicted, with what Dice, and the JPEG bytes."""

    caption: str
    dice: float | None
    jpeg: bytes


@dataclass(frozen=True)
class Case:
    """One image of a set with the contours of each model.

    Attributes:
        dataset, name: which image.
        rank: `best`, `median` or `worst` by the Dice of the last model shown.
        panels: the image with the ground truth, then one per model.
    """

    dataset: str
    name: str
    rank: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class _Shown:
    """A model that appears in the gallery."""

    caption: str
    bundle: Bundle
    entries: dict[str, AccuracyEntry]  # data set -> accuracy entry of the result file

    def dice(self, dataset: str) -> dict[str, float]:
        """Dice of every image that has one: those with a polyp."""
        return self.entries[dataset].per_image.defined("Dice")


def make_gallery(
    results: BenchResult, bundles: Sequence[Bundle], sets: dict[str, ImageSet]
) -> list[Case]:
    """Draw the best, median and worst image of each set.

    Shown are the teacher in fp32 and the first student in each of its precisions; the images are
    chosen by the last of them, the model that is meant for the device.

    Args:
        results: of `kdas-edge bench`.
        bundles: the models of that benchmark; those missing are not shown.
        sets: the data sets of that benchmark.

    Raises:
        UserError: a bundle or a set is not the one that was measured.
    """
    shown = _choose(results, bundles)
    if not shown:
        return []
    cases = []
    backends: list[Backend] = []
    try:
        predictors = []
        for model in shown:
            entry = next(iter(model.entries.values()))
            backend = open_backend(model.bundle, entry.precision, parse_target(entry.target))
            backends.append(backend)
            predictors.append(predictor(model.bundle, backend))
        for dataset, image_set in sets.items():
            if all(dataset in model.entries for model in shown):
                cases += _cases(dataset, image_set, shown, predictors)
    finally:
        for backend in backends:
            backend.close()
    return cases


def _choose(results: BenchResult, bundles: Sequence[Bundle]) -> list[_Shown]:
    entries: dict[tuple[str, str], dict[str, AccuracyEntry]] = {}
    for entry in results.accuracy:
        if entry.protocol == "deploy":
            by_set = entries.setdefault((entry.model, entry.precision), {})
            by_set.setdefault(entry.dataset, entry)
    by_name = dict(zip(unique_names(bundles), bundles, strict=True))
    for name, bundle in by_name.items():
        measured = results.models.get(name)
        if measured is None or not is_measured(measured, bundle):
            raise UserError(
                f"bundle {name!r} is not the one that was measured; name the bundle of the "
                "benchmark, or run kdas-edge bench again"
            )
    students = [name for name in by_name if results.models[name].role == "student"]
    wanted = [(name, "fp32") for name in by_name if results.models[name].role == "teacher"] + [
        (name, precision) for name in students[:1] for precision in ("fp32", "fp16", "int8")
    ]
    return [
        _Shown(f"{name} {precision}", by_name[name], entries[name, precision])
        for name, precision in wanted
        if (name, precision) in entries
    ]


def _cases(
    dataset: str, image_set: ImageSet, shown: Sequence[_Shown], predictors: Sequence[Predict]
) -> list[Case]:
    pairs = {pair.name: pair for pair in image_set.pairs}
    order = sorted(shown[-1].dice(dataset).items(), key=lambda item: (-item[1], item[0]))
    if not order:
        return []
    missing = [name for name, _ in order if name not in pairs]
    if missing:
        raise UserError(
            f"{image_set.root} has no image {missing[0]!r} that was measured; name the same data"
        )
    ranks = {"best": 0, "median": len(order) // 2, "worst": len(order) - 1}
    # a set of one or two images has fewer cases
    places = {place: rank for rank, place in reversed(ranks.items())}
    return [
        _draw(dataset, pairs[order[place][0]], rank, shown, predictors)
        for place, rank in sorted(places.items())
    ]


def _draw(
    dataset: str, pair: Pair, rank: str, shown: Sequence[_Shown], predictors: Sequence[Predict]
) -> Case:
    frame, mask = read_pair(pair)
    height, width = mask.shape
    scale = min(1.0, _WIDTH / width)
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = np.asarray(cv2.resize(frame, small, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    truth = _shrink(mask, small)
    panels = [Panel("ground truth", None, _jpeg(draw_contours(picture, truth, GROUND_TRUTH)))]
    for model, predict in zip(shown, predictors, strict=True):
        found = to_size(predict(frame), height, width) > model.bundle.manifest.threshold
        drawn = draw_contours(
            draw_contours(picture, truth, GROUND_TRUTH), _shrink(found, small), PREDICTION
        )
        panels.append(Panel(model.caption, model.dice(dataset).get(pair.name), _jpeg(drawn)))
    return Case(dataset, pair.name, rank, tuple(panels))


def _shrink(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    resized = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized, dtype=bool)


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".jpg", picture[..., ::-1], _JPEG)[1].tobytes()
