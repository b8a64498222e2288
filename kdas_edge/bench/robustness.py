"""Dice on corrupted images: teacher, float and int8 side by side.

`kdas-edge bench … --robustness` scores them under the deploy protocol, on the first target only;
see `accuracy_results.RobustnessEntry`. `settings.robustness` of the result names the corruptions,
the seed and the number of images of each set.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from kdas_edge.bench.accuracy import Predict, to_size
from kdas_edge.bench.accuracy_results import RobustnessEntry
from kdas_edge.bench.ahead import load_ahead
from kdas_edge.bench.candidates import BenchCandidate, Settings
from kdas_edge.bench.models import predictor
from kdas_edge.bench.result_base import MAIN_METRIC, AccuracyKey
from kdas_edge.bench.scores import ImageScore, SetScores, paired_difference
from kdas_edge.console import info, progress
from kdas_edge.data.corruptions import CORRUPTIONS, SEED, STRENGTHS, check_names, corrupt
from kdas_edge.data.layout import ImageSet, Pair, read_pair
from kdas_edge.errors import UserError, last_line
from kdas_edge.metrics import deploy
from kdas_edge.metrics.bootstrap import Estimate

# what is scored, per model and set: corruption (or "" for clean) and strength
Condition = tuple[str, int]
CLEAN: Condition = ("", 0)


def choose_corruptions(asked: str | None) -> tuple[str, ...]:
    """The corruptions of an option's value, comma-separated; all by default.

    Raises:
        UserError: an unknown one.
    """
    return tuple(check_names(asked.split(","))) if asked else tuple(CORRUPTIONS)


def choose_images(image_set: ImageSet, limit: int | None) -> tuple[Pair, ...]:
    """At most `limit` pairs, spread evenly: neighbours in a set are often of one video."""
    pairs = image_set.pairs
    if limit is None or limit >= len(pairs):
        return pairs
    return tuple(pairs[int(at)] for at in np.linspace(0, len(pairs) - 1, limit).round())


def score_corrupted(
    predictors: Mapping[AccuracyKey, Predict],
    thresholds: Mapping[AccuracyKey, float],
    image_set: ImageSet,
    corruptions: Sequence[str],
    limit: int | None = None,
    seed: int = SEED,
) -> dict[AccuracyKey, dict[Condition, SetScores] | Exception]:
    """Score several predictors on clean and corrupted images; all see the same pixels.

    Args:
        predictors: key to a function from a frame to probabilities.
        thresholds: key to the threshold of the deploy protocol, 0…1.
        image_set: pairs with masks.
        corruptions: names; see `data.corruptions`.
        limit: so many images of the set, evenly spread.
        seed: of the corruptions.

    Returns:
        Per predictor the scores of each condition, or the exception with which it failed.

    Raises:
        UserError: an unreadable file, or an unknown corruption.
    """
    check_names(list(corruptions))
    conditions = [CLEAN, *((name, strength) for name in corruptions for strength in STRENGTHS)]
    pairs = choose_images(image_set, limit)
    rows: dict[AccuracyKey, dict[Condition, list[ImageScore]]] = {
        key: {condition: [] for condition in conditions} for key in predictors
    }
    failures: dict[AccuracyKey, Exception] = {}
    steps = len(pairs) * len(conditions)
    with progress(steps, f"corrupted images of {image_set.name}") as advance:
        work = [(pair, condition) for pair in pairs for condition in conditions]
        for (pair, condition), (seen, mask) in load_ahead(work, _Loader(seed)):
            fraction = float(np.count_nonzero(mask)) / mask.size
            for key, predict in predictors.items():
                if key in failures:
                    continue
                try:
                    found = to_size(predict(seen), *mask.shape)
                except Exception as error:  # the other models go on
                    failures[key] = error
                    continue
                values = deploy.score(found, mask, thresholds[key])
                rows[key][condition].append(ImageScore(pair.name, values, fraction))
            advance()
    return {
        key: failures.get(key)
        or {
            condition: SetScores(image_set.name, "deploy", tuple(found))
            for condition, found in rows[key].items()
        }
        for key in predictors
    }


def measure_robustness(
    group: Sequence[BenchCandidate],
    sets: Mapping[str, ImageSet],
    settings: Settings,
    teacher: str | None,
) -> list[RobustnessEntry]:
    """The entries of the loaded candidates of one target; of the teacher only its fp32.

    Returns:
        Nothing where none is left.
    """
    chosen: dict[AccuracyKey, BenchCandidate] = {}
    for one in group:
        of_teacher = one.row.role == "teacher" and one.row.precision != "fp32"
        if not one.failed and one.backend is not None and not of_teacher:
            chosen.setdefault(one.accuracy_key, one)
    predictors = {
        key: predictor(one.bundle, one.backend)
        for key, one in chosen.items()
        if one.backend is not None
    }
    if not predictors:
        return []
    thresholds = {key: one.bundle.manifest.threshold for key, one in chosen.items()}
    limit = settings.robustness_limit
    return robustness_entries(predictors, thresholds, sets, settings.robustness, limit, teacher)


def robustness_entries(
    predictors: Mapping[AccuracyKey, Predict],
    thresholds: Mapping[AccuracyKey, float],
    sets: Mapping[str, ImageSet],
    corruptions: Sequence[str],
    limit: int | None = None,
    teacher: str | None = None,
    seed: int = SEED,
) -> list[RobustnessEntry]:
    """The entries of the result file.

    Args:
        predictors: key to a function from a frame to probabilities. One that fails is left out,
            and a line says why.
        thresholds: with the same keys, 0…1.
        sets: name to data set.
        corruptions: names; see `data.corruptions`.
        limit: so many images of each set.
        teacher: name of the model whose fp32 the others are compared with.
        seed: of the corruptions.

    Raises:
        UserError: an unreadable file, an unknown corruption, or every model failed.
    """
    entries = []
    alive = dict(predictors)
    for image_set in sets.values():
        results = score_corrupted(alive, thresholds, image_set, corruptions, limit, seed)
        scores: dict[AccuracyKey, dict[Condition, SetScores]] = {}
        for key, result in results.items():
            if isinstance(result, Exception):
                info(f"robustness of {key} left out: {last_line(result)}")
                del alive[key]
                if not alive:
                    raise UserError(f"every model failed: {last_line(result)}") from result
            else:
                scores[key] = result
        entries += [
            _entry(key, scores, corruption, strength, teacher)
            for key in scores
            for corruption in corruptions
            for strength in (0, *STRENGTHS)
        ]
    return entries


class _Loader:
    """Makes the image of one condition; the clean one is decoded once for all conditions."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.pair: Pair | None = None

    def __call__(self, item: tuple[Pair, Condition]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        pair, (corruption, strength) = item
        if pair is not self.pair:
            self.frame, self.mask = read_pair(pair)
            self.pair = pair
        if not strength:
            return self.frame, self.mask
        return corrupt(self.frame, corruption, strength, pair.name, self.seed), self.mask


def _entry(
    key: AccuracyKey,
    scores: Mapping[AccuracyKey, Mapping[Condition, SetScores]],
    corruption: str,
    strength: int,
    teacher: str | None,
) -> RobustnessEntry:
    condition = (corruption, strength) if strength else CLEAN
    mine = scores[key][condition]

    def minus(other: SetScores | None) -> Estimate | None:
        metric = MAIN_METRIC["deploy"]
        if other is None or other is mine or not len(mine.values(metric)):
            return None
        return paired_difference(mine, other, metric)

    of_teacher = scores.get(AccuracyKey(teacher or "", "fp32", key.target), {})
    of_float = scores.get(AccuracyKey(key.model, "fp32", key.target), {})
    return RobustnessEntry(
        model=key.model,
        precision=key.precision,
        target=key.target,
        dataset=mine.dataset,
        corruption=corruption,
        strength=strength,
        images=len(mine.rows),
        metrics=mine.summary(),
        difference_to_clean=minus(scores[key][CLEAN]),
        difference_to_teacher=minus(of_teacher.get(condition)),
        difference_to_fp32=minus(of_float.get(condition)),
    )
