"""How well and how fast the endoscope's picture is found on a screen, and what cutting to it does.

1. Screens of three hospitals (PolypGen), against boxes found by eye (`field_of_view_boxes.csv`).
2. Drawn circles, against the content-area estimator of Budd et al. 2022 (MICCAI; edge points on 16
   horizontal strips, scored by gradient, direction and the darkness before them, then a circle by
   RANSAC), written anew here from the paper's description.
3. Frames without a border: how many are taken whole, and how many polyp pixels are cut off.
4. Time of one 1080p frame on one core.
5. Dice of a bundle on whole frames and on frames cut to the picture.

    python benchmarks/field_of_view.py ../shared/data --json field_of_view.json
"""

import argparse
import csv
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.console import progress, table
from kdas_edge.data.layout import Pair, find_pairs, read_pair
from kdas_edge.data.synthetic import scene
from kdas_edge.errors import UserError
from kdas_edge.files import write_json
from kdas_edge.image_files import read_image
from kdas_edge.metrics.overlap import dice
from kdas_edge.process import one_line_errors
from kdas_edge.runtime import Segmenter
from kdas_edge.runtime.field_of_view import find_field_of_view
from kdas_edge.runtime.frames import Roi

BOXES = Path(__file__).with_name("field_of_view_boxes.csv")
BORDERLESS = ("Kvasir", "CVC-ClinicDB", "CVC-300")
Frame = NDArray[np.uint8]


def overlap(one: Roi | None, other: Roi) -> float:
    """Intersection over union of two boxes; 0 where one was not found."""
    if one is None:
        return 0.0
    width = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
    height = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
    both = max(width, 0) * max(height, 0)
    return both / (one.width * one.height + other.width * other.height - both)


def on_screens(images: Path) -> list[dict[str, Any]]:
    """Overlap with the boxes found by eye, by centre and size of the screen."""
    found: dict[str, list[float]] = {}
    with BOXES.open() as file:
        for row in csv.DictReader(file):
            frame = read_image(images / row["image"])
            wanted = Roi(*(int(row[key]) for key in ("x", "y", "width", "height")))
            group = f"{row['image'][:2]} {frame.shape[1]}×{frame.shape[0]}"
            found.setdefault(group, []).append(overlap(find_field_of_view(frame), wanted))
    found["all"] = [value for values in found.values() for value in values]
    return [summary(group, values) for group, values in found.items()]


def summary(name: str, values: Sequence[float]) -> dict[str, Any]:
    good = float(np.mean(np.asarray(values) > 0.95))
    return {
        "set": name,
        "frames": len(values),
        "mean": round(float(np.mean(values)), 4),
        "worst": round(min(values), 4),
        "above_0.95": round(good, 4),
    }


def circle_frame(seed: int) -> tuple[Frame, Roi]:
    """A circle of 1080p or 720p, dark towards its edge, perhaps cut at the top and bottom."""
    rng = np.random.default_rng(seed)
    height, width = (1080, 1920) if seed % 2 else (720, 1280)
    radius = rng.uniform(0.42, 0.58) * height
    x = width / 2 + rng.uniform(-0.1, 0.1) * width
    y = height / 2 + rng.uniform(-0.03, 0.03) * height
    down, across = np.mgrid[:height, :width]
    distance = np.hypot(across - x, down - y) / radius
    picture = scene(seed, 512)[0]
    picture = cv2.resize(picture, (width, height)).astype(np.float32)
    picture *= (1 - rng.uniform(0, 0.75) * distance[..., None] ** 4).astype(np.float32)
    frame = rng.integers(0, int(rng.integers(4, 22)), (height, width, 3)).astype(np.float32)
    frame[distance < 1] = picture[distance < 1]
    left, top = max(round(x - radius), 0), max(round(y - radius), 0)
    right, bottom = min(round(x + radius), width), min(round(y + radius), height)
    return frame.clip(0, 255).astype(np.uint8), Roi(left, top, right - left, bottom - top)


