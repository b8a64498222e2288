"""Synthetic endoscopic scenes with exact masks, for tests, the demo and trials without data.

A colon is rendered as one looks into it: a dark lumen, haustral folds as warped rings around it, a
wet mucosa with vessels, lit by a lamp beside the camera. Polyps are domes on that surface, so that
their shading, their highlights and their contact shadow come out of the same light as everything
else, and their mask is known to the pixel. The hue of a polyp is chosen near that of its mucosa:
colour alone does not find it. A network trained on scenes knows nothing about patients.

Coordinates run from −1 to 1 over the frame, y downwards; heights are in the same unit.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdas_edge.data.parallel import WORKERS, parallel_map
from kdas_edge.errors import UserError
from kdas_edge.files import staged_directory, write_json

# float32 all the way; numpy's types cannot always prove it
Map = NDArray[np.floating[Any]]

EMPTY_FRACTION = 0.1
TEST_SET = "Synthetic"
JPEG_QUALITY = 92
MIN_SIZE = 32

# Albedos of the mucosa under different lamps and processors: red, rose, orange, pale, brown.
_PALETTES = (
    (0.86, 0.27, 0.20),
    (0.90, 0.38, 0.30),
    (0.92, 0.38, 0.16),
    (0.88, 0.46, 0.36),
    (0.74, 0.34, 0.24),
)


@dataclass(frozen=True)
class _Frame:
    """The coordinates of all pixels, and the random numbers of one scene."""

    rng: np.random.Generator
    size: int
    x: Map
    y: Map

    def noise(self, cells: float, octaves: int = 1) -> Map:
        """Smooth noise of about unit variance; `cells` of its coarsest grid span the frame."""
        total = np.zeros((self.size, self.size), np.float32)
        weight, power = 1.0, 0.0
        for _ in range(octaves):
            count = max(2, min(round(cells), self.size))
            grid = self.rng.standard_normal((count, count), dtype=np.float32)
            whole = cv2.resize(grid, (self.size, self.size), interpolation=cv2.INTER_CUBIC)
            total += np.float32(weight) * whole
            power += weight**2
            weight, cells = weight * 0.55, cells * 2.1
        # cubic interpolation of white noise keeps about 0.6 of its variance
        return total / np.float32(0.75 * power**0.5)


@dataclass(frozen=True)
class _Polyp:
    """One polyp on the wall.

    Attributes:
        height: elevation above the wall.
        alpha: coverage 0…1 with a soft border; the mask is coverage above one half.
        stalk: coverage of the stalk, which is normal mucosa and no part of the mask.
        tint: factor on the albedo, RGB.
        texture: strength of its own surface pattern.
    """

    height: Map
    alpha: Map
    stalk: Map
    tint: Map
    texture: float


def scene(
    seed: int, size: int = 352, polyp: bool | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw one endoscopic frame and the exact mask of its polyps.

    Args:
        seed: the same seed, size and choice give the same pixels.
        size: side in pixels, at least 32.
        polyp: with or without polyps; None leaves it to the seed (one frame in ten is without).

    Returns:
        Image (size, size, 3) uint8 RGB, and mask (size, size) bool.

    Raises:
        UserError: the size is too small.
    """
    if size < MIN_SIZE:
        raise UserError(f"size {size} is too small for a scene; take at least {MIN_SIZE}")
    rng = np.random.default_rng([0x5CE4E, seed])
    with_polyp = bool(rng.random() >= EMPTY_FRACTION)
    if polyp is not None:
        with_polyp = polyp
    axis = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    x, y = np.meshgrid(axis, axis)
    frame = _Frame(rng, size, x, y)

    lumen, tunnel, slope = _tunnel(frame)
    folds, fold_light = _folds(frame, lumen)
    visible = _aperture(frame)
    polyps = _polyps(frame, tunnel * fold_light, visible) if with_polyp else []

    albedo = _mucosa(frame)
    height = folds + 0.006 * frame.noise(9, 3)
    coverage = np.zeros_like(x)
    for one in polyps:
        height = height + one.height
        albedo = _cover(frame, albedo, one)
        coverage = np.maximum(coverage, one.alpha)
    light, gloss = _shade(frame, height, slope, coverage)
    light *= (0.15 + 0.85 * tunnel) * (fold_light + (1 - fold_light) * coverage * 0.7)
    light *= _contact_shadow(frame, polyps)
    image = _develop(frame, albedo, light, gloss * (0.3 + 0.7 * tunnel), visible)
    return image, (coverage > 0.5) & (visible > 0.5)


