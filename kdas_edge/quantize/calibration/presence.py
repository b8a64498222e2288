"""Polyp sizes of frames without masks, predicted by a float network."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kdas_edge.data.layout import resize_image
from kdas_edge.models.architecture import FullSize
from kdas_edge.models.checkpoints import load_network
from kdas_edge.models.inputs import normalise
from kdas_edge.quantize.calibration.candidates import PredictShare


def predict_share(run: Path) -> PredictShare:
    """Return a function that predicts the polyps of a frame with a float network.

    Args:
        run: a run or checkpoint; polyp is where σ(z₁ + z₂) is above 0.5.

    Raises:
        UserError: see `load_network`.
    """
    network = load_network(run)
    architecture, full_size = network.architecture, FullSize(network)
    size = architecture.size

    @torch.inference_mode()
    def predict(image: NDArray[np.uint8]) -> float:
        small = np.ascontiguousarray(resize_image(image, size, size).transpose(2, 0, 1))
        z1, z2 = full_size(normalise(torch.from_numpy(small)[None].float() / 255, architecture))
        return round(float((torch.sigmoid(z1 + z2) > 0.5).float().mean()), 6)

    return predict
