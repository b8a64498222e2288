"""Polyp-PVT: an encoder with four levels, and the decoder CFM + CIM + SAM (Dong et al. [1]).

    level 4, 3, 2 ──▶ CFM (cascaded fusion) ───────────┬──▶ z1
                                                       ▼
    level 1 ──▶ CIM (camouflage identification) ──▶ SAM (similarity aggregation) ──▶ z2

The decoder runs at 1/8 of the image, as published. With stride 4, which is ours, z2 is made at 1/4
from SAM's map and level 1 (`Refinement`), as small polyps have little outline on a coarser grid.
Both outputs are logits at their own size, which `FullSize` enlarges to the image's; the prediction
of a finished network is sigmoid(z1 + z2).

Written for training and for export alike: `forward` builds no tensor from a constant (NNCF cannot
trace that; constants are buffers) and pools by a matrix product at the size the network is made
for (the ONNX exporter cannot express a 44 → 6 adaptive pooling).

[1] Dong et al., "Polyp-PVT: Polyp Segmentation with Pyramid Vision Transformers", arXiv 2108.06932.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdas_edge.models.architecture import FINE_STRIDE, STRIDE, Architecture, SegmentationNetwork

# SAM averages the map in 6 × 6 cells and keeps the inner 4 × 4 as anchors, as published.
_CELLS = 6
_ANCHORS = 4


class PolypPVT(SegmentationNetwork):
    """Polyp-PVT on any encoder with feature maps at strides 4, 8, 16 and 32.

    Args:
        backbone: maps (B, 3, H, W) to four maps (B, C_i, H/s, W/s), s = 4, 8, 16, 32.
        channels: C_1 … C_4.
        architecture: its width is that of the decoder, 32 as published. Other sizes than its own
            work, with the pooling of SAM done by `adaptive_avg_pool2d`; tracing and export need
            its size. Its stride is 8 as published, or 4.
    """

    def __init__(
        self, backbone: nn.Module, channels: Sequence[int], architecture: Architecture
    ) -> None:
        super().__init__()
        width = architecture.width
        self.architecture = architecture
        self.backbone = backbone
        self.cim = CamouflageIdentification(channels[0])
        self.translate1 = ConvNorm(channels[0], width, 1)
        self.translate2 = ConvNorm(channels[1], width, 1)
        self.translate3 = ConvNorm(channels[2], width, 1)
        self.translate4 = ConvNorm(channels[3], width, 1)
        self.cfm = CascadedFusion(width)
        self.sam = SimilarityAggregation(width, architecture.size // STRIDE)
        self.head1 = nn.Conv2d(width, 1, 1)
        self.head2 = nn.Conv2d(width, 1, 1)
        self.refine = Refinement(width) if architecture.stride == FINE_STRIDE else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Segment a batch.

        Args:
            x: (B, 3, H, W) RGB, normalised with the mean and std of its `Architecture`; H and W
                multiples of 32.

        Returns:
            The supervision outputs z1 (from CFM) and z2 (from SAM), logits, (B, 1, H/s, W/s) each,
            s being the stride.
        """
        level1, level2, level3, level4 = self.backbone(x)  # (B, C_i, H/4 … H/32, …)

        fused = self.cfm(
            self.translate4(level4), self.translate3(level3), self.translate2(level2)
        )  # (B, width, H/8, W/8)

        detail = self.translate1(self.cim(level1))  # (B, width, H/4, W/4)
        halved = F.interpolate(detail, scale_factor=0.5, mode="bilinear", align_corners=True)
        aggregated = self.sam(fused, halved)  # (B, width, H/8, W/8)

        z1 = self.head1(fused)  # (B, 1, H/8, W/8)
        if self.refine is not None:
            aggregated = self.refine(aggregated, detail)  # (B, width, H/4, W/4)
            z1 = F.interpolate(z1, scale_factor=STRIDE // FINE_STRIDE, mode="bilinear")
        return z1, self.head2(aggregated)


class ConvNorm(nn.Module):
    """Convolution without bias, then batch normalisation; no activation, as published."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H, W)."""
        return self.bn(self.conv(x))


class CascadedFusion(nn.Module):
    """CFM: fuses the three deep levels, coarse to fine, by products and concatenation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate43 = ConvNorm(width, width, 3)
        self.gate42 = ConvNorm(width, width, 3)
        self.gate32 = ConvNorm(width, width, 3)
        self.carry4 = ConvNorm(width, width, 3)
        self.carry34 = ConvNorm(2 * width, 2 * width, 3)
        self.join34 = ConvNorm(2 * width, 2 * width, 3)
        self.join234 = ConvNorm(3 * width, 3 * width, 3)
        self.out = ConvNorm(3 * width, width, 3)

    def forward(self, level4: Tensor, level3: Tensor, level2: Tensor) -> Tensor:
        """Fuse (B, width, h/4, w/4), (B, width, h/2, w/2) and (B, width, h, w) to the last."""
        up4 = _double(level4)  # (B, width, h/2, w/2)
        mixed3 = self.gate43(up4) * level3
        # twice a doubling, not once a fourfold: with aligned corners the two differ
        mixed2 = self.gate42(_double(up4)) * self.gate32(_double(level3)) * level2

        joined = self.join34(torch.cat((mixed3, self.carry4(up4)), 1))  # (B, 2·width, h/2, w/2)
        joined = self.join234(torch.cat((mixed2, self.carry34(_double(joined))), 1))
        return self.out(joined)


class CamouflageIdentification(nn.Module):
    """CIM: channel attention, then spatial attention, on the level with the finest detail.

    Args:
        channels: of the level; the bottleneck has a sixteenth of them, at least one.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // 16)
        self.squeeze = nn.Conv2d(channels, hidden, 1, bias=False)
        self.excite = nn.Conv2d(hidden, channels, 1, bias=False)
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Weight (B, C, H/4, W/4) by channel, then by place; the shape stays."""
        mean = self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1))))
        peak = self.excite(F.relu(self.squeeze(F.adaptive_max_pool2d(x, 1))))
        x = torch.sigmoid(mean + peak) * x

        place = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1)
        return torch.sigmoid(self.spatial(place)) * x


class SimilarityAggregation(nn.Module):
    """SAM: a graph convolution over 16 anchor regions, which carries detail into the deep map.

    Every pixel is assigned to the anchors by similarity; states are gathered at the anchors,
    exchanged among them, and handed back to the pixels.

    Args:
        width: channels; half of them are states.
        side: side of the map in pixels for which the pooling matrices are made.
    """

    pool_rows: Tensor
    pool_columns: Tensor

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        states = width // 2
        self.state = nn.Conv2d(width, states, 1)
        self.project = nn.Conv2d(width, states, 1)
        self.among_anchors = nn.Conv1d(_ANCHORS**2, _ANCHORS**2, 1)
        self.among_states = nn.Conv1d(states, states, 1, bias=False)
        self.extend = nn.Conv2d(states, width, 1, bias=False)
        # constants, not weights: they follow from the size and stay out of checkpoints
        pool = pooling_matrix(side)
        self.register_buffer("pool_rows", pool, persistent=False)
        self.register_buffer("pool_columns", pool.t().contiguous(), persistent=False)
        self.side = side

    def forward(self, x: Tensor, detail: Tensor) -> Tensor:
        """Aggregate `detail` into `x`; both (B, width, H/8, W/8), as is the result."""
        edge = detail.softmax(1)[:, 1:2]  # the published network reads the second channel
        states = self.state(x).flatten(2)  # (B, S, P), P = H/8 · W/8 pixels
        projected = self.project(x)
        anchors = self._anchors(projected * edge)  # (B, S, 16)

        similarity = anchors.transpose(1, 2) @ projected.flatten(2)  # (B, 16, P)
        assignment = similarity.softmax(1)
        gathered = states @ assignment.transpose(1, 2)  # (B, S, 16)

        exchanged = self.among_anchors(gathered.transpose(1, 2)).transpose(1, 2) - gathered
        exchanged = F.relu(self.among_states(exchanged))

        returned = (exchanged @ assignment).reshape(projected.shape)  # (B, S, H/8, W/8)
        return x + self.extend(returned)

    def _anchors(self, x: Tensor) -> Tensor:
        # A traced graph has the one size it is made for; a check would only make a warning.
        if torch.jit.is_tracing() or x.shape[-2:] == (self.side, self.side):
            pooled = self.pool_rows @ x @ self.pool_columns  # (B, S, 4, 4)
        else:
            pooled = F.adaptive_avg_pool2d(x, _CELLS)[..., 1:-1, 1:-1]
        return pooled.flatten(2)


class Refinement(nn.Module):
    """Draws SAM's map at twice its size, along what the finest level of the encoder sees.

    It begins as a plain enlargement, so that a network with the published stride can be gone on
    with; what it adds is learnt.

    Args:
        width: channels of both inputs and of the result.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.join = ConvNorm(2 * width, width, 3)
        self.mix = ConvNorm(width, width, 3)
        self.extend = nn.Conv2d(width, width, 1, bias=False)
        nn.init.zeros_(self.extend.weight)

    def forward(self, x: Tensor, detail: Tensor) -> Tensor:
        """Refine (B, width, h, w) with (B, width, 2·h, 2·w) to the latter's shape."""
        # pixel centres stay where they are: aligned corners would shift what is drawn beside them
        x = F.interpolate(x, scale_factor=STRIDE // FINE_STRIDE, mode="bilinear")
        outline = F.relu(self.join(torch.cat((x, detail), 1)))
        return x + self.extend(F.relu(self.mix(outline)))


def pooling_matrix(side: int) -> Tensor:
    """The inner rows of the matrix P with P x Pᵀ = adaptive_avg_pool2d(x, 6), for x side × side.

    Returns:
        (4, side) float32; each row averages one cell.
    """
    matrix = torch.zeros(_ANCHORS, side)
    for row in range(_ANCHORS):
        cell = row + 1
        start, end = cell * side // _CELLS, math.ceil((cell + 1) * side / _CELLS)
        matrix[row, start:end] = 1 / (end - start)
    return matrix


def upsampling_matrix(side: int, stride: int = STRIDE) -> Tensor:
    """The matrix U with U x Uᵀ = interpolate(x, scale_factor=stride, mode="bilinear").

    Args:
        side: of the square map x, in pixels.
        stride: how often it is enlarged.

    Returns:
        (stride · side, side) float32; each row holds the weights of two neighbours.
    """
    unit = torch.eye(side)[None]  # column j is the picture of pixel j
    return F.interpolate(unit, scale_factor=stride, mode="linear")[0].t().contiguous()


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
