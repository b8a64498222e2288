"""Distillation of features: similarities within the encoder's maps, and the decoder's inputs.

Student and teacher have other numbers of channels. Similarities between places need no layer that
translates one into the other: [1], section 3.1, "pair-wise distillation". The decoder's inputs
have the same channels in both, and mean the same to a student that began with the teacher's
decoder: [2], where only what comes before the reused part is trained.

[1] Liu et al., "Structured Knowledge Distillation for Semantic Segmentation", CVPR 2019,
    arXiv 1903.04197.
[2] Chen et al., "Knowledge Distillation with the Reused Teacher Classifier" (SimKD), CVPR 2022,
    arXiv 2203.14001.
"""

from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdas_edge.distill.losses import full_precision
from kdas_edge.models.architecture import SegmentationNetwork

# Places per side that are compared: 144 of an image, as a pair costs for each two of them.
_PLACES = 12


def similarities(features: Tensor) -> Tensor:
    """Cosine of the angle between the features of each two places of an image.

    Args:
        features: (B, C, h, w).

    Returns:
        (B, h·w, h·w) in -1…1, in float32 at least.
    """
    unit = F.normalize(full_precision(features).flatten(2), dim=1)  # (B, C, h·w)
    with torch.autocast(unit.device.type, enabled=False):
        return unit.transpose(1, 2) @ unit


def pairwise_loss(students: Sequence[Tensor], teachers: Sequence[Tensor]) -> Tensor:
    """Mean squared difference of the similarities, averaged over the levels ([1], equation 2).

    Args:
        students: maps of the student's encoder, (B, C_i, h_i, w_i) each; the first is left out:
            it is of edges and colours, and has the most places.
        teachers: the teacher's of the same levels; channels and sizes may be others. Both are
            averaged to a grid that neither is smaller than.

    Returns:
        A scalar of 0…4; 0 if the same places are alike to both.
    """
    terms = []
    for own, theirs in zip(students[1:], teachers[1:], strict=True):
        side = min(_PLACES, *own.shape[-2:], *theirs.shape[-2:])
        mine, wanted = (
            similarities(F.adaptive_avg_pool2d(full_precision(x), side))
            for x in (own, theirs.detach())
        )
        terms.append(F.mse_loss(mine, wanted))
    return torch.stack(terms).mean()


def decoder_inputs_loss(students: Sequence[Tensor], teachers: Sequence[Tensor]) -> Tensor:
    """Mean squared difference of the decoders' inputs, averaged over the levels ([2], equation 3).

    These were normalised, so that a level counts about as much as another. With the teacher's
    decoder (`model.init_decoder_from`) a student for which it is 0 is the teacher.

    Args:
        students: inputs of the student's decoder, (B, C, h_i, w_i) each.
        teachers: the teacher's, of the same channels; other sizes are resized to the student's.

    Returns:
        A scalar, at least 0; about 1 for a student that knows the means of the channels alone.
    """
    terms = []
    for own, theirs in zip(students, teachers, strict=True):
        wanted = full_precision(theirs.detach())
        if wanted.shape[-2:] != own.shape[-2:]:
            wanted = F.interpolate(wanted, own.shape[-2:], mode="bilinear", antialias=True)
        terms.append(F.mse_loss(full_precision(own), wanted))
    return torch.stack(terms).mean()


class FeatureHook(SegmentationNetwork):
    """A network that returns, beside its outputs, what some of its layers returned.

    Args:
        network: its weights are shared, not copied.
        layers: within it; each returns a map, or several.
    """

    def __init__(self, network: SegmentationNetwork, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.network, self.architecture = network, network.architecture
        self._layers = tuple(layers)

    def forward(self, x: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
        """Map (B, 3, H, W) to (z1, z2) and the maps of the layers, in their order."""
        if not self._layers:
            return self.network(x), ()
        maps: list[tuple[Tensor, ...]] = [()] * len(self._layers)

        def keep(index: int, layer: nn.Module, inputs: Any, outputs: Any) -> None:
            maps[index] = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)

        hooks = [
            layer.register_forward_hook(partial(keep, index))
            for index, layer in enumerate(self._layers)
        ]
        try:
            outputs = self.network(x)
        finally:
            for hook in hooks:
                hook.remove()
        return outputs, tuple(chain.from_iterable(maps))


def feature_layers(network: nn.Module, compares: str | None) -> tuple[nn.Module, ...]:
    """The layers of a Polyp-PVT that a loss compares.

    Args:
        network: a Polyp-PVT.
        compares: "encoder", its maps; "decoder_inputs", what the decoder makes of them; None.
    """
    wanted: Any = network
    if compares is None:
        return ()
    if compares == "encoder":
        return (wanted.backbone,)
    return wanted.translate1, wanted.translate2, wanted.translate3, wanted.translate4
