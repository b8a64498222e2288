"""A small network that has really learnt to find polyps in drawn scenes, in some seconds.

Agreement of runtimes on random weights says little: their probabilities hover about 0.5, where any
rounding flips the mask. So the tests train, on purpose.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from once_per_run import one_at_a_time
from torch import Tensor

from kdas_edge.data.layout import read_pair, resize_image, resize_mask, training_set
from kdas_edge.data.synthetic import scene
from kdas_edge.models.architecture import Architecture, FullSize, SegmentationNetwork
from kdas_edge.models.checkpoints import load_network, save_network
from kdas_edge.models.inputs import normalise
from kdas_edge.models.zoo import build
from kdas_edge.recipe import ModelRecipe

SIZE = 64

# Names the folder where the processes of one test run share what they trained; set by conftest.py.
SHARED = "KDAS_EDGE_TEST_STUDENTS"


@dataclass
class TinyStudent:
    """A trained network and the frames that it has learnt, (S, S, 3) uint8 RGB each."""

    network: SegmentationNetwork
    frames: list[np.ndarray]

    @property
    def architecture(self) -> Architecture:
        """Of the network."""
        return self.network.architecture

    def inputs(self, frames: list[np.ndarray]) -> list[Tensor]:
        """Normalised tensors (1, 3, S, S)."""
        stack = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255
        return list(normalise(stack, self.architecture).split(1))

    def save(self, path: Path) -> Path:
        """Write a checkpoint."""
        save_network(path, self.network.state_dict(), self.architecture)
        return path


def train_tiny_student(
    backbone: str = "test_efficientnet", steps: int = 200, seed: int = 0, root: Path | None = None
) -> TinyStudent:
    """Train Polyp-PVT of width 8 at 64 pixels by heart.

    Args:
        backbone: a timm name.
        steps: of eight images each; with the default 200 the masks are right where they matter.
        seed: of weights and order.
        root: a data set to learn, training and validation side alike; drawn scenes by default.
    """
    pairs = _drawn() if root is None else _read(root)
    if SHARED not in os.environ:
        return _train(backbone, steps, seed, pairs)
    content = hashlib.sha256(b"".join(part.tobytes() for pair in pairs for part in pair))
    folder = Path(os.environ[SHARED])
    folder.mkdir(exist_ok=True)
    path = folder / f"{backbone}-{steps}-{seed}-{content.hexdigest()[:16]}.safetensors"
    with one_at_a_time(path):
        if not path.exists():
            _train(backbone, steps, seed, pairs).save(path)
    return TinyStudent(load_network(path), [image for image, _ in pairs])


def _train(
    backbone: str, steps: int, seed: int, pairs: list[tuple[np.ndarray, np.ndarray]]
) -> TinyStudent:
    torch.manual_seed(seed)
    network = build(ModelRecipe(backbone=backbone, width=8), SIZE)
    student = TinyStudent(network, [image for image, _ in pairs])
    images = torch.cat(student.inputs(student.frames))
    masks = torch.from_numpy(np.stack([mask for _, mask in pairs]))[:, None].float()
    optimizer = torch.optim.AdamW(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, steps + 1)
    full_size = FullSize(network)
    network.train()
    for _ in range(steps):
        chosen = torch.randint(0, len(images), (8,))
        loss = torch.zeros(())
        for logits in full_size(images[chosen]):
            truth, found = masks[chosen], logits.sigmoid()
            overlap = 2 * (truth * found).sum() / (truth.sum() + found.sum() + 1)
            loss = loss + F.binary_cross_entropy_with_logits(logits, truth) + 1 - overlap
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()
    with torch.no_grad():
        z1, z2 = full_size(images)
    found, truth = z1 + z2 > 0, masks > 0
    dice = 2 * (found & truth).sum() / (found.sum() + truth.sum())
    assert steps < 100 or dice > 0.3, f"the tiny student has learnt nothing (Dice {dice:.2f})"
    return student


def _drawn() -> list[tuple[np.ndarray, np.ndarray]]:
    return [scene(index, SIZE, polyp=index % 8 != 7) for index in range(24)]


def _read(root: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    pairs = [read_pair(pair) for pair in training_set(root).pairs]
    return [
        (resize_image(image, SIZE, SIZE), resize_mask(mask, SIZE, SIZE)) for image, mask in pairs
    ]
