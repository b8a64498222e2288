"""The deploy form of a network: the same function, arranged for 8-bit arithmetic.

NNCF and OpenVINO keep a chain of convolutions in int8 from end to end, but not one that changes
between tokens and maps: a transformer's linear layers work on tokens (B, N, C), the depthwise
convolution between them on a map (B, C, H, W), and the transposes in between leave it in float.
Here the linear layers of PVTv2's feed-forward networks are 1×1 convolutions, and tokens become maps
by a view of channels-last memory. Every value stays the same up to the order of summation. A
`pvt_v2_b0` in int8 at 352 px takes 21 ms so, 30 ms otherwise (OpenVINO, one thread, one machine).

Networks without such blocks are returned as they are.
"""

import copy
from typing import TypeVar

from timm.models.pvt_v2 import Attention, MlpWithDepthwiseConv
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

_Network = TypeVar("_Network", bound=nn.Module)


def deploy_form(network: _Network) -> _Network:
    """Return a copy of a float network in which PVTv2's blocks are arranged for int8.

    Args:
        network: in any mode, with any weights; it is not changed. A network that is in deploy
            form already comes back as a copy.

    Returns:
        A trainable network with the same outputs. Its state dict has the same keys; the weights
        of the feed-forward layers are (O, I, 1, 1) instead of (O, I).
    """
    network = copy.deepcopy(network)
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, MlpWithDepthwiseConv):
                setattr(module, name, ConvolutionalMlp(child))
            elif isinstance(child, Attention) and child.pool is None:
                setattr(module, name, MapAttention(child))
    return network


class ConvolutionalMlp(nn.Module):
    """PVTv2's feed-forward network with 1×1 convolutions for its linear layers.

    Args:
        mlp: timm's; its weights are copied, its other parts shared.
    """

    def __init__(self, mlp: MlpWithDepthwiseConv) -> None:
        super().__init__()
        self.fc1 = _convolution(mlp.fc1)
        self.relu = mlp.relu
        self.dwconv = mlp.dwconv
        self.act = mlp.act
        self.fc2 = _convolution(mlp.fc2)
        self.drop = mlp.drop
        self.train(mlp.training)

    def forward(self, x: Tensor, feat_size: list[int]) -> Tensor:
        """Map tokens (B, H·W, C) to tokens (B, H·W, C)."""
        x = self.act(self.dwconv(self.relu(self.fc1(_as_map(x, feat_size)))))
        return _as_tokens(self.drop(self.fc2(self.drop(x))))


class MapAttention(nn.Module):
    """PVTv2's spatial-reduction attention, without transposes around its convolution.

    Args:
        attention: timm's, not the linear variant; its parts are shared.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads, self.head_dim = attention.num_heads, attention.head_dim
        self.dropout = attention.attn_drop.p
        self.q, self.kv, self.proj = attention.q, attention.kv, attention.proj
        self.sr, self.norm = attention.sr, attention.norm
        self.proj_drop = attention.proj_drop
        self.train(attention.training)

    def forward(self, x: Tensor, feat_size: list[int]) -> Tensor:
        """Map tokens (B, H·W, C) to tokens (B, H·W, C)."""
        tokens, channels = x.shape[1:]
        q = self.q(x).reshape(-1, tokens, self.heads, self.head_dim).transpose(1, 2)
        if self.sr is not None:
            x = self.norm(_as_tokens(self.sr(_as_map(x, feat_size))))
        pairs = self.kv(x).reshape(-1, x.shape[1], 2, self.heads, self.head_dim)
        k, v = pairs.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, M, head_dim) each
        dropout = self.dropout if self.training else 0.0
        x = scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        x = x.transpose(1, 2).reshape(-1, tokens, channels)
        return self.proj_drop(self.proj(x))


def _convolution(linear: nn.Linear) -> nn.Conv2d:
    convolution = nn.Conv2d(
        linear.in_features, linear.out_features, 1, bias=linear.bias is not None
    ).to(linear.weight)
    state = linear.state_dict()
    convolution.load_state_dict({**state, "weight": state["weight"][..., None, None]})
    return convolution


def _as_map(x: Tensor, feat_size: list[int]) -> Tensor:
    return x.reshape(-1, feat_size[0], feat_size[1], x.shape[-1]).permute(0, 3, 1, 2)


def _as_tokens(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).flatten(1, 2)
