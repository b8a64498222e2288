"""A network on resident images: Dice in the deploy protocol, masks, overlays."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from kdas_edge.data.resident import ResidentSet
from kdas_edge.files import write_bytes_atomic
from kdas_edge.models.architecture import FullSize, SegmentationNetwork
from kdas_edge.models.inputs import network_input, resized
from kdas_edge.overlay import GROUND_TRUTH, PREDICTION, draw_contours


def outputs_in_batches(
    network: SegmentationNetwork,
    images: Tensor,
    masks: Tensor,
    size: int,
    batch: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Run a network in evaluation mode over resident images; it is left in the mode it was in.

    Yields:
        z₁ + z₂ as (b, 1, size, size) float32 at least, and the truth as bool, b ≤ `batch` images
        at a time. The other arguments are those of `validate`.
    """
    was_training = network.training
    network.eval()
    full_size = FullSize(network)
    # images of a mapped set lie on the CPU
    device = next((weight.device for weight in network.parameters()), images.device)
    for start in range(0, len(images), batch):
        x = images[start : start + batch].to(device).float() / 255
        truth = resized(masks[start : start + batch].to(device).float(), size) > 0.5
        z1, z2 = full_size(network_input(x, size, network.architecture))
        yield z1.float() + z2.float(), truth
    network.train(was_training)


def mask_dice(one: Tensor, other: Tensor) -> Tensor:
    """Dice of each of N pairs of masks, (N, …) bool: (N,) float64, 1 where both are empty."""
    overlap = (one & other).flatten(1).sum(1).double()
    both = one.flatten(1).sum(1).double() + other.flatten(1).sum(1).double()
    return torch.where(both == 0, 1.0, 2 * overlap / both.clamp(min=1))


@torch.no_grad()
def validate(
    network: SegmentationNetwork,
    images: Tensor,
    masks: Tensor,
    size: int,
    batch: int = 8,
    threshold: float = 0.5,
) -> tuple[np.ndarray, np.ndarray]:
    """Score a network on resident images at its own size, deploy protocol.

    Args:
        network: returns two logit maps of any size.
        images: (N, 3, S, S) uint8.
        masks: (N, 1, S, S) uint8, 0 or 1.
        size: the network's input size; the images are resized to it if they are larger.
        batch: images at a time.
        threshold: polyp where σ(z₁ + z₂) is above it.

    Returns:
        Dice of each image (N,), 1 where prediction and truth are both empty, and the predicted
        masks (N, size, size) bool.
    """
    scores, predictions = [], []
    for logits, truth in outputs_in_batches(network, images, masks, size, batch):
        predicted = torch.sigmoid(logits) > threshold
        scores.append(mask_dice(predicted, truth).cpu())
        predictions.append(predicted[:, 0].cpu())
    return torch.cat(scores).numpy(), torch.cat(predictions).numpy()


def write_overlays(path: Path, data: ResidentSet, masks: np.ndarray, count: int = 12) -> None:
    """Write a contact sheet: ground truth yellow, prediction blue, images spread over the set."""
    chosen = np.linspace(0, len(masks) - 1, min(count, len(masks))).round().astype(int)
    tiles = []
    for index in chosen:
        image = data.images[int(index)].cpu().permute(1, 2, 0).numpy()
        truth = data.masks[int(index), 0].cpu().numpy() > 0
        predicted = masks[index]
        if predicted.shape != truth.shape:
            predicted = cv2.resize(
                predicted.astype(np.uint8), truth.shape[::-1], interpolation=cv2.INTER_NEAREST
            ).astype(bool)
        tiles.append(
            draw_contours(draw_contours(image, truth, GROUND_TRUTH, 2), predicted, PREDICTION, 2)
        )
    while len(tiles) % 4:
        tiles.append(np.zeros_like(tiles[0]))
    rows = [np.concatenate(tiles[i : i + 4], axis=1) for i in range(0, len(tiles), 4)]
    sheet = cv2.cvtColor(np.concatenate(rows, axis=0), cv2.COLOR_RGB2BGR)
    write_bytes_atomic(path, cv2.imencode(".png", sheet)[1].tobytes())