def write_dataset(
    root: Path,
    train: int,
    test: int,
    size: int = 352,
    seed: int = 0,
    empty_fraction: float = EMPTY_FRACTION,
    overwrite: bool = False,
    workers: int = WORKERS,
) -> None:
    """Write scenes in PraNet's layout: `TrainDataset` and `TestDataset/Synthetic`.

    Images are JPEG, masks 1-bit PNG; `dataset.json` holds the parameters. No scene of the training
    set is in the test set, and a longer set begins with the scenes of a shorter one.

    Args:
        root: the folder to make; nothing of it remains if writing fails.
        train: number of training pairs, at least 1.
        test: number of test pairs; 0 writes no test set.
        size: side in pixels.
        seed: 0 or greater; different seeds share no scene.
        empty_fraction: share of frames without a polyp, 0…1, spread evenly.
        overwrite: replace an existing folder.
        workers: threads.

    Raises:
        UserError: numbers out of range, or a folder that exists or cannot be written.
    """
    if train < 1 or test < 0:
        raise UserError(f"train={train} and test={test}: take at least 1 and 0 images")
    if not 0 <= empty_fraction <= 1:
        raise UserError(f"empty fraction {empty_fraction} is not in 0…1; try {EMPTY_FRACTION}")
    if size < MIN_SIZE:
        raise UserError(f"size {size} is too small for a scene; take at least {MIN_SIZE}")
    if seed < 0:
        raise UserError(f"seed {seed} is negative; take 0 or greater")
    jobs = [("TrainDataset", index, 0) for index in range(train)]
    jobs += [(f"TestDataset/{TEST_SET}", index, 1) for index in range(test)]
    with staged_directory(root, overwrite) as staging:
        for folder in dict.fromkeys(job[0] for job in jobs):
            for kind in ("images", "masks"):
                (staging / folder / kind).mkdir(parents=True)

        def write(job: tuple[str, int, int]) -> None:
            folder, index, side = job
            # evenly spread: the share is right in every prefix, not only on average
            empty = int((index + 1) * empty_fraction) > int(index * empty_fraction)
            number = (seed * 2 + side) * 1_000_000 + index
            image, mask = scene(number, size, polyp=not empty)
            name = f"{index + 1:05d}"
            Image.fromarray(image).save(
                staging / folder / "images" / f"{name}.jpg", quality=JPEG_QUALITY
            )
            Image.fromarray(mask).save(staging / folder / "masks" / f"{name}.png")

        parallel_map(write, jobs, "drawing scenes", workers)
        write_json(
            staging / "dataset.json",
            {
                "kind": "synthetic endoscopic scenes (kdas_edge.data.synthetic)",
                "train": train,
                "test": test,
                "size": size,
                "seed": seed,
                "empty_fraction": empty_fraction,
                "jpeg_quality": JPEG_QUALITY,
            },
        )


def _tunnel(frame: _Frame) -> tuple[tuple[Map, Map, Map], Map, tuple[Map, Map]]:
    """Where the colon goes: coordinates around the lumen, light by depth, slope of the wall."""
    rng = frame.rng
    # one view in three looks at the wall, its lumen out of the picture
    distance = rng.uniform(1.05, 1.7) if rng.random() < 0.35 else rng.uniform(0, 0.75)
    angle = rng.uniform(0, 2 * np.pi)
    bend = np.float32(rng.uniform(0.04, 0.12))
    dx = frame.x - np.float32(distance * np.cos(angle)) + bend * frame.noise(3)
    dy = frame.y - np.float32(distance * np.sin(angle)) + bend * frame.noise(3)
    # a colon is rather three-cornered: the taeniae pull it in
    squared = dx * dx + dy * dy + np.float32(1e-4)
    phase = rng.uniform(0, 2 * np.pi)
    inverse = 1 / (squared * np.sqrt(squared))
    cosine = (dx * dx * dx - 3 * dx * dy * dy) * inverse
    sine = (3 * dx * dx * dy - dy * dy * dy) * inverse
    corner = np.float32(np.cos(phase)) * cosine - np.float32(np.sin(phase)) * sine
    squared = squared * (1 + np.float32(rng.uniform(0.05, 0.35)) * corner)
    radius = np.sqrt(squared)
    depth = np.float32(rng.uniform(0.1, 0.34))
    tunnel = squared / (squared + depth**2)
    tunnel = tunnel * tunnel
    steep = np.float32(rng.uniform(0.25, 0.7)) / radius
    return (dx, dy, radius), tunnel, (steep * dx, steep * dy)