def on_circles(count: int) -> list[dict[str, Any]]:
    ours, theirs = [], []
    with progress(count, "circles") as advance:
        for seed in range(count):
            frame, wanted = circle_frame(seed)
            ours.append(overlap(find_field_of_view(frame), wanted))
            theirs.append(overlap(content_area(frame), wanted))
            advance()
    return [summary("this function", ours), summary("strips and RANSAC", theirs)]


def content_area(frame: Frame, strips: int = 16, seed: int = 0) -> Roi | None:
    """The box of the circle found from edge points on horizontal strips (Budd et al. 2022)."""
    height, width = frame.shape[:2]
    grey = frame.astype(np.float32) @ np.float32([0.2126, 0.7152, 0.0722])
    places = np.arange(strips) - strips / 2 + 0.5
    rows = (1 + (height - 2) / (1 + np.exp(-places / (strips / 8)))).astype(int).clip(1, height - 2)
    points = []
    for row in rows:
        band = cv2.GaussianBlur(grey[row - 1 : row + 2], (1, 1), 0)
        across = cv2.Sobel(band, cv2.CV_32F, 1, 0, scale=0.25)[1]
        down = cv2.Sobel(band, cv2.CV_32F, 0, 1, scale=0.25)[1]
        gradient = np.hypot(across, down)
        x = np.arange(width)
        towards = np.stack([width / 2 - x, np.full(width, height / 2 - row)])
        cosine = (towards[0] * across + towards[1] * down) / np.maximum(
            np.hypot(*towards) * gradient, 1e-6
        )
        angle = np.degrees(np.arccos(cosine.clip(-1, 1)))
        for half in (x[1 : width // 2], x[: width // 2 : -1][1:]):
            before = np.maximum.accumulate(grey[row, half])
            score = (
                np.tanh(gradient[half] / 20)
                * (1 - np.tanh(angle[half] / 30))
                * (1 - np.tanh(before / 25))
            )
            best = int(score.argmax())
            if score[best] > 0.03:
                points.append((half[best], row))
    return circle_box(np.asarray(points, np.float64), height, width, seed)


def circle_box(points: NDArray[np.float64], height: int, width: int, seed: int) -> Roi | None:
    """The circle through most of the points (RANSAC with a fit of the inliers), as a box."""
    if len(points) < 3:
        return None
    rng = np.random.default_rng(seed)
    best, most = None, 0
    for _ in range(32):
        chosen = rng.choice(len(points), 3, replace=False)
        for _ in range(3):
            x, y, radius = fit_circle(points[chosen])
            distance = np.abs(np.hypot(points[:, 0] - x, points[:, 1] - y) - radius)
            chosen = np.flatnonzero(distance < 0.003 * width + 3)
            if len(chosen) < 3:
                break
        if len(chosen) > most and 0.1 * width < radius < 0.8 * width:
            best, most = (x, y, radius), len(chosen)
    if best is None:
        return None
    x, y, radius = best
    left, top = max(round(x - radius), 0), max(round(y - radius), 0)
    right, bottom = min(round(x + radius), width), min(round(y + radius), height)
    return Roi(left, top, right - left, bottom - top)


def fit_circle(points: NDArray[np.float64]) -> tuple[float, float, float]:
    """Centre and radius of the circle of least squares through (N, 2) points."""
    matrix = np.column_stack([points, np.ones(len(points))])
    a, b, c = np.linalg.lstsq(matrix, (points**2).sum(axis=1), rcond=None)[0]
    return a / 2, b / 2, float(np.sqrt(max(c + (a * a + b * b) / 4, 0)))


def without_border(pairs: Sequence[Pair]) -> dict[str, Any]:
    """How many frames are taken whole, and the largest share of a polyp that is cut off."""
    whole, cut = 0, 0.0
    for pair in pairs:
        image, mask = read_pair(pair)
        box = find_field_of_view(image)
        height, width = mask.shape
        whole += box is None or box == Roi(0, 0, width, height)
        if box is not None and mask.any():
            cut = max(cut, 1 - float(mask[box.slices].sum()) / float(mask.sum()))
    return {"frames": len(pairs), "taken_whole": whole, "largest_cut": round(cut, 5)}


def milliseconds(images: Path, rounds: int) -> dict[str, float]:
    """Time of a 1080p frame on one core: by the clock, and of the processor alone."""
    cv2.setNumThreads(1)
    frames = [cv2.resize(read_image(path), (1920, 1080)) for path in sorted(images.iterdir())[:8]]
    clock, processor = [], []
    for index in range(rounds):
        start, used = time.perf_counter(), time.thread_time()
        find_field_of_view(frames[index % len(frames)])
        clock.append(time.perf_counter() - start)
        processor.append(time.thread_time() - used)
    return {
        "clock_p50": round(1e3 * float(np.median(clock)), 3),
        "clock_p10": round(1e3 * float(np.percentile(clock, 10)), 3),
        "processor_p50": round(1e3 * float(np.median(processor)), 3),
    }


def dice_cut_and_whole(bundle: Path | None, sets: dict[str, list[Pair]]) -> list[dict[str, Any]]:
    """Mean Dice of a bundle on polyp frames, whole and cut to the picture."""
    rows = []
    target = "openvino:CPU"
    with Segmenter.load(bundle, target) as whole, Segmenter.load(bundle, target, roi="auto") as cut:
        for name, pairs in sets.items():
            scores: tuple[list[float], list[float]] = ([], [])
            with progress(len(pairs), name) as advance:
                for pair in pairs:
                    image, mask = read_pair(pair)
                    cut.forget_region()  # each image is another source
                    if mask.any():
                        for segmenter, values in zip((whole, cut), scores, strict=True):
                            values.append(dice(segmenter.segment(image, "rgb").mask, mask))
                    advance()
            means = [round(float(np.mean(values)), 4) for values in scores]
            rows.append({"set": name, "frames": len(scores[0]), "whole": means[0], "cut": means[1]})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder that holds polypgen/ and pranet/")
    parser.add_argument("--bundle", type=Path, help="for the Dice; the shipped student by default")
    parser.add_argument("--circles", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=400, help="timed frames")
    parser.add_argument("--limit", type=int, help="frames of each set for the Dice; all by default")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    images = args.data / "polypgen" / "images"
    if not images.is_dir():
        raise UserError(f"{images} does not exist; name the folder that holds polypgen/")
    sets = {
        name: find_pairs(args.data / "pranet" / "TestDataset" / name).pairs for name in BORDERLESS
    }
    screens = {"PolypGen (whole screens)": find_pairs(args.data / "polypgen").pairs}
    every = max(1, len(screens["PolypGen (whole screens)"]) // 150)
    screens = {name: pairs[::every] for name, pairs in screens.items()}
    found = {
        "screens": on_screens(images),
        "circles": on_circles(args.circles),
        "without_border": {name: without_border(pairs) for name, pairs in sets.items()},
        "milliseconds_1080p": milliseconds(images, args.rounds),
        "dice": dice_cut_and_whole(
            args.bundle,
            {name: pairs[: args.limit] for name, pairs in {**sets, **screens}.items()},
        ),
    }
    headings = ["set", "frames", "mean", "worst", "above_0.95"]
    for key in ("screens", "circles"):
        table(
            f"{key}: IoU of the box", headings, [[row[h] for h in headings] for row in found[key]]
        )
    table(
        "frames of cut data sets",
        ["set", "frames", "taken whole", "largest share of a polyp cut off"],
        [[name, *row.values()] for name, row in found["without_border"].items()],
    )
    table("Dice", ["set", "frames", "whole", "cut"], [list(row.values()) for row in found["dice"]])
    print(f"1080p, one core, ms: {found['milliseconds_1080p']}")
    if args.json:
        write_json(args.json, found)


if __name__ == "__main__":
    with one_line_errors():
        main()
