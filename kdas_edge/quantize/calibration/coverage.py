"""Coverage of the candidates by the chosen frames, beside a random choice of the same size."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kdas_edge.data.features import FEATURES
from kdas_edge.quantize.calibration.candidates import Look
from kdas_edge.quantize.calibration.selection import Matrix, distances, feature_matrix

_TENTHS = 10


def compare_with_random(
    looks: Sequence[Look], chosen: Sequence[int], seed: int
) -> dict[str, dict[str, Any]]:
    """Show what a choice covers, beside a plain random choice of the same size.

    Args:
        looks: of all candidates.
        chosen: indices of the chosen frames.
        seed: of the random choice.

    Returns:
        `coverage`: for each feature, see `coverage`; `distance`: for both choices, from a
        candidate to the nearest chosen frame, `mean` and `largest`, see `radius`.
    """
    random = sorted(
        int(index)
        for index in np.random.default_rng(seed).choice(len(looks), len(chosen), replace=False)
    )
    columns: dict[str, list[float | None]] = {
        name: [look.appearance[number] for look in looks]
        for number, name in enumerate(FEATURES[:-1])
    }
    columns["polyp"] = [look.polyp for look in looks]
    features = feature_matrix([look.appearance for look in looks], columns["polyp"])
    distance = {}
    for name, choice in (("chosen", list(chosen)), ("random", random)):
        mean, largest = radius(features, choice)
        distance[name] = {"mean": round(mean, 4), "largest": round(largest, 4)}
    return {
        "coverage": {name: coverage(values, chosen, random) for name, values in columns.items()},
        "distance": distance,
    }


def radius(features: Matrix, chosen: Sequence[int]) -> tuple[float, float]:
    """Distance from a candidate to its nearest chosen frame: (mean, largest), standard deviations.

    Args:
        features: (N, F) of all candidates.
        chosen: at least one index.
    """
    nearest = np.full(len(features), np.inf)
    for index in chosen:
        nearest = np.minimum(nearest, distances(features, index))
    return float(nearest.mean()), float(nearest.max())


def coverage(
    values: Sequence[float | None], chosen: Sequence[int], random: Sequence[int]
) -> dict[str, Any] | None:
    """Describe how well a choice covers one feature, beside a random choice of the same size.

    Args:
        values: the feature of all candidates, None where unknown.
        chosen: indices of the chosen frames.
        random: indices of the random choice.

    Returns:
        Minimum, median, maximum and frames of `candidates`, `chosen` and `random`, and how many
        tenths of the candidates' range each of them reaches; None if nothing is known.
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    low, high = min(known), max(known)

    def describe(indices: Sequence[int]) -> dict[str, Any] | None:
        found = np.array([values[i] for i in indices if values[i] is not None], np.float64)
        if not len(found):
            return None
        step = (high - low) / _TENTHS
        tenths = np.minimum((found - low) / step, _TENTHS - 1).astype(int) if step > 0 else found
        return {
            "frames": len(found),
            "min": float(found.min()),
            "median": round(float(np.median(found)), 6),
            "max": float(found.max()),
            "tenths": len(set(tenths.tolist())),
        }

    return {
        "candidates": describe(range(len(values))),
        "chosen": describe(chosen),
        "random": describe(random),
    }
