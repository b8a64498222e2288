"""Sensitivity of layers to int8: each quantised alone, and each left out of a quantised network.

Alone, a layer shows its own error on clean inputs. Left out, it shows what its return to float
would gain with the errors of all others present, which may cancel or amplify its own. The rank is
by the mean of both, each as a share of its sum over all layers.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdas_edge.console import progress
from kdas_edge.data.resident import ResidentSet
from kdas_edge.distill.validation import mask_dice
from kdas_edge.files import read_json, write_json
from kdas_edge.models.inputs import resized
from kdas_edge.quantize.evaluation import probability_maps
from kdas_edge.quantize.mixed import MixedNetwork

SENSITIVITY = "sensitivity.json"


@dataclass(frozen=True)
class Effect:
    """What quantising one layer does to the probability map, on a subset of the validation split.

    Attributes:
        layer: its name.
        alone: mean squared difference to the float map when only this layer is quantised.
        gain: by how much the mean squared difference of the whole int8 network shrinks when this
            layer alone returns to float; negative where that makes it worse.
        alone_dice: Dice lost when only this layer is quantised.
        gain_dice: Dice won when this layer alone returns to float.
        share: 0…1, the rank.
    """

    layer: str
    alone: float
    gain: float
    alone_dice: float
    gain_dice: float
    share: float


@dataclass(frozen=True)
class Ranking:
    """The layers, the one that hurts most first.

    Attributes:
        base: the phase of the network that was ranked, `ptq` or `qat`.
        images: stems of the validation images it was done on.
        int8_error: mean squared difference of the int8 network's maps to its float maps.
        int8_drop: Dice that the int8 network loses on these images.
        effects: one per layer, sorted.
    """

    base: str
    images: tuple[str, ...]
    int8_error: float
    int8_drop: float
    effects: tuple[Effect, ...]

    @property
    def layers(self) -> list[str]:
        """The layers' names, the one that hurts most first."""
        return [effect.layer for effect in self.effects]

    def as_json(self) -> dict[str, Any]:
        """Return the ranking as plain values."""
        return {**asdict(self), "images": list(self.images)}

    def save(self, folder: Path) -> None:
        """Write `sensitivity.json`."""
        write_json(folder / SENSITIVITY, self.as_json())


def load_ranking(folder: Path, base: str) -> Ranking | None:
    """Read the ranking that an earlier start of the run made of the same network, if it did."""
    path = folder / SENSITIVITY
    if not path.is_file():
        return None
    values = read_json(path)
    if values.get("base") != base:
        return None
    effects = tuple(Effect(**effect) for effect in values.pop("effects"))
    return Ranking(**{**values, "images": tuple(values["images"]), "effects": effects})


def rank_layers(mixed: MixedNetwork, data: ResidentSet, base: str = "ptq") -> Ranking:
    """Measure every layer of a quantised network, alone and left out.

    Takes two passes over `data` per layer. The network is all int8 afterwards.

    Args:
        mixed: the quantised network.
        data: a subset of the validation split; see `spread_images`.
        base: which network this is, for the record.
    """
    truth = resized(data.masks.float(), mixed.network.architecture.size)[:, 0].cpu() > 0.5
    layers = mixed.layers

    def measure(floated: tuple[str, ...]) -> tuple[Tensor, float]:
        mixed.set_float(floated)
        maps = probability_maps(mixed.network, data)
        return maps, float(mask_dice(maps > 0.5, truth).mean())

    with progress(2 * len(layers) + 2, "ranking layers") as advance:
        float_maps, float_dice = measure(layers)
        advance()
        maps, int8_dice = measure(())
        int8_error = _squared(maps, float_maps)
        advance()
        measured = []
        for layer in layers:
            maps, dice = measure(tuple(other for other in layers if other != layer))
            alone, alone_dice = _squared(maps, float_maps), float_dice - dice
            advance(note=layer)
            maps, dice = measure((layer,))
            gain, gain_dice = int8_error - _squared(maps, float_maps), dice - int8_dice
            advance(note=layer)
            measured.append((layer, alone, gain, alone_dice, gain_dice))
    mixed.set_float(())

    shares = (_shares([row[1] for row in measured]) + _shares([row[2] for row in measured])) / 2
    effects = [Effect(*row, float(share)) for row, share in zip(measured, shares, strict=True)]
    return Ranking(
        base=base,
        images=data.names,
        int8_error=int8_error,
        int8_drop=float_dice - int8_dice,
        effects=tuple(sorted(effects, key=lambda effect: -effect.share)),
    )


def spread_images(data: ResidentSet, count: int) -> ResidentSet:
    """At most `count` images, evenly spaced over the split's order.

    That order is by name, and neighbours are often frames of one video.
    """
    chosen = np.unique(np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int))
    index = torch.from_numpy(chosen)
    return ResidentSet(
        data.images[index],
        data.masks[index],
        data.labelled[index],
        tuple(data.names[i] for i in chosen),
    )


def _squared(maps: Tensor, reference: Tensor) -> float:
    return float((maps - reference).double().square().mean())


def _shares(values: list[float]) -> np.ndarray:
    positive = np.maximum(np.asarray(values, dtype=np.float64), 0)
    total = positive.sum()
    return positive / total if total > 0 else positive
