"""Dice on images that an endoscope spoilt: teacher, float and int8 side by side.

`kdas-edge bench … --robustness` adds to the result the key `robustness`, a list with one entry per
model × precision × data set × corruption × strength, under the deploy protocol:

- `model`, `precision`, `target`, `dataset`, `corruption`, `strength` (0 is the clean image, once
  for each corruption, then 1, 2, 3), `images`;
- `metrics`: name to `mean`, `low`, `high`, `count` (95 % bootstrap over the images);
- `difference_to_clean`: Dice of this entry minus Dice of the same model on the clean images;
- `difference_to_teacher`, `difference_to_fp32`: minus the teacher's fp32, or the same model's
  fp32, on the same corrupted images. All are paired per image.

They are measured on the first target only. `settings.robustness` names the corruptions, the seed
and the number of images of each set.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdas_edge.bench.accuracy import Predict, to_size
from kdas_edge.bench.ahead import load_ahead
from kdas_edge.bench.models import predictor
from kdas_edge.bench.rows import Row, Settings
from kdas_edge.bench.scores import MAIN_METRIC, ImageScore, SetScores, paired_difference
from kdas_edge.console import info, progress
from kdas_edge.data.corruptions import CORRUPTIONS, SEED, STRENGTHS, check_names, corrupt
from kdas_edge.data.layout import ImageSet, Pair, read_pair
from kdas_edge.errors import UserError, last_line
from kdas_edge.metrics import deploy

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
    predictors: Mapping[str, Predict],
    thresholds: Mapping[str, float],
    image_set: ImageSet,
    corruptions: Sequence[str],
    limit: int | None = None,
    seed: int = SEED,
) -> dict[str, dict[Condition, SetScores] | Exception]:
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
    rows: dict[str, dict[Condition, list[ImageScore]]] = {
        key: {condition: [] for condition in conditions} for key in predictors
    }
    failures: dict[str, Exception] = {}
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


def robustness_rows(
    group: Sequence[Row], sets: Mapping[str, ImageSet], settings: Settings, teacher: str | None
) -> list[dict[str, Any]]:
    """The entries of the rows of one target that are loaded; of the teacher only its fp32.

    Returns:
        Nothing where no row is left.
    """
    chosen: dict[str, Row] = {}
    for row in group:
        of_teacher = row.role == "teacher" and row.precision != "fp32"
        if row.reason is None and row.backend is not None and not of_teacher:
            chosen.setdefault(row.accuracy_key, row)
    predictors = {
        key: predictor(row.bundle, row.backend)
        for key, row in chosen.items()
        if row.backend is not None
    }
    if not predictors:
        return []
    thresholds = {key: row.bundle.manifest.threshold for key, row in chosen.items()}
    limit = settings.robustness_limit
    return robustness_entries(predictors, thresholds, sets, settings.robustness, limit, teacher)


def robustness_entries(
    predictors: Mapping[str, Predict],
    thresholds: Mapping[str, float],
    sets: Mapping[str, ImageSet],
    corruptions: Sequence[str],
    limit: int | None = None,
    teacher: str | None = None,
    seed: int = SEED,
) -> list[dict[str, Any]]:
    """The entries of the result file; see the module.

    Args:
        predictors: `model|precision|target` to a function from a frame to probabilities. One that
            fails is left out, and a line says why.
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
        scores: dict[str, dict[Condition, SetScores]] = {}
        for key, result in results.items():
            if isinstance(result, Exception):
                info(f"robustness of {key.replace('|', ' ')} left out: {last_line(result)}")
                del alive[key]
                if not alive:
                    raise UserError(f"every model failed: {last_line(result)}") from result
            else:
                scores[key] = result
        for key, by_condition in scores.items():
            model, precision, target = key.split("|", 2)
            for corruption in corruptions:
                for strength in (0, *STRENGTHS):
                    condition = (corruption, strength) if strength else CLEAN
                    others = {
                        "clean": by_condition[CLEAN] if strength else None,
                        "teacher": scores.get(f"{teacher}|fp32|{target}", {}).get(condition),
                        "fp32": scores.get(f"{model}|fp32|{target}", {}).get(condition),
                    }
                    entries.append(
                        {
                            "model": model,
                            "precision": precision,
                            "target": target,
                            "dataset": image_set.name,
                            "corruption": corruption,
                            "strength": strength,
                            **_entry(by_condition[condition], others),
                        }
                    )
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


def _entry(scores: SetScores, others: Mapping[str, SetScores | None]) -> dict[str, Any]:
    metric = MAIN_METRIC[scores.protocol]
    differences = {
        f"difference_to_{name}": paired_difference(scores, other, metric).as_json()
        for name, other in others.items()
        if other is not None and other is not scores
    }
    return {
        "images": len(scores.rows),
        "metrics": {name: value.as_json() for name, value in scores.summary().items()},
        **differences,
    }


def robustness_tables(results: dict[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """One table per data set: corruption × strength against model, Dice and what is lost.

    Args:
        results: the JSON object of `kdas-edge bench --robustness`.
    """
    entries = results.get("robustness") or []
    tables = []
    for dataset in dict.fromkeys(entry["dataset"] for entry in entries):
        mine = [entry for entry in entries if entry["dataset"] == dataset]
        models = list(dict.fromkeys((e["model"], e["precision"]) for e in mine))
        found = {(e["corruption"], e["strength"], e["model"], e["precision"]): e for e in mine}
        rows = [["clean", "", *(_cell(found[mine[0]["corruption"], 0, *m]) for m in models)]]
        for corruption in dict.fromkeys(entry["corruption"] for entry in mine):
            for strength in STRENGTHS:
                cells = [_cell(found[corruption, strength, *model]) for model in models]
                label = corruption.replace("_", " ") if strength == STRENGTHS[0] else ""
                rows.append([label, str(strength), *cells])
        headings = ["corruption", "strength", *(f"{model} {kind}" for model, kind in models)]
        title = f"Dice on spoilt images of {dataset} ({mine[0]['images']} images); in brackets the"
        tables.append((f"{title} change from clean with its 95 % interval", headings, rows))
    return tables


def _cell(entry: dict[str, Any]) -> str:
    if "Dice" not in entry["metrics"]:
        return "–"
    dice, change = entry["metrics"]["Dice"]["mean"], entry.get("difference_to_clean")
    if change is None:
        return f"{dice:.3f}"
    return f"{dice:.3f} ({change['mean']:+.3f}, {change['low']:+.3f} to {change['high']:+.3f})"