def _folds(frame: _Frame, lumen: tuple[Map, Map, Map]) -> tuple[Map, Map]:
    """Haustral folds, rings around the lumen: their height, and the light behind their rims."""
    rng = frame.rng
    _, _, radius = lumen
    phase = np.log(radius) * np.float32(rng.uniform(1.2, 2.6)) + np.float32(rng.uniform(0, 1))
    phase += np.float32(rng.uniform(0.1, 0.22)) * frame.noise(3, 3)
    # outwards from a rim (0) one looks down the fold's face to where the next rim hides it (1)
    face = phase - np.floor(phase)
    present = np.clip(0.6 + 0.6 * frame.noise(2.5), 0, 1) * np.float32(rng.uniform(0.45, 1))
    soft = frame.size / 352
    profile = _blur((1 - face) ** 2, 4.5 * soft)
    shadow = _blur(face * face, 1.3 * soft)
    return 0.2 * present * np.minimum(radius, 1) * profile, 1 - 0.72 * present * shadow


def _aperture(frame: _Frame) -> Map:
    """What the endoscope shows: the whole frame, or an octagon, or a disc, on black."""
    rng, x, y = frame.rng, frame.x, frame.y
    kind = rng.random()
    softness = np.float32(frame.size / 2.5)
    if kind < 0.3:
        return np.ones_like(x)
    if kind < 0.8:
        margin_x, margin_y = rng.uniform(0.86, 1.0), rng.uniform(0.88, 1.0)
        corner = rng.uniform(1.5, 1.75)
        inside = np.minimum(margin_x - np.abs(x), margin_y - np.abs(y))
        inside = np.minimum(inside, (corner - np.abs(x) - np.abs(y)) * np.float32(0.7))
    else:
        inside = np.float32(rng.uniform(0.97, 1.15)) - np.sqrt(x * x + y * y)
        inside = np.minimum(inside, 0.985 - np.maximum(np.abs(x), np.abs(y)))
    return np.clip(0.5 + inside * softness, 0, 1).astype(np.float32)


def _mucosa(frame: _Frame) -> Map:
    """Albedo of the wall (H, W, 3): blotches, fine grain, vessels, now and then residue."""
    rng = frame.rng
    base = np.array(_PALETTES[rng.integers(len(_PALETTES))], np.float32)
    base = base * rng.uniform(0.93, 1.07, 3).astype(np.float32)
    blotch = 0.07 * frame.noise(4, 4) + 0.03 * frame.noise(45, 2)
    redness = 0.06 * frame.noise(3, 3)
    albedo = np.empty((frame.size, frame.size, 3), np.float32)
    albedo[..., 0] = base[0] * (1 + 0.5 * blotch)
    albedo[..., 1] = base[1] * (1 + blotch - redness)
    albedo[..., 2] = base[2] * (1 + blotch - redness)
    vessels = _vessels(frame) * np.float32(rng.uniform(0.1, 0.5))
    albedo *= 1 - vessels[..., None] * np.array([0.28, 0.75, 0.7], np.float32)
    if rng.random() < 0.2:
        residue = np.clip(frame.noise(3, 4) - np.float32(rng.uniform(1.1, 1.9)), 0, 0.6)[..., None]
        albedo = albedo * (1 - residue) + residue * np.array([0.75, 0.6, 0.25], np.float32)
    return albedo


