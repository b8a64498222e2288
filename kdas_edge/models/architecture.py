"""What rebuilds a network and feeds it; every network carries its own."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

# pixels of the image to one of the decoder's finest map: as published, and ours
STRIDE = 8
FINE_STRIDE = 4

# limits of what a checkpoint's header may ask for, checked before memory is taken
MOST_WIDTH = 1024
MOST_SIZE = 4096

_NOT = "not an architecture"


@dataclass(frozen=True)
class Architecture:
    """Everything needed to rebuild a network and to feed it.

    Attributes:
        backbone: a timm name.
        width: channels of the decoder.
        size: side in pixels of the square image the network is made for.
        mean: of the red, green and blue channel, for images in 0…1.
        std: likewise; the input is (x - mean) / std.
        stride: pixels of the image to one of the decoder's finest map, 8 or 4.
    """

    backbone: str
    width: int = 32
    size: int = 352
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    stride: int = STRIDE

    def __str__(self) -> str:
        """In words, for messages: what tells two networks apart."""
        return f"{self.backbone} of width {self.width}, stride {self.stride}, at {self.size} pixels"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON; `from_dict` reads them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> "Architecture":
        """Rebuild from `to_dict` or its JSON.

        Raises:
            ValueError: a field is missing, unknown, of a wrong type or beyond its limit.
        """
        if not isinstance(values, Mapping):
            raise ValueError(_NOT)
        # older checkpoints know only the published stride
        values = {"stride": STRIDE, **values}
        known = [field.name for field in dataclasses.fields(cls)]
        if set(values) != set(known):
            strange = sorted(map(str, set(values).symmetric_difference(known)))[0]
            raise ValueError(f"{_NOT}: {strange[:40]!r} is missing or unknown")
        found = {**values, **{key: _three(values[key], key) for key in ("mean", "std")}}
        backbone, stride = found["backbone"], found["stride"]
        if not isinstance(backbone, str) or len(backbone) > 100:
            raise ValueError(f"{_NOT}: backbone is not a name")
        for key, most in (("width", MOST_WIDTH), ("size", MOST_SIZE)):
            value = found[key]
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
                raise ValueError(f"{_NOT}: {key} {str(value)[:40]} is no number from 1 to {most}")
        if stride not in (STRIDE, FINE_STRIDE):
            raise ValueError(f"{_NOT}: stride {str(stride)[:40]} is not {STRIDE} or {FINE_STRIDE}")
        if min(found["std"]) <= 0:
            raise ValueError(f"{_NOT}: std is not above 0")
        return cls(**found)


class SegmentationNetwork(nn.Module):
    """A network that carries its architecture.

    `forward` maps images (B, 3, H, W), normalised as the architecture says, to the supervision
    outputs z1 and z2: logits (B, 1, h, w), each at the size that the network computes them.
    `FullSize` enlarges them.
    """

    architecture: Architecture


class FullSize(SegmentationNetwork):
    """A network whose two outputs are enlarged (bilinearly) to the size of its input.

    Args:
        network: its weights are shared, not copied.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        if isinstance(network, SegmentationNetwork):
            self.architecture = network.architecture

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, 3, H, W) to (z1, z2), logits (B, 1, H, W) each."""
        z1, z2 = self.network(x)
        return _enlarged(z1, x), _enlarged(z2, x)


def _enlarged(z: Tensor, x: Tensor) -> Tensor:
    if z.shape[-2:] == x.shape[-2:]:
        return z
    return F.interpolate(z, x.shape[-2:], mode="bilinear")


def _three(values: Any, key: str) -> tuple[float, float, float]:
    numbers = values if isinstance(values, list | tuple) else ()
    if len(numbers) != 3 or not all(
        isinstance(v, int | float) and math.isfinite(v) for v in numbers
    ):
        raise ValueError(f"{_NOT}: {key} is not three numbers")
    red, green, blue = map(float, numbers)
    return red, green, blue
