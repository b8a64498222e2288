"""The picture on the screen of an endoscopy tower, as augmentation.

Hosts deliver whole screens: a black border, a rectangular, octagonal or round picture, text, a
position panel and perhaps a small second picture. Samples with and without polyp are placed alike.
"""

import functools
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

_LETTERS = "ABCDEFGHKLMNPRSTUVXYZ0123456789:./-"


@dataclass(frozen=True)
class Screen:
    """Where one picture lies on its screen, and what else the screen shows; sizes in pixels.

    Attributes:
        box: x, y, width and height of the picture.
        inside: (S, S) float32, 1 where the picture shows.
        overlay: (3, S, S) float32 RGB in 0…1 of text and panel.
        covered: (S, S) float32, 1 where text or panel hide what is below.
        second: x, y, width and height of the small second picture, or None.
    """

    box: tuple[int, int, int, int]
    inside: Tensor
    overlay: Tensor
    covered: Tensor
    second: tuple[int, int, int, int] | None


@functools.lru_cache(maxsize=16)
def make_screen(seed: int, size: int) -> Screen:
    """Make the screen of a seed for images of `size`×`size` pixels (of 16:9, stretched)."""
    rng = np.random.default_rng(seed)
    width, height = (int(size * rng.uniform(*span)) for span in ((0.5, 0.9), (0.75, 1.0)))
    x = int((size - width) * rng.uniform(0.1, 1.0))
    y = int((size - height) * rng.uniform(0, 1))
    inside = np.zeros((size, size), np.uint8)
    shape = rng.choice(["rectangle", "octagon", "circle"], p=[0.35, 0.45, 0.2])
    if shape == "circle":
        centre = (x + width // 2, y + height // 2)
        cv2.ellipse(inside, centre, (width // 2, height // 2), 0, 0, 360, 1, -1)
    else:
        cut = 0.0 if shape == "rectangle" else rng.uniform(0.08, 0.28)
        cv2.fillPoly(inside, [_octagon(x, y, width, height, cut)], 1)
    overlay = np.zeros((size, size, 3), np.uint8)
    covered = np.zeros((size, size), np.uint8)
    for _ in range(rng.integers(2, 9)):
        _write(overlay, covered, inside, rng)
    if rng.random() < 0.4:
        _draw_panel(overlay, covered, (x, y, width, height), rng)
    second = None
    if rng.random() < 0.3:
        side = int(size * rng.uniform(0.1, 0.22))
        second = (0, int((size - side) * rng.uniform(0, 1)), min(side, max(x, 8)), side)
    return Screen(
        (x, y, width, height),
        torch.from_numpy(inside.astype(np.float32)),
        torch.from_numpy(overlay.transpose(2, 0, 1).astype(np.float32) / 255),
        torch.from_numpy(covered.astype(np.float32)),
        second,
    )


def place(screen: Screen, planes: Tensor) -> Tensor:
    """Put a picture, (C, S, S) float, into its box; 0 around it."""
    x, y, width, height = screen.box
    small = F.interpolate(planes[None], (height, width), mode="bilinear", antialias=True)[0]
    placed = torch.zeros_like(planes)
    placed[:, y : y + height, x : x + width] = small
    return placed * screen.inside.to(planes.device, non_blocking=True)


def finish(screen: Screen, image: Tensor) -> Tensor:
    """Blacken the border of a placed image, (3, S, S), after changes of colour; add the rest."""
    shown = image * screen.inside.to(image.device, non_blocking=True)
    if screen.second is not None:
        x, y, width, height = screen.second
        left, top, wide, high = screen.box
        picture = image[None, :, top : top + high, left : left + wide]
        small = F.interpolate(picture, (height, width), mode="bilinear", antialias=True)[0]
        shown[:, y : y + height, x : x + width] = small
    covered = screen.covered.to(image.device, non_blocking=True)
    return shown * (1 - covered) + screen.overlay.to(image.device, non_blocking=True) * covered


def _octagon(x: int, y: int, width: int, height: int, cut: float) -> NDArray[np.int32]:
    a, b = int(cut * width), int(cut * height)
    right, bottom = x + width - 1, y + height - 1
    corners = [
        (x + a, y), (right - a, y), (right, y + b), (right, bottom - b),
        (right - a, bottom), (x + a, bottom), (x, bottom - b), (x, y + b),
    ]  # fmt: skip
    return np.array(corners, np.int32)


def _write(
    overlay: NDArray[np.uint8],
    covered: NDArray[np.uint8],
    inside: NDArray[np.uint8],
    rng: np.random.Generator,
) -> None:
    """One line of letters, as patient fields and dates have; outside of the picture."""
    size = len(overlay)
    text = "".join(rng.choice(list(_LETTERS), rng.integers(3, 11)))
    place = int(rng.uniform(0, 0.6) * size), int(rng.uniform(0.04, 0.98) * size)
    level = int(rng.integers(140, 256))
    letters = np.zeros_like(covered)
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, float(rng.uniform(0.25, 0.5) * size / 352)
    cv2.putText(letters, text, place, font, scale, 1, 1, cv2.LINE_8)
    letters &= 1 - inside
    overlay[letters > 0] = level
    covered |= letters


def _draw_panel(
    overlay: NDArray[np.uint8],
    covered: NDArray[np.uint8],
    box: tuple[int, int, int, int],
    rng: np.random.Generator,
) -> None:
    """A position panel: the endoscope's shape as a bright line; it may touch the picture."""
    size = len(overlay)
    x, y, _, height = box
    wide, high = (int(size * rng.uniform(0.12, 0.3)) for _ in range(2))
    left = int(np.clip(x - wide * rng.uniform(0.6, 1.3), 0, size - wide))
    top = int(np.clip(y + height - high * rng.uniform(0.8, 1.2), 0, size - high))
    corner = (left + wide - 1, top + high - 1)
    ground = tuple(int(value) for value in rng.integers(0, 70, 3))
    line = tuple(int(value) for value in rng.integers(90, 256, 3))
    cv2.rectangle(overlay, (left, top), corner, ground, -1)
    cv2.rectangle(covered, (left, top), corner, 1, -1)
    steps = np.cumsum(rng.normal(0, 0.12, (12, 2)), axis=0)
    points = (np.clip(steps + 0.5, 0.05, 0.95) * (wide, high) + (left, top)).astype(np.int32)
    cv2.polylines(overlay, [points], False, line, max(1, size // 150), cv2.LINE_AA)
