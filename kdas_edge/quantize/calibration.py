"""Choosing the frames that the quantiser sees: from the training split, never from a test set."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdas_edge.data.dataset import ResidentSet, TrainingData
from kdas_edge.data.layout import list_images, read_image, resize_image
from kdas_edge.distill.engine import normalise, resized
from kdas_edge.models.zoo import Architecture
from kdas_edge.recipe import CalibrationRecipe


@dataclass(frozen=True)
class CalibrationSet:
    """Calibration frames.

    Attributes:
        images: (N, 3, S, S) uint8 RGB.
        names: N stems, as evidence of what was seen.
    """

    images: Tensor
    names: tuple[str, ...]

    def samples(self, architecture: Architecture) -> list[Tensor]:
        """Return N normalised float32 tensors (1, 3, S, S): NNCF traces a batch of one."""
        samples = []
        for image in self.images:
            x = resized(image[None].float() / 255, architecture.size)
            samples.append(normalise(x, architecture))
        return samples


def calibration_set(
    data: TrainingData, recipe: CalibrationRecipe, size: int, seed: int = 0
) -> CalibrationSet:
    """Choose calibration frames.

    They are spread evenly over the sorted names, with a seeded start: neighbours in a folder are
    often frames of one video, so that even spacing covers more scenes than random picks.

    Args:
        data: its training split is the source unless `recipe.source` names a folder.
        recipe: number of frames and source.
        size: side S of frames read from a folder, in pixels.
        seed: of the start.

    Raises:
        UserError: the folder is absent or empty, or a frame is unreadable.
    """
    if recipe.source is None:
        return _from_split(data.train, recipe.samples, seed)
    files = list_images(Path(recipe.source))
    chosen = [files[index] for index in spread(len(files), recipe.samples, seed)]
    frames = [resize_image(read_image(path), size, size).transpose(2, 0, 1) for path in chosen]
    return CalibrationSet(
        torch.from_numpy(np.ascontiguousarray(np.stack(frames))),
        tuple(path.stem for path in chosen),
    )


def spread(total: int, count: int, seed: int) -> list[int]:
    """Return at most `count` indices of 0…total-1, evenly spaced from a seeded start, sorted."""
    if count >= total:
        return list(range(total))
    start = np.random.default_rng(seed).random()
    return [int((start + index) * total / count) for index in range(count)]


def _from_split(train: ResidentSet, count: int, seed: int) -> CalibrationSet:
    chosen = spread(len(train), count, seed)
    return CalibrationSet(train.images[chosen].cpu(), tuple(train.names[i] for i in chosen))
