"""Accuracy of one or several predictors on a set of images: per image, with intervals.

PraNet resizes logits to the size of the mask and applies the sigmoid afterwards. A device has only
probabilities, so that probabilities are resized here, bilinearly, for every kind of model alike.
The 0.5 contour hardly moves (sigmoid is monotonic and nearly linear there).
"""

import functools
import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.bench.ahead import load_ahead
from kdas_edge.bench.result_base import PROTOCOLS, Protocol
from kdas_edge.bench.scores import ImageScore, SetScores
from kdas_edge.data.duplicates import pixel_digest
from kdas_edge.data.layout import ImageSet, Pair, list_images, read_mask, read_pair
from kdas_edge.data.lineage import Lineage
from kdas_edge.data.splits import hash_pair
from kdas_edge.errors import UserError
from kdas_edge.image_files import image_size
from kdas_edge.metrics import deploy, paper
from kdas_edge.metrics.geometry import MaskGeometry

Key = TypeVar("Key", bound=Hashable)
# (H, W, 3) uint8 RGB frame -> (S, S) or (H, W) polyp probability, float 0…1 or uint8
Predict = Callable[[NDArray[np.uint8]], NDArray[Any]]


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
    lineage: Lineage | None = None,
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
        lineage: what the model was trained on, to mark those images.

    Returns:
        One `SetScores` per protocol.

    Raises:
        UserError: an unreadable file, or no image that a protocol can score.
    """
    lineages = {"": lineage} if lineage is not None else {}
    result = evaluate_many(
        {"": predict}, image_set, protocols, {"": threshold}, limit, advance, on_map, lineages
    )[""]
    if isinstance(result, Exception):
        raise result
    return result


def evaluate_many(
    predictors: Mapping[Key, Predict],
    image_set: ImageSet,
    protocols: Sequence[Protocol] = PROTOCOLS,
    thresholds: Mapping[Key, float] | None = None,
    limit: int | None = None,
    advance: Callable[[], None] | None = None,
    on_map: Callable[[Pair, NDArray[Any]], None] | None = None,
    lineages: Mapping[Key, Lineage] | None = None,
) -> dict[Key, dict[Protocol, SetScores] | Exception]:
    """Score several predictors on one set with one decoding of each image.

    The images are the outer loop, so that memory does not grow with the set, and the next one is
    read while the models are busy.

    The arguments are those of `evaluate`, with one predictor, threshold (0.5 without) and lineage
    per key.

    Returns:
        Per predictor the scores of `evaluate`, or the exception with which it failed; the others
        go on.
    """
    tallies = {key: _Tally(image_set.name, protocols) for key in predictors}
    failures: dict[Key, Exception] = {}
    recorded = any((lineages or {}).values())
    by_file = any(lineage.files for lineage in (lineages or {}).values())

    def load(pair: Pair) -> tuple[NDArray[np.uint8], _Mask, tuple[str, str]]:
        frame, pixels = read_pair(pair)
        mask = _Mask(pixels)
        if "paper" in protocols and mask.fraction:
            mask.geometry.prepare()
        digest = pixel_digest(frame) if recorded else ""
        return frame, mask, (digest, hash_pair(pair) if by_file else "")

    for pair, (frame, mask, hashes) in load_ahead(image_set.pairs[:limit], load):
        for key, predict in predictors.items():
            if key in failures:
                continue
            try:
                probability = to_size(predict(frame), *mask.pixels.shape)
            except Exception as error:  # a runtime's failure must not end the other rows
                failures[key] = error
                continue
            known = _Known.of((lineages or {}).get(key), *hashes)
            threshold = (thresholds or {}).get(key, 0.5)
            tallies[key].add(pair.name, probability, mask, threshold, known)
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
        tally.add(path.stem, grey, _Mask(mask), threshold)
        if advance is not None:
            advance()
    return tally.scores()


def data_fingerprint(image_set: ImageSet, limit: int | None = None) -> str:
    """SHA-256 over the names and contents of the images and masks that a score was computed on.

    Two results are comparable only if theirs agree.
    """
    digest = hashlib.sha256()
    for pair in image_set.pairs[:limit]:
        digest.update(pair.name.encode(errors="surrogateescape") + b"\0")
        for path in (pair.image, pair.mask):
            if path is not None:
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@dataclass(frozen=True)
class _Known:
    """What a model's lineage says of one image; see `ImageScore`."""

    trained_on: bool | None = None
    near_duplicate: bool = False

    @classmethod
    def of(cls, lineage: Lineage | None, digest: str, file_hash: str) -> "_Known":
        """Look up a `pixel_digest` and a `hash_pair`; nothing is known without a lineage."""
        if not lineage:
            return cls()
        near = any(part.salted(digest) in part.near_duplicates for part in lineage.parts)
        return cls(lineage.side(digest, file_hash) == "train", near)


class _Mask:
    """A mask, and what all predictors that are scored on it share."""

    def __init__(self, pixels: NDArray[np.bool_]) -> None:
        self.pixels = pixels
        self.fraction = float(np.count_nonzero(pixels)) / pixels.size

    @functools.cached_property
    def geometry(self) -> MaskGeometry:
        return MaskGeometry(self.pixels)


class _Tally:
    """Collects the rows of one predictor under each protocol."""

    def __init__(self, dataset: str, protocols: Sequence[Protocol]) -> None:
        self.dataset = dataset
        self.rows: dict[Protocol, list[ImageScore]] = {protocol: [] for protocol in protocols}
        self.curves: list[NDArray[np.float64]] = []
        self.polyp_free = 0

    def add(
        self,
        name: str,
        probability: NDArray[Any],
        mask: _Mask,
        threshold: float,
        known: _Known = _Known(),
    ) -> None:
        def scored(values: dict[str, float | None]) -> ImageScore:
            return ImageScore(name, values, mask.fraction, known.trained_on, known.near_duplicate)

        if "deploy" in self.rows:
            values = deploy.score(probability, mask.pixels, threshold)
            self.rows["deploy"].append(scored(values))
        if not mask.fraction:
            self.polyp_free += 1
        elif "paper" in self.rows:
            result = paper.measure(probability, mask.pixels, mask.geometry)
            self.rows["paper"].append(scored(dict(result.values)))
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
    image_size(path)  # refuses what is no image, several pictures, a huge one
    grey = cv2.imdecode(np.frombuffer(path.read_bytes() or b"\0", np.uint8), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise UserError(f"{path} cannot be read as an image; write the map again")
    return np.asarray(grey, dtype=np.uint8)
