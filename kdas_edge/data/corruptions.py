"""Corruptions of endoscopic images at three strengths, reproducible.

    corrupt(frame, "motion_blur", strength=2, name="case_17", seed=0)

Each corruption imitates one cause in the room: a moving or unfocused lens, the lamp and the wet
mucosa, exposure control, bubbles, smoke of electrocautery, coding for storage or transmission, the
sensor, white balance. Lengths scale with the shorter side of the frame, so that a strength looks
alike at every resolution. Strength 1 is everyday, 2 is poor, 3 is bad but a person still sees the
polyp. The mask stays valid: no corruption moves a pixel, except bubbles within themselves.

Random choices come from the seed, the image's name and the corruption alone, and not from order or
machine: two models, or two runs, see the same pixels. Uses NumPy and OpenCV only.
"""

import hashlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.errors import UserError

STRENGTHS = (1, 2, 3)
SEED = 0
Frame = NDArray[np.uint8]
Map = NDArray[np.floating[Any]]
# what lies below this is the dark surround of an endoscopic image, 0…255
_SURROUND = 16
_GAMMA = 2.2
_MACROBLOCK = 16


def corrupt(
    frame: Frame, corruption: str, strength: int, name: str = "", seed: int = SEED
) -> Frame:
    """Corrupt one frame.

    Args:
        frame: (H, W, 3) uint8 RGB.
        corruption: a key of `CORRUPTIONS`.
        strength: 1, 2 or 3; 0 gives the frame back.
        name: of the image; other names draw other bubbles, angles and noise.
        seed: other seeds draw others again.

    Returns:
        (H, W, 3) uint8 RGB, a new array.

    Raises:
        UserError: no such corruption or strength, or a frame of another shape or type.
    """
    draw = CORRUPTIONS[check_names([corruption])[0]]
    if strength not in (0, *STRENGTHS):
        raise UserError(f"strength {strength!r} of a corruption: choose 0, 1, 2 or 3")
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
        raise UserError(f"a frame is (H, W, 3) uint8 RGB, not {frame.shape} {frame.dtype}")
    if strength == 0:
        return frame.copy()
    # without the strength: a higher one is the same corruption, only stronger
    key = f"{seed}\0{name}\0{corruption}".encode(errors="surrogateescape")
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(key).digest()[:8]))
    return draw(np.ascontiguousarray(frame), strength - 1, rng)


def check_names(names: list[str]) -> list[str]:
    """The names, if all are corruptions.

    Raises:
        UserError: names the one that is not, and those there are.
    """
    for name in names:
        if name not in CORRUPTIONS:
            raise UserError(f"no corruption {name!r}; choose among {', '.join(CORRUPTIONS)}")
    return names


