"""The order of an epoch when sources and polyp-free frames have stated shares of a batch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kdas_edge.data.resident import ResidentSet

_CHUNK = 256


@dataclass(frozen=True)
class Origin:
    """Where images come from, and what they are to fill of a batch.

    Attributes:
        sources: name of an image to the number of its source; frames without masks have none.
        centres: name of an image to its centre.
        shares: number of a source to its share of the frames with a polyp, where it is stated.
        polyp_free: share of polyp-free samples, of every centre that has such, by the square root
            of their number: few frames are not repeated as often as many would be; None as they
            come.
    """

    sources: Mapping[str, int] = field(default_factory=dict)
    centres: Mapping[str, str] = field(default_factory=dict)
    shares: Mapping[int, float] = field(default_factory=dict)
    polyp_free: float | None = None


class Sampler:
    """Orders the images of a training set.

    Without stated shares each image comes once before any comes again. With them every run of
    positions, and so every batch, holds each stratum in its share, to one sample. A stratum is the
    images with a polyp of one source, or the polyp-free ones of one centre. Frames without masks
    are a stratum of their own.

    Args:
        train: the training set.
        origin: of its images.
    """

    def __init__(self, train: ResidentSet, origin: Origin) -> None:
        sources, centres = origin.sources, origin.centres
        shares, polyp_free = origin.shares, origin.polyp_free
        self.count = len(train)
        self.strata: list[Tensor] = []
        self.weights: list[float] = []
        if not shares and polyp_free is None:
            return
        empty = (train.labelled.cpu() & ~_with_polyp(train)).tolist()
        members: dict[tuple[str, str], list[int]] = {}
        for index, name in enumerate(train.names):
            if empty[index] and polyp_free is not None:
                key = ("polyp-free", centres.get(name, ""))
            else:
                key = ("source", str(sources.get(name, -1)))
            members.setdefault(key, []).append(index)
        free = [key for key in members if key[0] == "polyp-free"]
        roots = sum(math.sqrt(len(members[key])) for key in free)
        kept = 1 - (polyp_free or 0.0) if free else 1.0
        open_ = {key: len(members[key]) for key in members if key[0] == "source"}
        stated = {key: shares[int(key[1])] for key in open_ if int(key[1]) in shares}
        rest = max(0.0, 1 - sum(stated.values()))
        unstated = sum(size for key, size in open_.items() if key not in stated)
        for key, own in members.items():
            self.strata.append(torch.tensor(own))
            if key in free:
                self.weights.append((1 - kept) * math.sqrt(len(own)) / roots)
            elif key in stated:
                self.weights.append(kept * stated[key])
            else:
                self.weights.append(kept * rest * open_[key] / unstated)
        total = sum(self.weights)
        self.weights = [weight / total for weight in self.weights]

    def order(self, length: int, seed: int) -> Tensor:
        """Return `length` indices, (length,) int64; a function of the seed alone."""
        if not self.strata:
            return epoch_order(self.count, length, seed)
        places = _spread(self.weights, length)
        order = torch.empty(length, dtype=torch.int64)
        for number, own in enumerate(self.strata):
            mine = (places == number).nonzero()[:, 0]
            order[mine] = own[epoch_order(len(own), len(mine), seed + number)]
        return order


def epoch_order(images: int, length: int, seed: int) -> Tensor:
    """Shuffle an epoch: `length` indices, each image once before any comes again."""
    generator = torch.Generator().manual_seed(seed)
    rounds = [torch.randperm(images, generator=generator) for _ in range(-(-length // images))]
    return torch.cat([torch.empty(0, dtype=torch.int64), *rounds])[:length]


def _spread(weights: Sequence[float], length: int) -> Tensor:
    """The stratum of each place: always the one that lags furthest behind its share."""
    counts = [0.0] * len(weights)
    places = []
    for place in range(1, length + 1):
        lags = [weight * place - count for weight, count in zip(weights, counts, strict=True)]
        chosen = max(range(len(weights)), key=lags.__getitem__)
        counts[chosen] += 1
        places.append(chosen)
    return torch.tensor(places, dtype=torch.int64)


def _with_polyp(train: ResidentSet) -> Tensor:
    """(N,) bool on the CPU: whether a mask has a pixel; read in parts, masks may be mapped."""
    parts = [(part > 0).flatten(1).any(dim=1) for part in train.masks.split(_CHUNK)]
    return torch.cat(parts).cpu()
