"""Saturation-safe scales of int8 weights, none of which lies halfway between two levels.

Without VNNI a processor adds two products of an 8-bit activation (0…255) and an 8-bit weight in 16
bits. Weights within ±64 of the 255 levels cannot saturate there (2 · 255 · 64 < 2¹⁵), which is what
NNCF's overflow fix is for. It leaves three things undone, the first two of which make runtimes
disagree with the network that was evaluated:

- It doubles the scale, which puts the largest weight of *every* output channel at level 63.5, to
  the last bit halfway between two levels. torch rounds it to 64; OpenVINO's and ONNX's constants,
  computed from the same numbers in another order, came out as 63 in 9 % of the channels of
  mobilenetv2_100.
- It passes over constants that are no weights of a layer, such as the pooling matrices of SAM.
  They stay at level 127, and on AVX2 the pooled map was a third off.
- It halves the levels of every weight, where only two neighbours together have to stay low.

`set_safe_scales` corrects all three where the quantisers are made. `rounded_weights`
gives an exporter weights that are already rounded, so that its own formula decides no near tie.
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
    owner: nn.Module | None

    @property
    def depthwise(self) -> bool:
        return isinstance(self.owner, nn.Conv2d) and self.owner.groups > 1

    @property
    def pointwise(self) -> bool:
        """Whether the products that are added in pairs are those of neighbouring channels."""
        if isinstance(self.owner, nn.Linear):
            return True
        return isinstance(self.owner, nn.Conv1d | nn.Conv2d) and (
            self.owner.groups == 1 and self.value[0, 0].numel() == 1
        )

    def largest(self) -> Tensor:
        """Largest magnitude that shares a scale, in the scale's shape."""
        return self._largest(self.value.detach().abs())

    def largest_pair(self) -> Tensor:
        """Largest magnitude of a weight, or of the sum of two neighbours, that shares a scale."""
        value = self.value.detach()
        if value.shape[1] == 1:
            return self.largest()
        pairs = [
            signed[:, :-1] + signed[:, 1:] for signed in (value.clamp(min=0), -value.clamp(max=0))
        ]
        return torch.stack([self.largest(), *(self._largest(pair) for pair in pairs)]).amax(0)

    def _largest(self, magnitude: Tensor) -> Tensor:
        if self.scale.numel() == 1:
            return magnitude.max().reshape(self.scale.shape)
        shared = [axis for axis, size in enumerate(self.scale.shape) if size == 1]
        return magnitude.amax(dim=shared, keepdim=True)


def set_safe_scales(quantized: nn.Module, sample: Tensor, every: bool) -> None:
    """Set weight scales that cannot saturate, and that put no largest weight on a tie.

    The largest weight of a channel falls on level 64, exactly. In a 1×1 convolution or a linear
    layer it may lie higher: there two neighbouring input channels are added, and it is enough that
    no two neighbours of one sign exceed level 127 together (255 · 128 < 2¹⁵, rounding included).
    Depthwise convolutions keep theirs: the kernels add up in 32 bits, and NNCF gives them all 255
    levels.

    Args:
        quantized: from NNCF, in eval mode; its scales are changed in place.
        sample: normalised (1, 3, S, S), for one forward pass.
        every: also constants that NNCF left with all 255 levels; otherwise only those of 7 bits.
    """
    for constant in _quantized_constants(quantized, sample):
        largest = constant.largest()
        level = _LEVELS * largest / constant.scale.detach()
        wrong = (level - _LEVELS / 2).abs() < 0.5
        if every and not constant.depthwise:
            wrong |= level > _SAFE
        safe = constant.largest_pair() if constant.pointwise else largest * (_LEVELS / _SAFE)
        with torch.no_grad():
            # NNCF gives a channel of next to nothing a scale beyond its weights, which stays
            constant.scale.copy_(torch.where(wrong, safe, constant.scale))


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
    owners = {
        module.weight.data_ptr(): module
        for module in quantized.modules()
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear)
    }
    found: list[_Constant] = []

    def note(quantizer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        value = known.get(inputs[0].data_ptr())
        if value is not None and value.shape == inputs[0].shape:
            scale = quantizer.get_parameter(_SCALE)
            owner = owners.get(value.data_ptr())
            found.append(_Constant(value, output.detach().clone(), scale, owner))

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
