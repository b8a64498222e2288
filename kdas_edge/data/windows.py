"""Windows: parts of a training image, with and without polyp in equal measure, as augmentation.

A window without polyp shows mucosa of the same hospital, camera and light as the polyps do. Cut
without such windows *with* polyp, a network learns that a picture without a border has no polyp.
"""

import torch
from torch import Tensor

SMALLEST = 0.35
# places that are tried for a window of the wanted kind
_TRIES = 24
# of the polyp that lies inside of a window with polyp, at least
_LEAST_INSIDE = 0.5
_WITH, _WITHOUT = 1, 2


def draw_windows(share: float, batch: int, seed: int) -> Tensor:
    """Draw the kind and the candidate places of each image's window.

    Args:
        share: of the images that become windows, 0…1; half of them with polyp, half without.
        batch: number B of images.
        seed: of the draw.

    Returns:
        (B, 24, 4) float on the CPU: kind (0 no window, 1 with polyp, 2 without), side as a part of
        the image's, and the left and upper edge, of 0…1.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(batch, generator=generator) < share
    kind = torch.randint(_WITH, _WITHOUT + 1, (batch,), generator=generator) * chosen
    side = SMALLEST + (1 - SMALLEST) * torch.rand(batch, _TRIES, generator=generator)
    edges = torch.rand(batch, _TRIES, 2, generator=generator) * (1 - side)[..., None]
    whole = kind[:, None, None].expand(batch, _TRIES, 1).float()
    return torch.cat([whole, side[..., None], edges], dim=2)


def place_windows(windows: Tensor, masks: Tensor, affine: Tensor) -> Tensor:
    """Put each window where its kind is met, and look through it.

    Nothing waits for the device. An image in which no candidate is of the wanted kind stays whole.
    A rotation may bring into view what lies beside the window; the mask moves with it.

    Args:
        windows: (b, K, 4) of `draw_windows`, on the device of the masks.
        masks: (b, 1, S, S) uint8, 0 or 1.
        affine: (b, 2, 3) inverse affine matrices in −1…1 coordinates, which act inside the window.

    Returns:
        (b, 2, 3) matrices from the output to the whole image.
    """
    size = masks.shape[-1]
    sums = torch.zeros(len(masks), size + 1, size + 1, device=masks.device)
    sums[:, 1:, 1:] = masks[:, 0].float().cumsum(1).cumsum(2)
    kind, side, left, top = windows.unbind(2)
    row = torch.arange(len(masks), device=masks.device)[:, None]

    def inside(margin: int) -> Tensor:
        x0, y0 = ((e * size).round().long().sub(margin).clamp(0, size) for e in (left, top))
        x1, y1 = (
            ((e + side) * size).round().long().add(margin).clamp(0, size) for e in (left, top)
        )
        return sums[row, y1, x1] - sums[row, y0, x1] - sums[row, y1, x0] + sums[row, y0, x0]

    total = sums[:, -1, -1][:, None]
    holds = (inside(0) >= _LEAST_INSIDE * total) & (total > 0)
    # two pixels more on each side: interpolation looks there
    fits = torch.where(kind == _WITH, holds, (kind == _WITHOUT) & (inside(2) == 0))
    # the first that fits
    order = torch.arange(fits.shape[1], 0, -1, device=masks.device)
    best = (fits * order).argmax(1, keepdim=True)
    found = fits.gather(1, best)[:, 0]
    scale = torch.where(found, side.gather(1, best)[:, 0], 1.0)
    centre_x = torch.where(found, 2 * left.gather(1, best)[:, 0] + scale - 1, 0.0)
    centre_y = torch.where(found, 2 * top.gather(1, best)[:, 0] + scale - 1, 0.0)
    moved = affine * scale[:, None, None]
    shift = torch.stack([centre_x, centre_y], dim=1)
    return torch.cat([moved[:, :, :2], moved[:, :, 2:] + shift[:, :, None]], dim=2)
