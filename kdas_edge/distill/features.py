"""Distillation between encoders: which places of an image look alike to the teacher.

The outputs of a segmentation network are one channel; what its encoder knows of texture and shape
is in maps of hundreds, of which a student has other numbers. Similarities between places need no
layer that translates one into the other: [1], section 3.1, "pair-wise distillation".

[1] Liu et al., "Structured Knowledge Distillation for Semantic Segmentation", CVPR 2019,
    arXiv 1903.04197.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdas_edge.distill.losses import full_precision

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
        students: maps of the student's encoder, (B, C_i, h_i, w_i) each.
        teachers: the teacher's of the same levels; channels and sizes may be others. Both are
            averaged to a grid that neither is smaller than.

    Returns:
        A scalar of 0…4; 0 if the same places are alike to both.
    """
    terms = []
    for own, theirs in zip(students, teachers, strict=True):
        side = min(_PLACES, *own.shape[-2:], *theirs.shape[-2:])
        mine, wanted = (
            similarities(F.adaptive_avg_pool2d(full_precision(x), side))
            for x in (own, theirs.detach())
        )
        terms.append(F.mse_loss(mine, wanted))
    return torch.stack(terms).mean()


class EncoderTap:
    """Holds what an encoder returned last.

    Args:
        network: its `backbone` returns maps at strides 4, 8, 16 and 32. The first is left out: it
            is of edges and colours, and has the most places.

    Attributes:
        maps: those at strides 8, 16 and 32; empty before the first pass.
    """

    def __init__(self, network: nn.Module) -> None:
        self.maps: tuple[Tensor, ...] = ()
        backbone: Any = network.backbone
        backbone.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: Any, outputs: Sequence[Tensor]) -> None:
        self.maps = tuple(outputs[1:])

    def take(self) -> tuple[Tensor, ...]:
        """Return the maps and hold them no longer, so that their graph can be freed."""
        maps, self.maps = self.maps, ()
        return maps