def motion_blur(frame: Frame, level: int, rng: np.random.Generator) -> Frame:
    """The tip moves during the exposure: a line of 2, 4 or 7 % of the side, in any direction."""
    length = max(2.0, (0.02, 0.04, 0.07)[level] * _side(frame))
    angle = rng.uniform(0, np.pi)
    reach = int(np.ceil(length / 2)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    for step in np.linspace(-length / 2, length / 2, 8 * reach):
        x, y = reach + step * np.cos(angle), reach + step * np.sin(angle)
        column, row = int(x), int(y)
        right, down = x - column, y - row
        kernel[row : row + 2, column : column + 2] += np.outer((1 - down, down), (1 - right, right))
    return _filter(frame, kernel)


def defocus(frame: Frame, level: int, rng: np.random.Generator) -> Frame:
    """The lens is too near or too far: a disc of radius 0.5, 1 or 2 % of the side."""
    radius = max(0.7, (0.005, 0.010, 0.020)[level] * _side(frame) * rng.uniform(0.9, 1.1))
    reach = int(np.ceil(radius)) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return _filter(frame, np.clip(radius + 0.5 - np.hypot(y, x), 0, 1).astype(np.float32))


def specular(frame: Frame, level: int, rng: np.random.Generator) -> Frame:
    """The lamp is mirrored in wet mucosa: white, sharp, elongated spots where the image is bright.

    The polyp is as wet as all else, so that spots lie on it too.
    """
    count = (25, 70, 160)[level]
    side = _side(frame)
    alpha = np.zeros(frame.shape[:2], np.float32)
    brightness = cv2.GaussianBlur(_grey(frame), (0, 0), side / 40) * _view(frame)
    chance = (brightness.astype(np.float64) ** 2).ravel()
    if not chance.any():
        return frame.copy()
    places = rng.choice(chance.size, count, p=chance / chance.sum())
    for place in places:
        row, column = divmod(int(place), frame.shape[1])
        long = side * rng.gamma(1.5, 0.0035 + 0.0015 * level)
        size = (max(1, round(long)), max(1, round(long * rng.uniform(0.25, 0.8))))
        cv2.ellipse(alpha, (column, row), size, rng.uniform(0, 180), 0, 360, 1.0, -1, cv2.LINE_8)
    ragged = cv2.GaussianBlur(alpha, (0, 0), side / 250) + 0.9 * (_clouds(rng, frame, 80) - 0.5)
    spots = np.clip((ragged - 0.4) * 6, 0, 1) * (cv2.dilate(alpha, np.ones((3, 3))) > 0)
    light = cv2.GaussianBlur(spots.astype(np.float32), (0, 0), max(0.6, side / 600))
    glare = cv2.GaussianBlur(light, (0, 0), side / 40)
    return _blend(frame, np.array([255.0, 252, 248]), np.clip(light + 0.5 * glare, 0, 1))


def overexposure(frame: Frame, level: int, rng: np.random.Generator) -> Frame:
    """The lamp is too near: light times 1.4, 2 or 3, more in the lit middle, and clipped."""
    gain = (1.4, 2.0, 3.0)[level] * rng.uniform(0.9, 1.1)
    rows, columns = frame.shape[:2]
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    row, column = rows * rng.uniform(0.35, 0.65), columns * rng.uniform(0.35, 0.65)
    near = np.exp(-((y - row) ** 2 + (x - column) ** 2) / (0.5 * _side(frame)) ** 2)
    light = _light(frame) * (1 + (gain - 1) * (0.6 + 0.6 * near))[..., None]
    # what a saturated region scatters into its neighbourhood
    bloom = cv2.GaussianBlur(np.clip(light - 1, 0, 2), (0, 0), _side(frame) / 60)
    return _pixels(light + 0.3 * bloom)


def underexposure(frame: Frame, level: int, rng: np.random.Generator) -> Frame:
    """Too little light, a half, a fifth or a tenth, with the noise that the gain brings up."""
    gain = (0.5, 0.2, 0.1)[level] * rng.uniform(0.9, 1.1)
    dark = _light(frame) * gain
    noise = rng.standard_normal(frame.shape, dtype=np.float32)
    return _pixels(dark + (0.0004 + 0.006 * np.sqrt(dark)) * noise)


def bubbles(frame: Frame, level: int, rng: np.random.Generator) -> Frame:
    """Bubbles on the mucosa: each shows its ground smaller, with a dark and a bright rim."""
    count = (20, 40, 80)[level]
    side = _side(frame)
    out = frame.astype(np.float32)
    columns = frame.shape[1]
    view = np.flatnonzero(_view(frame) > 0.5)
    if not len(view):
        return frame.copy()
    # foam gathers: most bubbles lie near one of a few places
    homes = rng.choice(view, 3)
    for index in range(count):
        home = int(homes[index % 3] if rng.random() < 0.7 else rng.choice(view))
        row = home // columns + rng.normal(0, 0.08) * side
        column = home % columns + rng.normal(0, 0.08) * side
        _bubble(out, row, column, side * rng.uniform(0.012, 0.035 + 0.008 * level), rng)
    return np.where(_view(frame)[..., None] > 0.5, out, frame).round().clip(0, 255).astype(np.uint8)


def smoke(frame: Frame, level: int, rng: np.random.Generator) -> Frame:
    """Smoke of electrocautery: a grey veil in clouds that hides 20, 40 or 60 % of the contrast."""
    density = (0.2, 0.4, 0.6)[level] * (0.6 + 0.8 * _clouds(rng, frame, 5, octaves=4))
    colour = np.array([205.0, 200, 198])
    return _blend(frame, colour, np.clip(density, 0, 0.9) * _view(frame))


def jpeg(frame: Frame, level: int, rng: np.random.Generator) -> Frame:
    """Stored as JPEG of quality 40, 18 or 8 (the usual is 90)."""
    quality = (40, 18, 8)[level]
    stored = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    shown = np.asarray(cv2.imdecode(stored, cv2.IMREAD_COLOR), dtype=np.uint8)
    return np.ascontiguousarray(shown[..., ::-1])


def video_blocking(frame: Frame, level: int, rng: np.random.Generator) -> Frame:
    """A video stream short of bits: runs of macroblocks lose their detail, colour lies coarser.

    A quarter, a half or 70 % of the 16×16 blocks keep 4×4, 3×3 or 2×2 values.
    """
    share, kept = (0.25, 0.5, 0.7)[level], (4, 3, 2)[level]
    rows, columns = frame.shape[:2]
    down, across = -(-rows // _MACROBLOCK), -(-columns // _MACROBLOCK)
    whole = cv2.copyMakeBorder(
        frame, 0, down * _MACROBLOCK - rows, 0, across * _MACROBLOCK - columns, cv2.BORDER_REPLICATE
    )
    size = (whole.shape[1], whole.shape[0])
    coarse = cv2.resize(whole, (across * kept, down * kept), interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(coarse, size, interpolation=cv2.INTER_NEAREST)
    # a slice of a stream is a run of blocks in reading order
    lost = np.zeros(down * across, np.uint8)
    while lost.mean() < share:
        start = int(rng.integers(len(lost)))
        lost[start : start + int(rng.integers(2, 2 + across // 2 + 1))] = 1
    chosen = cv2.resize(lost.reshape(down, across), size, interpolation=cv2.INTER_NEAREST)
    mixed = np.where(chosen[..., None] > 0, coarse, whole)
    ycc = cv2.cvtColor(mixed, cv2.COLOR_RGB2YCrCb)
    chroma = cv2.resize(ycc, (size[0] // 8, size[1] // 8), interpolation=cv2.INTER_AREA)
    ycc[..., 1:] = cv2.resize(chroma, size, interpolation=cv2.INTER_NEAREST)[..., 1:]
    result = cv2.cvtColor(ycc, cv2.COLOR_YCrCb2RGB)[:rows, :columns]
    return np.ascontiguousarray(result, dtype=np.uint8)


def noise(frame: Frame, level: int, rng: np.random.Generator) -> Frame:
    """Noise of photons and of the sensor, 4, 9 or 18 % of the range in mid-grey."""
    scale = (0.04, 0.09, 0.18)[level] * 255
    grain = rng.standard_normal(frame.shape, dtype=np.float32)
    # a sensor sees one colour per pixel, so that colour noise is smoother than brightness noise
    soft = cv2.GaussianBlur(grain, (0, 0), 0.8) * 2.0
    brightness = rng.standard_normal((*frame.shape[:2], 1), dtype=np.float32)
    spread = np.sqrt(0.2 + 1.6 * frame.astype(np.float32) / 255)
    noisy = frame + scale * spread * (0.6 * brightness + 0.5 * soft)
    return np.rint(noisy).clip(0, 255).astype(np.uint8)


def colour_cast(frame: Frame, level: int, rng: np.random.Generator) -> Frame:
    """White balance is off: the image leans to one hue, brightness kept."""
    amount = (0.15, 0.3, 0.5)[level]
    hue = rng.uniform(0, 2 * np.pi)
    shift = np.cos(hue + np.array([0, 2 * np.pi / 3, 4 * np.pi / 3]))
    light = _light(frame) * np.exp2(amount * 2 * shift).astype(np.float32)
    weights = np.array([0.2126, 0.7152, 0.0722], np.float32)
    before = float((_light(frame) @ weights).mean())
    after = float((light @ weights).mean())
    return _pixels(light * (before / after if after else 1.0))


CORRUPTIONS: dict[str, Callable[[Frame, int, np.random.Generator], Frame]] = {
    "motion_blur": motion_blur,
    "defocus": defocus,
    "specular": specular,
    "overexposure": overexposure,
    "underexposure": underexposure,
    "bubbles": bubbles,
    "smoke": smoke,
    "jpeg": jpeg,
    "video_blocking": video_blocking,
    "noise": noise,
    "colour_cast": colour_cast,
}


def _bubble(out: Map, row: float, column: float, radius: float, rng: np.random.Generator) -> None:
    """Draw one bubble into (H, W, 3) float32, in place."""
    rows, columns = out.shape[:2]
    top, left = max(0, int(row - radius - 2)), max(0, int(column - radius - 2))
    bottom, right = min(rows, int(row + radius + 3)), min(columns, int(column + radius + 3))
    if top >= bottom or left >= right:
        return
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32)
    away = np.hypot(y - row, x - column) / radius
    # a thin film acts as a weak lens: what lies below is contracted towards the rim
    pull = 1 + 0.5 * np.clip(away, 0, 1) ** 2
    seen = cv2.remap(
        out.astype(np.float32),
        (column + (x - column) * pull).astype(np.float32),
        (row + (y - row) * pull).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )
    softness = 1.2 / radius
    inside = np.clip((1 - away) / softness, 0, 1)
    # lit from one side: the rim is bright there and dark opposite
    toward = ((y - row) * np.sin(-2.2) + (x - column) * np.cos(-2.2)) / radius
    rim = np.exp(-(((away - 0.9) / 0.09) ** 2))
    shade = rim * (80 * toward - 30)
    glint = np.hypot(y - row + 0.45 * radius, x - column + 0.3 * radius) / radius
    light = 200 * np.exp(-((glint / rng.uniform(0.1, 0.18)) ** 2))
    drawn = seen * 0.97 + (6 + shade + light)[..., None]
    patch = out[top:bottom, left:right]
    out[top:bottom, left:right] = patch + (drawn - patch) * inside[..., None]


def _side(frame: Frame) -> int:
    return min(frame.shape[:2])


def _grey(frame: Frame) -> Map:
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), dtype=np.float32)


def _view(frame: Frame) -> Map:
    """(H, W) 0…1: the field of view without the dark surround, with a soft edge."""
    bright = (frame.max(axis=2) > _SURROUND).astype(np.uint8)
    reach = max(3, _side(frame) // 20) | 1
    closed = cv2.morphologyEx(bright, cv2.MORPH_CLOSE, np.ones((reach, reach), np.uint8))
    soft = cv2.GaussianBlur(closed.astype(np.float32), (0, 0), max(1.0, _side(frame) / 100))
    # 0 on the border of the view and outside of it, 1 a few pixels within
    return np.asarray(np.clip(2 * soft - 1, 0, 1), dtype=np.float32)


def _clouds(rng: np.random.Generator, frame: Frame, cells: int, octaves: int = 1) -> Map:
    """(H, W) smooth noise of mean 0.5, mostly in 0…1; `cells` of the coarsest grid span a side."""
    rows, columns = frame.shape[:2]
    total = np.zeros((rows, columns), np.float32)
    power = 0.0
    for octave in range(octaves):
        count = min(cells * 2**octave, rows, columns)
        grid = rng.standard_normal((count, count), dtype=np.float32)
        wave = cv2.resize(grid, (columns, rows), interpolation=cv2.INTER_CUBIC)
        total += np.float32(0.5**octave) * wave
        power += 0.25**octave
    return np.clip(0.5 + 0.25 * total / np.sqrt(power), 0, 1)


def _light(frame: Frame) -> NDArray[np.float32]:
    """(H, W, 3) linear light, 0…1."""
    table = ((np.arange(256) / 255) ** _GAMMA).astype(np.float32)
    return table[frame]


def _pixels(light: Map) -> Frame:
    coded = np.clip(light, 0, 1) ** (1 / _GAMMA)
    return np.asarray(np.rint(coded * 255), dtype=np.uint8)


def _filter(frame: Frame, kernel: Map) -> Frame:
    """Blur in linear light, where it happens, so that highlights stay bright."""
    kernel = kernel / kernel.sum()
    blurred = cv2.filter2D(_light(frame), -1, kernel, borderType=cv2.BORDER_REPLICATE)
    return _pixels(np.asarray(blurred, dtype=np.float32))


def _blend(frame: Frame, colour: NDArray[np.float64], alpha: Map) -> Frame:
    mixed = frame + (colour - frame) * alpha[..., None]
    return np.asarray(np.rint(mixed).clip(0, 255), dtype=np.uint8)
