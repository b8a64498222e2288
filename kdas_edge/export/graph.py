"""The deployed graph: a normalised image in, probabilities of background and polyp out."""

import torch
from torch import Tensor, nn

from kdas_edge.models.polyp_pvt import PolypPVT, upsampling_matrix


class DeployGraph(nn.Module):
    """Turn a network's two logit maps, at their own size, into the bundle's two-channel output.

    With two channels an arg-max gives the mask, which is what DL Streamer, OpenVINO Model API and
    Holoscan all do. The network may be a float one or an NNCF-quantised one.

    The two maps are added before they are enlarged, which changes nothing, as enlarging is linear;
    it is done by two matrix products, and the channels are σ(-z) and σ(z) instead of 1 - σ(z) and
    σ(z). At 352 px these are a sixth of the whole time of mobilenetv2_100: OpenVINO's `Interpolate`
    takes 1.9 ms a map and its concatenation at full size 1 ms; the products take 0.3 ms.

    Args:
        network: maps (B, 3, S, S) float32, normalised, to logits `(z1, z2)`.
    """

    up: Tensor
    down: Tensor
    signs: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        assert isinstance(network, PolypPVT)
        self.network = network
        like = network.head1.weight
        size, stride = network.architecture.size, network.architecture.stride
        up = upsampling_matrix(size // stride, stride).to(like)
        self.register_buffer("up", up, persistent=False)
        self.register_buffer("down", up.t().contiguous(), persistent=False)
        self.register_buffer("signs", like.new_tensor([[-1.0], [1.0]])[..., None], persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return probabilities (B, 2, S, S) float32, channels background and polyp."""
        z1, z2 = self.network(image)  # (B, 1, S/8, S/8), or S/4
        logits = (z1 + z2) * self.signs
        # three axes: with four, OpenVINO pads two channels to a block of sixteen
        full = self.up @ logits.flatten(0, 1) @ self.down
        probabilities = torch.sigmoid(full)
        return probabilities.reshape(-1, 2, *probabilities.shape[-2:])
