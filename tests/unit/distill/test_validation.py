"""Scoring a network on resident images."""

from pathlib import Path

import numpy as np
import torch

from kdas_edge.data.dataset import load_training_data
from kdas_edge.distill.validation import validate
from kdas_edge.models.architecture import Architecture, SegmentationNetwork
from kdas_edge.recipe import DataRecipe


def test_validation_counts_an_empty_frame_left_empty_as_right(scenes: Path) -> None:
    class Silent(SegmentationNetwork):
        architecture = Architecture("none", size=64)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            z = torch.full_like(x[:, :1], -9.0)
            return z, z

    data = load_training_data(DataRecipe(root=str(scenes), size=64, validation=0)).train
    dice, masks = validate(Silent(), data.images, data.masks, 64)
    empty = ~data.masks.bool().flatten(1).any(1).numpy()
    assert empty.any() and not empty.all()
    assert np.array_equal(dice, empty.astype(float))
    assert not masks.any()