def _vessels(frame: _Frame) -> Map:
    """Branching vessels as coverage 0…1: trees made by random walks that fork and thin out."""
    rng, size = frame.rng, frame.size
    canvas = np.zeros((size, size), np.uint8)
    walkers = [
        (*rng.uniform(-1, 1, 2), rng.uniform(0, 2 * np.pi), rng.uniform(1.3, 3.2), 0)
        for _ in range(rng.integers(3, 9))
    ]
    shift = 4  # cv2 draws with 1/16 pixel
    while walkers:
        x, y, heading, width, order = walkers.pop()
        steps = int(rng.integers(7, 15))
        turns = heading + np.cumsum(rng.normal(0, 0.28, steps))
        stride = 0.055 * 0.85**order
        track_x = x + stride * np.cumsum(np.cos(turns))
        track_y = y + stride * np.cumsum(np.sin(turns))
        points = np.stack([np.append(x, track_x), np.append(y, track_y)], -1)
        pixels = ((points + 1) * (size / 2) * 2**shift).astype(np.int32)
        thickness = max(1, round(width * size / 352))
        strength = int(np.clip(255 * (0.35 + 0.25 * width), 0, 255))
        cv2.polylines(canvas, [pixels], False, strength, thickness, cv2.LINE_AA, shift)
        if order < 3:
            for _ in range(int(rng.integers(1, 4))):
                at = int(rng.integers(steps // 2, steps))
                fork = turns[at] + rng.choice([-1, 1]) * rng.uniform(0.35, 0.95)
                walkers.append((track_x[at], track_y[at], fork, width * 0.68, order + 1))
    blurred = _blur(canvas.astype(np.float32) / 255, 1.1 * size / 352)
    # vessels dive in and out of the mucosa
    return (blurred * np.clip(0.6 + 0.6 * frame.noise(4), 0, 1)).astype(np.float32)


def _polyps(frame: _Frame, light: Map, visible: Map) -> list[_Polyp]:
    """Place one to three polyps where there is light to see them."""
    rng = frame.rng
    count = int(rng.choice([1, 2, 3], p=[0.82, 0.14, 0.04]))
    polyps: list[_Polyp] = []
    taken: list[tuple[float, float, float]] = []
    while len(polyps) < count:
        radius = float(np.exp(rng.uniform(np.log(0.13), np.log(0.55)))) / (1 + 0.5 * len(taken))
        spots = rng.uniform(-0.72, 0.72, (24, 2))
        column, row = ((spots + 1) * frame.size / 2).astype(int).T
        # anywhere that is lit: the best-lit spot would always lie far from the lumen
        score = np.minimum(light[row, column], 0.45) * visible[row, column]
        score = score + 0.1 * rng.random(len(spots))
        for x, y, r in taken:
            score -= 5.0 * (np.hypot(spots[:, 0] - x, spots[:, 1] - y) < 1.2 * (r + radius))
        x, y = (float(value) for value in spots[int(np.argmax(score))])
        if taken and score.max() < 0:
            break
        taken.append((x, y, radius))
        polyps.append(_polyp(frame, x, y, radius))
    return polyps


def _polyp(frame: _Frame, x: float, y: float, radius: float) -> _Polyp:
    """Raise one polyp of a random kind at (x, y)."""
    rng = frame.rng
    kind = rng.choice(["sessile", "pedunculated", "flat", "lobed"], p=[0.4, 0.18, 0.22, 0.2])
    stalk = np.zeros_like(frame.x)
    height = np.zeros_like(frame.x)
    if kind == "lobed":
        reach = np.full_like(frame.x, -9)
        for _ in range(int(rng.integers(3, 6))):
            away, turn = rng.uniform(0.25, 0.62) * radius, rng.uniform(0, 2 * np.pi)
            part = _outline(
                frame,
                x + away * np.cos(turn),
                y + away * np.sin(turn),
                radius * rng.uniform(0.45, 0.65),
            )
            lobe = 1 - part
            height = np.maximum(height, _dome(lobe, 0.85) * np.float32(0.42 * radius))
            reach = np.maximum(reach, lobe * np.float32(0.55))
    else:
        reach = 1 - _outline(frame, x, y, radius)
        if kind == "flat":
            height = _dome(reach, 2.0) * np.float32(rng.uniform(0.06, 0.13) * radius**0.5)
        else:
            height = _dome(reach, 0.8) * np.float32(rng.uniform(0.4, 0.7) * radius)
        if kind == "pedunculated":
            stalk, bulge = _stalk(frame, x, y, radius)
            height = np.where(reach > 0, height + 0.25 * radius, bulge).astype(np.float32)
    # without this the rim is a drawn line
    height = _blur(height, 2.6 * frame.size / 352)
    # a border of two pixels for raised polyps, wider for flat ones that fade into the mucosa
    border = (7.0 if kind == "flat" else 2.5) * max(frame.size / 352, 0.3)
    pixels = reach * np.float32(radius * frame.size / 2)
    alpha = np.clip(0.5 + pixels / border, 0, 1).astype(np.float32)
    # redder, alike, or paler than the mucosa; green and blue go together, or it turns violet
    tint = np.ones(3, np.float32)
    tint[0] = rng.normal(1.0, 0.04)
    tint[1:] = rng.choice([0.8, 0.98, 1.13], p=[0.45, 0.3, 0.25]) * rng.normal(1, [0.05, 0.06])
    return _Polyp(height, alpha, stalk * (1 - alpha), tint, float(rng.uniform(0.03, 0.1)))


def _outline(frame: _Frame, x: float, y: float, radius: float) -> Map:
    """Distance from (x, y) in units of the border: 1 on it; oblong, wavy, slightly warped."""
    rng = frame.rng
    turn, aspect = rng.uniform(0, np.pi), rng.uniform(1.0, 1.45)
    cosine, sine = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    dx, dy = frame.x - np.float32(x), frame.y - np.float32(y)
    along = (cosine * dx + sine * dy) * np.float32(1 / (radius * aspect**0.5))
    across = (cosine * dy - sine * dx) * np.float32(aspect**0.5 / radius)
    distance = np.sqrt(along * along + across * across)
    angle = np.arctan2(across, along)
    wave = np.zeros_like(distance)
    for order in (2, 3, 5):
        size = np.float32(rng.normal(0, 0.12 / order**0.8))
        wave += size * np.cos(order * angle + np.float32(rng.uniform(0, 2 * np.pi)))
    return distance * (1 + wave) + np.float32(0.018) * frame.noise(14, 2)


def _dome(reach: Map, power: float) -> Map:
    """Elevation 0…1 of a dome; `reach` is 1 in its middle and 0 on its border."""
    distance = 1 - np.clip(reach, 0, 1)
    return np.power(np.clip(1 - distance * distance, 0, 1), np.float32(power)).astype(np.float32)


def _stalk(frame: _Frame, x: float, y: float, radius: float) -> tuple[Map, Map]:
    """A stalk that leaves the head sideways: coverage and height, a bent half cylinder."""
    rng = frame.rng
    turn = rng.uniform(0, 2 * np.pi)
    length, thick = radius * rng.uniform(1.6, 2.6), radius * rng.uniform(0.28, 0.45)
    dx, dy = frame.x - np.float32(x), frame.y - np.float32(y)
    along = np.float32(np.cos(turn)) * dx + np.float32(np.sin(turn)) * dy
    across = np.float32(np.cos(turn)) * dy - np.float32(np.sin(turn)) * dx
    across = across + np.float32(rng.normal(0, 0.25) / radius) * along * along
    # it widens and sinks into the wall at its foot
    rest = np.clip(along / np.float32(length), 0, 1)
    width = np.float32(thick) * (1 + 0.9 * rest * rest)
    inside = np.clip(1 - (across / width) ** 2, 0, 1) * (along > 0) * (1 - rest)
    height = np.sqrt(inside) * np.float32(thick) * 0.8
    return np.clip(inside * 3, 0, 1).astype(np.float32), height.astype(np.float32)


def _cover(frame: _Frame, albedo: Map, polyp: _Polyp) -> Map:
    """Lay the polyp's own surface over the mucosa: its tint, its pits, no deep vessels."""
    smooth = _blur(albedo, 7 * frame.size / 352)
    pits = 1 + np.float32(polyp.texture) * frame.noise(42, 2)
    surface = (0.35 * albedo + 0.65 * smooth) * polyp.tint * pits[..., None]
    # tissue is never grey or green, however pale the mucosa it grew on
    surface[..., 1] = np.minimum(surface[..., 1], 0.62 * surface[..., 0])
    surface[..., 2] = np.minimum(surface[..., 2], 0.88 * surface[..., 1])
    alpha = polyp.alpha[..., None]
    return albedo * (1 - alpha) + surface * alpha


def _shade(frame: _Frame, height: Map, slope: tuple[Map, Map], coverage: Map) -> tuple[Map, Map]:
    """Light the surface from beside the camera: diffuse light 0…1, and highlights 0…1."""
    rng, size = frame.rng, frame.size
    scale = np.float32(size / 2 / 8)  # Sobel sums eight differences
    gx = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3) * scale
    gy = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3) * scale
    # the wall rises towards the camera away from the lumen
    nx, ny = -(gx + slope[0] * 0.5), -(gy + slope[1] * 0.5)
    lamp_x, lamp_y = rng.uniform(-0.35, 0.35, 2).astype(np.float32)
    away = np.float32(rng.uniform(1.1, 1.6))
    lx, ly = lamp_x - frame.x, lamp_y - frame.y
    length = np.sqrt(lx * lx + ly * ly + away * away)
    normal = np.sqrt(nx * nx + ny * ny + 1)
    diffuse = np.clip((nx * lx + ny * ly + away) / (length * normal), 0, 1)
    diffuse = (0.3 + 0.7 * diffuse) * (away * np.float32(1.1) / length) ** 2
    # the wet film has ripples of its own; the half vector lies between lamp and camera
    ripples = np.float32(rng.uniform(0.03, 0.09))
    ripple_x = ripples * frame.noise(30, 2)
    ripple_y = ripples * frame.noise(30, 2)
    bx, by = nx + ripple_x, ny + ripple_y
    hx, hy, hz = lx / length - frame.x * 0.4, ly / length - frame.y * 0.4, away / length + 1
    glint = (bx * hx + by * hy + hz) / np.sqrt(
        (bx * bx + by * by + 1) * (hx * hx + hy * hy + hz * hz)
    )
    # polyps are stretched smooth, and shine before the mucosa does
    glint = glint + np.float32(rng.uniform(0, 0.012)) * coverage
    # a share of the frame shines, whatever the geometry: from nearly dry to very wet
    share = float(np.exp(rng.uniform(np.log(0.001), np.log(0.012))))
    sample = np.sort(glint[::4, ::4], axis=None)
    bright = sample[int((1 - share) * (sample.size - 1))]
    start = sample[int((1 - 2.2 * share) * (sample.size - 1))]
    gloss = np.clip((glint - start) / max(float(bright - start), 1e-5), 0, 1.4)
    return diffuse.astype(np.float32), _blur(gloss, 0.7 * size / 352)


