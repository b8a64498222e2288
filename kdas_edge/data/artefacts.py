"""Bubbles and coding artefacts as augmentation, on the device of the batch.

`corruptions` measures robustness; these have other shapes and ranges. A network that was trained
with them knows part of what `corruptions` tests, and its robustness figures should say so.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# what is darker lies outside of the field of view, 0…1
_SURROUND = 0.1
# quantisation tables of ITU-T T.81, annex K: steps of the 8 × 8 cosines of brightness and of colour
_BRIGHTNESS_STEPS = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_COLOUR_STEPS = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
# RGB to Y, Cb, Cr of JFIF, the colours around 0
_TO_YCC = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)


def add_bubbles(image: Tensor, seed: int) -> None:
    """Draw 5 to 60 bubbles, most of them in foam, into one image, in place.

    Each shows what lies below it contracted, as a thin film does, with a rim that is bright towards
    the lamp and dark away from it, and a glint. The mask stays valid but for what moves within it.

    Args:
        image: (3, H, W) float RGB in 0…1; the result may leave the range a little.
        seed: of the places, the sizes (radius 0.8 to 6 % of the shorter side) and the light, which
            are drawn on the CPU, so that every device draws the same.
    """
    rng = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * torch.rand(1, generator=rng).tolist()[0]

    rows, columns = image.shape[1:]
    side = min(rows, columns)
    count = round(math.exp(uniform(math.log(5), math.log(60))))
    largest = uniform(0.02, 0.06) * side
    lamp = uniform(0, 2 * math.pi)
    rim, width, pull = uniform(0.1, 0.4), uniform(0.06, 0.15), uniform(0.2, 0.9)
    foam = [(uniform(0, rows), uniform(0, columns)) for _ in range(3)]
    for index in range(count):
        row, column = foam[index % 3]
        spread = 0.1 * side
        if uniform(0, 1) < 0.3:
            row, column, spread = uniform(0, rows), uniform(0, columns), 0.0
        # uniform in a square: foam has no tails
        row, column = row + uniform(-spread, spread), column + uniform(-spread, spread)
        radius = max(1.5, uniform(0.008 * side, largest))
        glint = uniform(0.1, 0.25), uniform(0.3, 0.9), uniform(-0.5, 0.5), uniform(-0.5, 0.5)

        top, left = (max(0, math.floor(at - radius)) for at in (row, column))
        bottom = min(rows, math.ceil(row + radius) + 1)
        right = min(columns, math.ceil(column + radius) + 1)
        if top >= bottom or left >= right:
            continue
        y = (torch.arange(top, bottom, device=image.device) - row)[:, None] / radius
        x = (torch.arange(left, right, device=image.device) - column)[None, :] / radius
        away = torch.hypot(y, x)
        lens = radius * (1 + pull * away.clamp(max=1) ** 2)
        grid = torch.stack(
            [
                (2 * (column + x * lens) + 1) / columns - 1,
                (2 * (row + y * lens) + 1) / rows - 1,
            ],
            dim=-1,
        )
        ground = F.grid_sample(
            image[None], grid[None].to(image.dtype), padding_mode="reflection", align_corners=False
        )[0]
        toward = y * math.sin(lamp) + x * math.cos(lamp)
        shade = torch.exp(-(((away - 0.9) / width) ** 2)) * rim * (toward - 0.3)
        size, strength, down, across = glint
        light = strength * torch.exp(-((torch.hypot(y - down, x - across) / size) ** 2))
        patch = image[:, top:bottom, left:right]
        inside = ((1 - away) * radius / 1.2).clamp(0, 1) * (patch.amax(0) > _SURROUND)
        patch += (ground + 0.02 + shade + light - patch) * inside


def code(images: Tensor, quality: Tensor) -> Tensor:
    """The images after JPEG: 8 × 8 blocks of rounded cosines, colour at half the resolution.

    Args:
        images: (B, 3, H, W) float RGB in 0…1.
        quality: (B,) 1…100 as encoders count it.

    Returns:
        (B, 3, H, W) float in 0…1. Within a few levels of libjpeg's, which rounds in between.
    """
    height, width = images.shape[2:]
    matrix = images.new_tensor(_TO_YCC)
    x = F.pad(images * 255, (0, -width % 16, 0, -height % 16), mode="replicate")
    ycc = torch.einsum("ij,bjhw->bihw", matrix, x)
    brightness = _rounded_cosines(ycc[:, :1] - 128, _BRIGHTNESS_STEPS, quality) + 128
    colour = _rounded_cosines(F.avg_pool2d(ycc[:, 1:], 2), _COLOUR_STEPS, quality)
    colour = F.interpolate(colour, scale_factor=2, mode="bilinear", align_corners=False)
    decoded = torch.einsum(
        "ij,bjhw->bihw", torch.linalg.inv(matrix), torch.cat([brightness, colour], 1)
    )
    return (decoded[..., :height, :width] / 255).clamp(0, 1)


def _rounded_cosines(planes: Tensor, steps: tuple[tuple[int, ...], ...], quality: Tensor) -> Tensor:
    """(B, C, H, W), H and W multiples of 8, with the cosines of each 8 × 8 block rounded."""
    batch, channels, height, width = planes.shape
    index = torch.arange(8.0)
    basis = torch.cos((2 * index[None] + 1) * index[:, None] * math.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    basis = basis.to(planes)
    # libjpeg's: 50 takes the table as it is, 25 twice its steps, 75 half of them
    quality = quality.to(planes).clamp(1, 100)
    factor = torch.where(quality < 50, 50 / quality, 2 - quality / 50).view(-1, 1, 1, 1, 1, 1)
    table = (planes.new_tensor(steps) * factor + 0.5).floor().clamp(1, 255)
    blocks = planes.reshape(batch, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    cosines = basis @ blocks @ basis.T
    blocks = basis.T @ ((cosines / table).round() * table) @ basis
    return blocks.transpose(3, 4).reshape(planes.shape)
