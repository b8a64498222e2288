"""The graph that is deployed: one normalised image in, two probabilities per pixel out."""

import torch
from torch import Tensor, nn


class DeployGraph(nn.Module):
    """Turn a network's two logit maps into the bundle's two-channel output.

    With two channels an arg-max gives the mask, which is what DL Streamer, OpenVINO Model API and
    Holoscan all do. The network may be a float one or an NNCF-quantised one.

    Args:
        network: maps (B, 3, S, S) float32, normalised, to logits `(z1, z2)`, each (B, 1, S, S).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Return probabilities (B, 2, S, S) float32, channels background and polyp."""
        z1, z2 = self.network(image)
        polyp = torch.sigmoid(z1 + z2)
        # no tensor is built here: NNCF and the tracers want nothing but operations
        return torch.cat([1 - polyp, polyp], dim=1)