def _contact_shadow(frame: _Frame, polyps: list[_Polyp]) -> Map:
    """Factor on the light: what stands out keeps light from the wall around it."""
    factor = np.ones_like(frame.x)
    for one in polyps:
        body = np.maximum(one.alpha, one.stalk)
        spread = _blur(body, 5.5 * frame.size / 352)
        # the peak of a flat polyp throws next to no shadow
        depth = np.float32(np.clip(one.height.max() * 2, 0.04, 0.42))
        factor *= 1 - depth * spread * (1 - body)
    return factor


def _develop(frame: _Frame, albedo: Map, light: Map, gloss: Map, visible: Map) -> NDArray[np.uint8]:
    """Camera and processor: exposure, tone curve, blur, noise, the black surround."""
    rng, size = frame.rng, frame.size
    seen = light[visible > 0.5]
    exposure = np.float32(rng.uniform(0.7, 1.15) / (np.quantile(seen[::16], 0.8) + 1e-3))
    linear = albedo * (light * exposure)[..., None]
    # white balance differs between towers; light that went deep comes back red
    linear *= rng.uniform(0.95, 1.05, 3).astype(np.float32)
    linear[..., 1:] *= (0.72 + 0.28 * np.clip(light * exposure * 2, 0, 1))[..., None]
    linear += gloss[..., None] * np.array([0.95, 0.93, 0.9], np.float32)
    image = 1 - np.exp(-1.5 * linear)
    image = np.asarray(cv2.pow(image, 0.9), dtype=np.float32)
    defocus = rng.uniform(0.35, 1.1) * size / 352
    image = _blur(image, max(0.3, float(defocus)))
    if rng.random() < 0.12:
        image = cv2.filter2D(image, -1, _motion(rng, size))
    grain = rng.standard_normal((size, size), dtype=np.float32) * np.float32(
        rng.uniform(0.004, 0.014)
    )
    image = (image + grain[..., None]) * visible[..., None]
    image += (1 - visible[..., None]) * np.float32(rng.uniform(0.0, 0.05))
    return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)


def _blur(values: Map, sigma: float) -> Map:
    """Gaussian blur with a standard deviation in pixels."""
    return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma), dtype=np.float32)


def _motion(rng: np.random.Generator, size: int) -> Map:
    """Kernel of a short movement during the exposure."""
    reach = max(1, round(rng.uniform(2, 5) * size / 352))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    turn = rng.uniform(0, np.pi)
    end = np.array([np.cos(turn), np.sin(turn)]) * reach
    first, last = np.rint(reach - end).astype(int), np.rint(reach + end).astype(int)
    cv2.line(kernel, tuple(first.tolist()), tuple(last.tolist()), 1.0)
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)
