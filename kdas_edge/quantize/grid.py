"""The grid of int8 weights: none halfway between two levels, none that saturates 16 bits.

Without VNNI a processor adds two products of an 8-bit activation (0…255) and an 8-bit weight in 16
bits. Weights within ±64 of the 255 levels cannot saturate there (2 · 255 · 64 < 2¹⁵), which is what
NNCF's overflow fix is for. Two things it leaves undone, both of which make runtimes disagree with
the network that was judged:

- It doubles the scale, which puts the largest weight of *every* output channel at level 63.5, to
  the last bit halfway between two levels. torch rounds it to 64; OpenVINO's and ONNX's constants,
  computed from the same numbers in another order, came out as 63 in 9 % of the channels of
  mobilenetv2_100.
- It passes over constants that are no weights of a layer, such as the pooling matrices of SAM.
  They stay at level 127, and on AVX2 the pooled map was a third off.

`settle_weights` mends both where the quantisers are made, and `rounded_weights` lets an exporter
see weights that are already rounded, so that no formula of its own decides about a near tie.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_LEVELS = 127  # of a symmetric quantiser of 8 bits, in each direction
_SAFE = 64
_SCALE = "_scale_param_storage"  # only NNCF's symmetric quantisers have it


@dataclass(frozen=True)
class _Constant:
    """A constant of the network, and the quantiser through which it passes."""

    value: Tensor
    rounded: Tensor
    scale: Tensor
    depthwise: bool

    def largest(self) -> Tensor:
        """Largest magnitude that shares a scale, in the scale's shape."""
        value = self.value.detach().abs()
        if self.scale.numel() == 1:
            return value.max().reshape(self.scale.shape)
        shared = [axis for axis, size in enumerate(self.scale.shape) if size == 1]
        return value.amax(dim=shared, keepdim=True)


def settle_weights(quantized: nn.Module, sample: Tensor, every: bool) -> int:
    """Give 7-bit weights a scale that puts the largest of each channel on level 64 exactly.

    Depthwise convolutions are left alone: their kernels add up in 32 bits, and NNCF gives them all
    255 levels.

    Args:
        quantized: from NNCF, in eval mode; its scales are changed in place.
        sample: normalised (1, 3, S, S), for one forward pass.
        every: also constants that NNCF left with all 255 levels; otherwise only those of 7 bits.

    Returns:
        How many constants were given another scale.
    """
    changed = 0
    for constant in _quantized_constants(quantized, sample):
        largest = constant.largest()
        level = _LEVELS * float((largest / constant.scale.detach()).max())
        half = abs(level - _LEVELS / 2) < 0.5
        if half or (every and not constant.depthwise and level > _SAFE):
            with torch.no_grad():
                settled = largest * (_LEVELS / _SAFE)
                constant.scale.copy_(torch.where(largest > 0, settled, constant.scale))
            changed += 1
    return changed


@contextlib.contextmanager
def rounded_weights(network: nn.Module, sample: Tensor) -> Iterator[None]:
    """Put a quantised network's weights on their levels, and back as they were afterwards.

    The network computes the same meanwhile, as rounding twice is rounding once. A float network
    has nothing to round.

    Args:
        network: float, or quantised by NNCF, in eval mode.
        sample: (1, 3, S, S), for one forward pass.
    """
    constants: dict[int, list[_Constant]] = {}
    for constant in _quantized_constants(network, sample):
        constants.setdefault(id(constant.value), []).append(constant)
    changed: list[tuple[Tensor, Tensor]] = []
    for first, *others in constants.values():
        # a layer that is called twice has two quantisers, which training may have parted
        if all(torch.equal(first.rounded, other.rounded) for other in others):
            changed.append((first.value, first.value.data))
            # new storage, which a converter may keep without a copy
            first.value.data = first.rounded
    try:
        yield
    finally:
        for value, before in changed:
            value.data = before


def _quantized_constants(quantized: nn.Module, sample: Tensor) -> list[_Constant]:
    """Parameters and buffers that a symmetric quantiser rounds, found by what goes through it."""
    known = {
        value.data_ptr(): value
        for value in (*quantized.parameters(), *quantized.buffers())
        if value.numel() > 1
    }
    depthwise = {
        module.weight.data_ptr()
        for module in quantized.modules()
        if isinstance(module, nn.Conv2d) and module.groups > 1
    }
    found: list[_Constant] = []

    def note(quantizer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        value = known.get(inputs[0].data_ptr())
        if value is not None and value.shape == inputs[0].shape:
            place = value.data_ptr()
            scale = quantizer.get_parameter(_SCALE)
            rounded = output.detach().clone()
            found.append(_Constant(value, rounded, scale, place in depthwise))

    quantizers = [module for module in quantized.modules() if _SCALE in module._parameters]
    if not quantizers:
        return []
    hooks = [module.register_forward_hook(note) for module in quantizers]
    try:
        with torch.no_grad():
            quantized(sample)
    finally:
        for hook in hooks:
            hook.remove()
    return found
