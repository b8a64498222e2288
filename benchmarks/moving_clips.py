"""Clips with known masks, made of still pictures: a camera that pans, zooms and trembles.

A window moves over a still picture that is larger than it. Of a polyp clip it begins where no pixel
of the polyp is in view, pans to the polyp in a second, and stays there; of a polyp-free clip it
never sees one. Light and sensor noise change from frame to frame, and now and then a frame or three
are corrupted (`kdas_edge.data.corruptions`). Everything follows the seed.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.data.corruptions import corrupt
from kdas_edge.data.layout import find_pairs, read_pair
from kdas_edge.data.synthetic import scene

# a polyp is in view when it takes this share of the frame
VISIBLE = 0.005
# side of the window, as a share of the picture's shorter side
WINDOW = 0.55
ZOOM = 0.06
TREMBLE = 0.008
NOISE = 3.0
LIGHT = 0.03
BURST_RATE = 0.06
BURSTS = ("motion_blur", "defocus", "overexposure", "specular")
GRID = 9  # places on each axis that are tried for the beginning


@dataclass(frozen=True)
class Clip:
    """One clip.

    Attributes:
        name: of the picture.
        frames: (H, W, 3) uint8 BGR each.
        truth: (H, W) bool each.
    """

    name: str
    frames: list[NDArray[np.uint8]]
    truth: list[NDArray[np.bool_]]

    @property
    def visible_from(self) -> int | None:
        """The first frame with a polyp in view; None in a polyp-free clip."""
        for index, mask in enumerate(self.truth):
            if mask.mean() >= VISIBLE:
                return index
        return None


@dataclass(frozen=True)
class Picture:
    """A still picture: (H, W, 3) uint8 RGB, and (H, W) bool."""

    name: str
    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def scenes(polyp: bool, seed: int, side: int) -> Iterator[Picture]:
    """Synthetic scenes without end, so large that a pixel of a frame is one of the scene."""
    number = 10_000 * seed + (0 if polyp else 5_000)
    while True:
        yield Picture(f"scene {number}", *scene(number, round(side / WINDOW), polyp=polyp))
        number += 1


def pictures(folder: Path, seed: int) -> Iterator[Picture]:
    """The pictures of a folder with `images/` and `masks/`, once each, in an order of the seed."""
    pairs = find_pairs(folder).pairs
    for index in np.random.default_rng(seed).permutation(len(pairs)):
        image, mask = read_pair(pairs[index])
        yield Picture(pairs[index].name, image, mask)


def make_clip(
    picture: Picture, polyp: bool, frames: int, fps: float, side: int, seed: int
) -> Clip | None:
    """Let the camera move over one picture.

    Args:
        picture: what it sees.
        polyp: the window goes to the polyp; otherwise it stays where there is none.
        frames: of the clip.
        fps: frames a second.
        side: of a frame, in pixels.
        seed: with the picture's name it decides about every movement and every grain of noise.

    Returns:
        None where the picture does not allow it: no place without the polyp, or no polyp.
    """
    rng = np.random.default_rng([seed, zlib.crc32(picture.name.encode())])
    window = WINDOW * min(picture.mask.shape)
    reach = window * (1 + ZOOM + 4 * TREMBLE)  # of the window wherever it trembles
    free = _free_places(picture.mask, reach)
    if len(free) == 0 or (polyp and not picture.mask.any()):
        return None
    if polyp:
        rows, columns = np.nonzero(picture.mask)
        goal = _inside(np.array([columns.mean(), rows.mean()]), picture.mask.shape, reach)
        # the nearest free place: the pan shall not be faster than an endoscope
        start = free[np.argmin(np.hypot(*(free - goal).T))]
    else:
        start = free[rng.integers(len(free))]
        near = free[np.hypot(*(free - start).T) < 1.5 * np.hypot(*_steps(picture.mask, reach))]
        goal = near[rng.integers(len(near))]
    path = _path(rng, start, goal, frames, fps, window)
    shown, truth = [], []
    for (x, y), extent in path:
        shift = side / extent
        matrix = np.array([[shift, 0, side / 2 - shift * x], [0, shift, side / 2 - shift * y]])
        view = cv2.warpAffine(
            picture.image, matrix, (side, side), flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )  # fmt: skip
        seen = cv2.warpAffine(
            picture.mask.astype(np.uint8), matrix, (side, side), flags=cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_REFLECT,
        )  # fmt: skip
        shown.append(np.asarray(view, np.uint8))
        truth.append(seen > 0)
    clip = Clip(picture.name, _spoil(shown, picture.name, rng, seed), truth)
    # the way between two free places may lead over the polyp
    if (clip.visible_from is not None) != polyp or (not polyp and any(m.any() for m in truth)):
        return None
    return clip


def _steps(mask: NDArray[np.bool_], window: float) -> NDArray[np.float64]:
    height, width = mask.shape
    return np.maximum(np.array([width, height]) - window, 0) / (GRID - 1)


def _free_places(mask: NDArray[np.bool_], window: float) -> NDArray[np.float64]:
    """(N, 2) centres x, y of windows without a pixel of the mask."""
    height, width = mask.shape
    found = []
    for x in np.linspace(window / 2, width - window / 2, GRID):
        for y in np.linspace(window / 2, height - window / 2, GRID):
            top, left = int(max(y - window / 2, 0)), int(max(x - window / 2, 0))
            bottom, right = int(y + window / 2) + 1, int(x + window / 2) + 1
            if not mask[top:bottom, left:right].any():
                found.append((x, y))
    return np.array(found).reshape(-1, 2)


def _inside(
    centre: NDArray[np.float64], shape: tuple[int, int], window: float
) -> NDArray[np.float64]:
    height, width = shape
    low, high = np.full(2, window / 2), np.array([width, height]) - window / 2
    return np.clip(centre, low, high)


def _path(
    rng: np.random.Generator,
    start: NDArray[np.float64],
    goal: NDArray[np.float64],
    frames: int,
    fps: float,
    window: float,
) -> list[tuple[NDArray[np.float64], float]]:
    """Centre and side of the window in each frame: a second at rest, a second of pan, at rest."""
    seconds = np.arange(frames) / fps
    along = np.clip(seconds - 1, 0, 1)
    along = along * along * (3 - 2 * along)
    rates, phases = rng.uniform(0.4, 2.2, (2, 3)), rng.uniform(0, 2 * np.pi, (2, 3))
    sway = np.sin(2 * np.pi * rates[..., None] * seconds + phases[..., None]).mean(axis=1)
    zoom = 1 + ZOOM * np.sin(2 * np.pi * rng.uniform(0.1, 0.4) * seconds + rng.uniform(0, 6))
    return [
        (start + part * (goal - start) + 2 * TREMBLE * window * sway[:, index], window * scale)
        for index, (part, scale) in enumerate(zip(along, zoom, strict=True))
    ]


def _spoil(
    frames: list[NDArray[np.uint8]], name: str, rng: np.random.Generator, seed: int
) -> list[NDArray[np.uint8]]:
    """Light, bursts and noise; RGB in, BGR out."""
    corrupted, burst, left = [], "", 0
    light = 0.0
    for index, frame in enumerate(frames):
        if left == 0 and rng.random() < BURST_RATE:
            burst, left = str(rng.choice(BURSTS)), int(rng.integers(1, 4))
        if left:
            frame = corrupt(frame, burst, 2, f"{name} {index}", seed)
            left -= 1
        light = 0.7 * light + rng.normal(0, LIGHT)
        grain = rng.normal(0, NOISE, frame.shape)
        noisy = frame.astype(np.float64) * (1 + light) + grain
        corrupted.append(np.ascontiguousarray(noisy.clip(0, 255).astype(np.uint8)[..., ::-1]))
    return corrupted
