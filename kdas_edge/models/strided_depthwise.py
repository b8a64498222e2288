"""Strided depthwise convolutions that train fast on a CPU in bfloat16.

There the backward pass of a depthwise convolution with a stride is a slow path of PyTorch's
library: more than half of all time in convolutions' backward passes of MobileNetV2. Computed with
stride 1, of which every second pixel is kept, the result and its gradients are the same. In
float32 the layer has a fast path and this form would cost a third; inference, export and GPUs
compute the layer as it is, too.
"""

import torch
import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn


class StridedDepthwise(nn.Conv2d):
    """A depthwise convolution with a stride, and the padding of PyTorch."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H', W')."""
        if not _has_slow_backward(self, x):
            return super().forward(x)
        whole = F.conv2d(x, self.weight, self.bias, 1, self.padding, self.dilation, self.groups)
        return whole[..., :: self.stride[0], :: self.stride[1]]


class StridedDepthwiseSame(Conv2dSame):
    """The same with the padding of TensorFlow, which depends on the size of the input."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H', W')."""
        if not _has_slow_backward(self, x):
            return super().forward(x)
        x = pad_same(x, list(self.kernel_size), list(self.stride), list(self.dilation))
        whole = F.conv2d(x, self.weight, self.bias, 1, 0, self.dilation, self.groups)
        return whole[..., :: self.stride[0], :: self.stride[1]]


_FAST: dict[type[nn.Conv2d], type[nn.Conv2d]] = {
    nn.Conv2d: StridedDepthwise,
    Conv2dSame: StridedDepthwiseSame,
}


def with_fast_strided_depthwise(network: nn.Module) -> nn.Module:
    """Exchange the strided depthwise convolutions of a network, in place; its weights stay.

    Args:
        network: with convolutions of PyTorch or timm; others are left alone.

    Returns:
        The network.
    """
    for module in network.modules():
        for name, child in module.named_children():
            if type(child) in _FAST and _is_strided_depthwise(child):
                setattr(module, name, _exchanged(child))
    return network


def _is_strided_depthwise(layer: nn.Module) -> bool:
    assert isinstance(layer, nn.Conv2d)
    depthwise = layer.groups == layer.in_channels == layer.out_channels and layer.groups > 1
    plain = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return depthwise and plain and max(layer.stride) > 1


def _exchanged(layer: nn.Module) -> nn.Conv2d:
    assert isinstance(layer, nn.Conv2d)
    new = _FAST[type(layer)](
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        layer.dilation,  # type: ignore[arg-type]
        layer.groups,
        bias=layer.bias is not None,
        device="meta",
    )
    new.weight, new.bias = layer.weight, layer.bias
    return new.train(layer.training)


def _has_slow_backward(layer: nn.Module, x: Tensor) -> bool:
    if not (layer.training and x.device.type == "cpu" and torch.is_grad_enabled()):
        return False
    return x.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
