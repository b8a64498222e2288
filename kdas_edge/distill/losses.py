"""Segmentation losses: what a supervision output costs against the mask.

All of them take logits, so that the logarithms stay finite, and compute in float32 at least.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Reduction = Literal["mean", "none"]

# Added to numerator and denominator of an overlap, so that an empty mask costs no 0/0.
_SMOOTH = 1.0


def bce_dice(logits: Tensor, mask: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Binary cross-entropy plus soft Dice (KDAS, equation 7, of one supervision output).

    The paper does not say how either is averaged. Here: the cross-entropy is the mean over the
    pixels of an image, the Dice loss is one per image, 1 - (2 Σpg + 1) / (Σp + Σg + 1), so that a
    small polyp counts as much as a large one; both then averaged over the batch.

    Args:
        logits: (B, 1, H, W).
        mask: (B, 1, H, W) in 0…1; probabilities are allowed.
        reduction: "mean" over the images, or "none".

    Returns:
        A scalar, or (B,) per image.
    """
    logits, mask = full_precision(logits), full_precision(mask)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    probability = torch.sigmoid(logits)
    overlap = _per_image(probability * mask)
    dice = (2 * overlap + _SMOOTH) / (_per_image(probability) + _per_image(mask) + _SMOOTH)
    return _reduce(cross_entropy.flatten(1).mean(1) + 1 - dice, reduction)


def border_weight(mask: Tensor) -> Tensor:
    """Weight of each pixel in `structure_loss`: up to six at a border, one far from it.

    It is 1 + 5 |mean of the mask in 31 × 31 around the pixel - its own mask|.

    Args:
        mask: (B, 1, H, W) in 0…1.

    Returns:
        (B, 1, H, W) in 1…6, in float32 at least.
    """
    mask = full_precision(mask)
    return 1 + 5 * (_mean_around(mask) - mask).abs()


def structure_loss(
    logits: Tensor,
    mask: Tensor,
    reduction: Reduction = "mean",
    weighted_bce: bool = True,
    weight: Tensor | None = None,
) -> Tensor:
    """Weighted cross-entropy plus weighted IoU (PraNet, arXiv 2006.11392, section 2.3).

    Args:
        logits: (B, 1, H, W).
        mask: (B, 1, H, W) in 0…1.
        reduction: "mean" over the images, or "none".
        weighted_bce: False reproduces the released PraNet, Polyp-PVT and KDAS code, where
            `reduce="none"` averages the cross-entropy over the batch before it is weighted, so
            that the weights cancel.
        weight: `border_weight` of the mask, if it is at hand: two outputs share it.

    Returns:
        A scalar, or (B,) per image.
    """
    logits, mask = full_precision(logits), full_precision(mask)
    weight = border_weight(mask) if weight is None else weight
    cross_entropy = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    if weighted_bce:
        bce = _per_image(weight * cross_entropy) / _per_image(weight)
    else:
        bce = cross_entropy.flatten(1).mean(1)
    probability = torch.sigmoid(logits)
    overlap = _per_image(weight * probability * mask)
    union = _per_image(weight * (probability + mask)) - overlap
    iou = (overlap + _SMOOTH) / (union + _SMOOTH)
    return _reduce(bce + 1 - iou, reduction)


def _mean_around(mask: Tensor) -> Tensor:
    """Mean of 31 × 31 around each pixel, 0 outside: rows, then columns; 62 reads, not 961."""
    rows = F.avg_pool2d(mask, (1, 31), stride=1, padding=(0, 15))
    return F.avg_pool2d(rows, (31, 1), stride=1, padding=(15, 0))


def full_precision(x: Tensor) -> Tensor:
    """Return half-precision tensors as float32; float32 and float64 as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _per_image(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1)


def _reduce(per_image: Tensor, reduction: Reduction) -> Tensor:
    return per_image.mean() if reduction == "mean" else per_image
