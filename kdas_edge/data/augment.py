"""Augmentation: one geometric transform of image and mask, then colour, blur and noise.

All of it runs on the device.

All random numbers of a batch come from one CPU generator whose seed is a function of the run's
seed and the step. So a resumed run draws what the unbroken one would have drawn, a GPU draws what a
CPU draws, and each process of a distributed run draws for the whole batch and takes its own part.
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from kdas_edge.data.artefacts import add_bubbles, code
from kdas_edge.data.screen import finish, make_screen, place
from kdas_edge.data.windows import draw_windows, place_windows
from kdas_edge.recipe import AugmentRecipe

# luma of ITU-R BT.601, as in PIL and torchvision
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class AugmentDraw:
    """The random numbers of a batch of B images, all on the CPU.

    Attributes:
        affine: (B, 2, 3) inverse affine matrices in the -1…1 coordinates of `affine_grid`.
        brightness, contrast, saturation: (B,) factors around 1.
        hue: (B,) rotation of the colour circle in radians.
        blur: (B,) standard deviation in pixels, 0 for none.
        noise: (B,) standard deviation, of 0…1.
        noise_seed: seed of the noise itself, drawn on the device.
        bubbles: (B,) seed of an image's bubbles, -1 for none.
        quality: (B,) 5 to 60, JPEG quality, 0 for none.
        screens: (B,) seed of the screen that an image is placed on, -1 for none.
        windows: of `draw_windows`; None where none are asked for.
        placed: (b, 2, 3) matrices of `with_windows`, on the device; None before it.
    """

    affine: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    blur: Tensor
    noise: Tensor
    noise_seed: int
    bubbles: Tensor
    quality: Tensor
    screens: Tensor
    windows: Tensor | None = None
    placed: Tensor | None = None


def draw(recipe: AugmentRecipe, batch: int, generator: torch.Generator) -> AugmentDraw:
    """Draw the augmentation of `batch` images.

    Every number is drawn whether it is used or not, so that switching one augmentation off leaves
    the others as they were.
    """

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, generator=generator)

    def chosen(probability: float) -> Tensor:
        return torch.rand(batch, generator=generator) < probability

    angle = uniform(-recipe.rotate, recipe.rotate) * math.pi / 180
    zoom = torch.exp(uniform(math.log(recipe.scale[0]), math.log(recipe.scale[1])))
    flip_x, flip_y = chosen(0.5), chosen(0.5)
    shift = torch.stack([uniform(-1, 1), uniform(-1, 1)], dim=1) * 2 * recipe.shift
    sign_x = torch.where(flip_x & recipe.flip, -1.0, 1.0)
    sign_y = torch.where(flip_y & recipe.flip, -1.0, 1.0)
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    affine = torch.stack(
        [
            torch.stack([sign_x * cos, -sign_x * sin, shift[:, 0]], dim=1),
            torch.stack([sign_y * sin, sign_y * cos, shift[:, 1]], dim=1),
        ],
        dim=1,
    )
    blurred = chosen(recipe.blur)
    drawn = AugmentDraw(
        affine=affine,
        brightness=uniform(1 - recipe.brightness, 1 + recipe.brightness),
        contrast=uniform(1 - recipe.contrast, 1 + recipe.contrast),
        saturation=uniform(1 - recipe.saturation, 1 + recipe.saturation),
        hue=uniform(-recipe.hue, recipe.hue) * 2 * math.pi,
        blur=uniform(0.5, 2.0) * blurred,
        noise=uniform(0, recipe.noise),
        noise_seed=torch.randint(2**31, (1,), generator=generator).tolist()[0],
        bubbles=torch.where(
            chosen(recipe.bubbles), torch.randint(2**31, (batch,), generator=generator), -1
        ),
        quality=torch.exp(uniform(math.log(5), math.log(60))) * chosen(recipe.coding),
        screens=torch.full((batch,), -1),
    )
    # from generators of their own: what came later leaves the numbers of earlier runs as they were
    if recipe.screen:
        own = torch.Generator().manual_seed(drawn.noise_seed + 1)
        placed = torch.rand(batch, generator=own) < recipe.screen
        seeds = torch.randint(2**31, (batch,), generator=own)
        drawn = replace(drawn, screens=torch.where(placed, seeds, -1))
    if recipe.windows:
        windows = draw_windows(recipe.windows, batch, drawn.noise_seed + 2)
        drawn = replace(drawn, windows=windows)
    return drawn


def with_windows(drawn: AugmentDraw, masks: Tensor, part: slice = slice(None)) -> AugmentDraw:
    """Place the windows of a batch where its masks allow it; without windows the same numbers.

    Args:
        drawn: the random numbers of the whole batch.
        masks: (b, 1, S, S) uint8, 0 or 1, of the images `part` of the batch.
        part: which images of the whole batch these are.
    """
    if drawn.windows is None:
        return drawn
    windows, affine = (
        one[part].to(masks.device, non_blocking=True) for one in (drawn.windows, drawn.affine)
    )
    return replace(drawn, placed=place_windows(windows, masks, affine))


def warp(drawn: AugmentDraw, planes: Tensor, part: slice = slice(None)) -> Tensor:
    """Move the pixels of a batch, as `apply` does, and leave their values.

    Args:
        drawn: the random numbers of the whole batch.
        planes: (b, C, S, S) float, of the images `part` of the batch.
        part: which images of the whole batch these are.

    Returns:
        (b, C, S, S), interpolated bilinearly; 0 where the transform looked outside.
    """
    affine = drawn.placed
    if affine is None:
        affine = drawn.affine[part].to(planes.device, non_blocking=True)
    grid = F.affine_grid(affine, list(planes.shape), align_corners=False)
    warped = F.grid_sample(planes, grid, mode="bilinear", align_corners=False)
    for index, seed in enumerate(drawn.screens[part].tolist()):
        if seed >= 0:
            warped[index] = place(make_screen(seed, planes.shape[-1]), warped[index])
    return warped


def apply(
    drawn: AugmentDraw, images: Tensor, masks: Tensor, part: slice = slice(None)
) -> tuple[Tensor, Tensor]:
    """Transform a batch.

    Args:
        drawn: the random numbers of the whole batch.
        images: (b, 3, S, S) uint8 RGB, the images `part` of the batch.
        masks: (b, 1, S, S) uint8, 0 or 1.
        part: which images of the whole batch these are.

    Returns:
        Images (b, 3, S, S) float32 in 0…1 (black where the transform looked outside) and masks
        (b, 1, S, S) float32, 0 or 1.
    """
    device = images.device
    x = images.float().div_(255)
    both = warp(drawn, torch.cat([x, masks.float()], dim=1), part)
    x, y = both[:, :3], (both[:, 3:] > 0.5).float()
    for image, seed in zip(x, drawn.bubbles[part].tolist(), strict=True):
        if seed >= 0:
            add_bubbles(image, seed)

    def factor(values: Tensor) -> Tensor:
        return values[part].to(device, non_blocking=True).view(-1, 1, 1, 1)

    x = _rotate_hue(x, drawn.hue[part])
    x = x * factor(drawn.brightness)
    luma = torch.tensor(_LUMA).to(device, non_blocking=True).view(1, 3, 1, 1)
    mean = (x * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    x = (x - mean) * factor(drawn.contrast) + mean
    grey = (x * luma).sum(1, keepdim=True)
    x = (x - grey) * factor(drawn.saturation) + grey
    for index, seed in enumerate(drawn.screens[part].tolist()):
        if seed >= 0:
            x[index] = finish(make_screen(seed, x.shape[-1]), x[index])
    x = _blur(x, drawn.blur[part])
    if any(drawn.noise.tolist()):
        generator = torch.Generator(device).manual_seed(drawn.noise_seed)
        shape = (len(drawn.noise), *x.shape[1:])
        field = torch.randn(shape, device=device, generator=generator)[part]
        x = x + field * factor(drawn.noise)
    x = x.clamp_(0, 1)
    coded = drawn.quality[part].nonzero().flatten()
    if len(coded):
        there = coded.to(device)
        x = x.index_copy(0, there, code(x[there], drawn.quality[part][coded]))
    return x, y


def _rotate_hue(x: Tensor, angle: Tensor) -> Tensor:
    """Rotate the colours about the grey axis (Rodrigues); grey stays grey. x is (B, 3, S, S).

    `angle` is (B,), on the CPU.
    """
    if not any(angle.tolist()):
        return x
    angle = angle.to(x.device, non_blocking=True)
    cos, sin = torch.cos(angle), torch.sin(angle)
    diagonal = cos + (1 - cos) / 3
    plus = (1 - cos) / 3 + sin / math.sqrt(3)
    minus = (1 - cos) / 3 - sin / math.sqrt(3)
    matrix = torch.stack(
        [
            torch.stack([diagonal, minus, plus], 1),
            torch.stack([plus, diagonal, minus], 1),
            torch.stack([minus, plus, diagonal], 1),
        ],
        1,
    )  # (B, 3, 3)
    return torch.einsum("bij,bjhw->bihw", matrix, x)


def _blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of the images whose sigma (in pixels, on the CPU) is not 0."""
    chosen = sigma.nonzero().flatten()
    if len(chosen) == 0:
        return x
    taps = torch.arange(-4.0, 5.0)
    kernel = torch.exp(-0.5 * (taps / sigma[chosen, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).to(x.device, x.dtype)
    chosen = chosen.to(x.device)
    count, channels, height, width = len(chosen), *x.shape[1:]
    # one group per image and channel, so that each image has its own sigma
    weight = kernel.repeat_interleave(channels, 0)[:, None]
    stack = x[chosen].reshape(1, count * channels, height, width)
    stack = F.pad(stack, (4, 4, 4, 4), mode="reflect")
    stack = F.conv2d(stack, weight[:, :, :, None], groups=count * channels)
    stack = F.conv2d(stack, weight[:, :, None, :], groups=count * channels)
    return x.index_copy(0, chosen, stack.reshape(count, channels, height, width))
