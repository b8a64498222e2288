"""Choice of representative frames: k-center, stratified, or at random.

k-center greedy (Gonzalez 1985) takes, again and again, the frame that is furthest from all that
were taken: the largest distance from any candidate to its nearest chosen frame is then at most
twice the smallest possible.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from kdas_edge.data.features import FEATURES, POLYP_FREE, STRATA, stratum

Method = Literal["kcenter", "stratified", "random"]
METHODS: tuple[Method, ...] = get_args(Method)

# Of the chosen frames, where there are as many: polyp-free ones and, in `stratified`, every size.
# A quantiser that has never seen empty mucosa sets the ranges of its last layers without it.
LEAST_SHARE = 0.1
# Beyond this many standard deviations a frame is as odd as it gets: one black frame must not
# stand for a fifth of the space.
_CLIP = 3.0
_WITH_POLYP = "with polyp or unknown"

Matrix = NDArray[np.float64]


def feature_matrix(
    appearances: Sequence[Sequence[float]], polyps: Sequence[float | None]
) -> Matrix:
    """Return the standardised features (N, 7) in which distances are measured.

    Highlights and polyp size enter by their square root (a side, not an area). Every column has
    mean 0 and standard deviation 1 and is clipped at ±3; an unknown polyp size is 0, the mean of
    the known ones, and a column that does not vary is 0.

    Args:
        appearances: N times six numbers, see `features.appearance`.
        polyps: N shares of the frame, None where unknown.
    """
    values = np.empty((len(polyps), len(FEATURES)))
    values[:, :-1] = np.asarray(appearances, dtype=np.float64).reshape(len(polyps), -1)
    values[:, -1] = [np.nan if share is None else share for share in polyps]
    for name in ("highlights", "polyp"):
        column = FEATURES.index(name)
        values[:, column] = np.sqrt(values[:, column])
    known = ~np.isnan(values)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, values, 0).sum(axis=0) / count
    centred = np.where(known, values - mean, 0)
    spread = np.sqrt((centred**2).sum(axis=0) / count)
    scaled = centred / np.where(spread > 1e-9, spread, 1)
    return np.asarray(np.where(spread > 1e-9, scaled, 0).clip(-_CLIP, _CLIP), dtype=np.float64)


def select(
    features: Matrix, polyps: Sequence[float | None], count: int, method: Method, seed: int
) -> list[int]:
    """Choose frames.

    `kcenter` chooses by k-center among the polyp-free frames and among all others, `stratified`
    within the polyp-free, small, medium, large and unknown ones, `random` at random within the two
    groups of `kcenter`. Each group gets its share of the candidates, and at least a tenth of
    `count` if it has as many frames.

    Args:
        features: (N, F), see `feature_matrix`.
        polyps: N shares of the frame, None where unknown.
        count: frames wanted; all are taken if there are fewer.
        method: one of `METHODS`.
        seed: of the first frame of each group, or of the random choice.

    Returns:
        Indices in ascending order, without repetition.
    """
    if count >= len(features):
        return list(range(len(features)))
    rng = np.random.default_rng(seed)
    strata = [stratum(share) for share in polyps]
    if method != "stratified":
        strata = [POLYP_FREE if name == POLYP_FREE else _WITH_POLYP for name in strata]
    members = {
        name: [index for index, own in enumerate(strata) if own == name]
        for name in (*STRATA, _WITH_POLYP)
    }
    sizes = {name: len(indices) for name, indices in members.items() if indices}
    choose: Callable[[Matrix, int, np.random.Generator], list[int]] = (
        _draw if method == "random" else k_center
    )
    chosen: list[int] = []
    for name, quota in quotas(sizes, count).items():
        indices = np.asarray(members[name])
        chosen += indices[choose(features[indices], quota, rng)].tolist()
    return sorted(chosen)


def quotas(sizes: Mapping[str, int], count: int, least: float = LEAST_SHARE) -> dict[str, int]:
    """Share `count` frames out among groups, in proportion but at least `least` of it to each.

    Args:
        sizes: frames in each group, all above 0, together more than `count`.
        count: frames to share out.
        least: smallest part of `count` for a group, 0…1; a smaller group gives all it has.
    """
    total = sum(sizes.values())
    given = {name: min(size, int(np.ceil(least * count))) for name, size in sizes.items()}

    def wanting(name: str) -> float:
        return sizes[name] * count / total - given[name]

    while sum(given.values()) > count:
        given[min((name for name in given if given[name] > 0), key=wanting)] -= 1
    while sum(given.values()) < count:
        given[max((name for name in given if given[name] < sizes[name]), key=wanting)] += 1
    return given


def k_center(features: Matrix, count: int, rng: np.random.Generator) -> list[int]:
    """Take a seeded first frame, then always the one furthest from all taken; ties: the first.

    Args:
        features: (N, F).
        count: at most N.
        rng: draws the first frame.

    Returns:
        `count` distinct indices, in the order of taking.
    """
    if count == 0:
        return []
    chosen = [int(rng.integers(len(features)))]
    distance = distances(features, chosen[0])
    while len(chosen) < count:
        # taken frames may not come again, even among identical ones
        distance[chosen[-1]] = -1
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, distances(features, chosen[-1]))
    return chosen


def distances(features: Matrix, index: int) -> Matrix:
    """Euclidean distances (N,) of all rows of `features` (N, F) from one of them."""
    return np.asarray(np.linalg.norm(features - features[index], axis=1), dtype=np.float64)


def _draw(features: Matrix, count: int, rng: np.random.Generator) -> list[int]:
    return [int(index) for index in rng.choice(len(features), count, replace=False)]
