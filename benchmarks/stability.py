"""What do the measures against flicker buy, and what do they cost? On clips with known masks.

    python benchmarks/stability.py bundles/student --json stability.json
    python benchmarks/stability.py bundles/student --images DATA/TestDataset/Kvasir --json …

Clips are made of still pictures by a moving window (`moving_clips.py`): synthetic scenes, or real
images with masks. The network runs once per frame, and every setting steadies the same
probabilities. Per setting:

- flicker: regions that appear or disappear from one frame to the next, per second of polyp clips;
- false episodes: runs of marked frames per minute of polyp-free clips;
- delay: from the first frame with the polyp in view (0.5 % of the frame) to the first that marks a
  tenth of it; `added` is the median over the clips against no measure at all;
- Dice over the frames with the polyp in view.
"""

import argparse
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from moving_clips import Clip, Picture, make_clip, pictures, scenes
from numpy.typing import NDArray

from kdas_edge.console import info, progress, table
from kdas_edge.environment import describe
from kdas_edge.errors import UserError
from kdas_edge.files import check_output_file, write_json
from kdas_edge.metrics import overlap
from kdas_edge.process import one_line_errors
from kdas_edge.runtime.segmenter import Segmenter
from kdas_edge.video.stabiliser import Stabiliser, StabilityOptions, parse_persist, steady

Masks = Sequence[NDArray[np.bool_]]
# share of the polyp that must be marked to count as found
FOUND = 0.1


def changes(masks: Masks) -> int:
    """Components that appear or disappear between consecutive frames."""
    count = 0
    for before, after in pairwise(masks):
        count += _without_partner(after, before) + _without_partner(before, after)
    return count


def _without_partner(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> int:
    if not mask.any():
        return 0
    number, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    return number - 1 - len(np.setdiff1d(labels[other], [0]))


def episodes(masks: Masks) -> int:
    """Runs of consecutive frames in which anything is marked."""
    marked = [False, *(bool(mask.any()) for mask in masks)]
    return sum(after and not before for before, after in pairwise(marked))


def delay(masks: Masks, truth: Masks, visible_from: int) -> int | None:
    """Frames from the polyp in view to a tenth of it marked; None if that never happens."""
    for index in range(visible_from, len(masks)):
        size = int(truth[index].sum())
        if size and int((masks[index] & truth[index]).sum()) >= FOUND * size:
            return index - visible_from
    return None


def dice(masks: Masks, truth: Masks, visible_from: int) -> float:
    """Mean Dice over the frames with the polyp in view."""
    scores = [
        overlap.dice(mask, wanted)
        for mask, wanted in zip(masks[visible_from:], truth[visible_from:], strict=True)
    ]
    return float(np.mean(scores))


def settings(smooth: float, persist: tuple[int, int], low: float) -> dict[str, StabilityOptions]:
    """By name: no measure, each alone, all together."""
    return {
        "none": StabilityOptions(),
        f"smooth {smooth:g}": StabilityOptions(smooth=smooth),
        f"hysteresis {low:g}": StabilityOptions(hysteresis=low),
        "persist {}/{}".format(*persist): StabilityOptions(persist=persist),
        "all three": StabilityOptions(smooth, persist, low),
    }


def masks_of(
    segmenter: Segmenter, clip: Clip, options: dict[str, StabilityOptions]
) -> dict[str, Masks]:
    """The masks of every setting, from one inference per frame."""
    threshold = segmenter.bundle.manifest.threshold
    stabilisers = {name: Stabiliser(one, threshold) for name, one in options.items()}
    found: dict[str, list[NDArray[np.bool_]]] = {name: [] for name in options}
    for frame in clip.frames:
        result = segmenter.segment(frame)
        for name, stabiliser in stabilisers.items():
            found[name].append(steady(stabiliser, result, frame).mask)
    return found


def measure(clip: Clip, masks: Masks) -> dict[str, Any]:
    """The figures of one clip under one setting."""
    visible_from = clip.visible_from
    row: dict[str, Any] = {"clip": clip.name, "frames": len(masks)}
    if visible_from is None:
        return {**row, "episodes": episodes(masks), "marked": sum(bool(m.any()) for m in masks)}
    return {
        **row,
        "changes": changes(masks),
        "delay": delay(masks, clip.truth, visible_from),
        "dice": dice(masks, clip.truth, visible_from),
    }


def summarise(
    rows: Sequence[dict[str, Any]], plain: Sequence[dict[str, Any]], fps: float
) -> dict[str, Any]:
    """The figures of a setting; `plain` are the rows of the same clips without any measure."""
    seen = [row for row in rows if "dice" in row]
    empty = [row for row in rows if "episodes" in row]
    both = [
        (row["delay"], other["delay"])
        for row, other in zip(rows, plain, strict=True)
        if row.get("delay") is not None and other.get("delay") is not None
    ]
    delays = [row["delay"] for row in seen if row["delay"] is not None]
    ms = 1e3 / fps
    return {
        "changes_per_second": _per(seen, "changes", fps),
        "false_episodes_per_minute": _per(empty, "episodes", fps, 60),
        "false_frames": _per(empty, "marked", 1),
        "found": len(delays),
        "delay_ms": ms * float(np.median(delays)) if delays else None,
        "added_delay_ms": ms * float(np.median([a - b for a, b in both])) if both else None,
        "largest_added_delay_ms": ms * max(a - b for a, b in both) if both else None,
        "dice": float(np.mean([row["dice"] for row in seen])) if seen else None,
    }


def _per(rows: Sequence[dict[str, Any]], name: str, fps: float, unit: int = 1) -> float | None:
    frames = sum(row["frames"] for row in rows)
    return unit * fps * sum(row[name] for row in rows) / frames if frames else None


def clips_of(arguments: argparse.Namespace, polyp: bool) -> Iterator[Clip]:
    """Up to `--clips` clips of one kind."""
    source: Iterator[Picture]
    if arguments.images is None:
        source = scenes(polyp, arguments.seed, arguments.side)
    else:
        source = pictures(arguments.images, arguments.seed)
    frames, made = max(1, round(arguments.seconds * arguments.fps)), 0
    for picture in source:
        clip = make_clip(picture, polyp, frames, arguments.fps, arguments.side, arguments.seed)
        if clip is not None:
            yield clip
            made += 1
        if made == arguments.clips:
            return


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--images", type=Path, help="a folder with images/ and masks/")
    parser.add_argument("--clips", type=int, default=12, help="of each kind (12)")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--fps", type=float, default=25.0)
    parser.add_argument("--side", type=int, default=384, help="of a frame, in pixels (384)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smooth", type=float, default=0.6)
    parser.add_argument("--persist", default="3/5")
    parser.add_argument("--hysteresis", type=float, default=0.3)
    parser.add_argument("--target", default="openvino:CPU")
    parser.add_argument("--precision", help="by default int8 where the bundle has it")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    if arguments.clips < 1 or not arguments.fps > 0 or arguments.side < 32:
        raise UserError("take at least 1 clip, a frame rate above 0, and a side of 32 pixels")
    if not arguments.seconds > 2:
        raise UserError(f"--seconds {arguments.seconds:g}: the pan ends after 2; take 4")
    options = settings(arguments.smooth, parse_persist(arguments.persist), arguments.hysteresis)
    if arguments.json is not None:
        check_output_file(arguments.json)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in options}
    with Segmenter.load(arguments.bundle, arguments.target, arguments.precision) as segmenter:
        model = {"name": segmenter.bundle.name, "precision": segmenter.precision}
        threshold = segmenter.bundle.manifest.threshold
        with progress(2 * arguments.clips, "clips") as advance:
            for polyp in (True, False):
                for clip in clips_of(arguments, polyp):
                    for name, masks in masks_of(segmenter, clip, options).items():
                        rows[name].append(measure(clip, masks))
                    advance()
    found = {
        name: summarise(some, rows["none"], arguments.fps)
        | {"told_ms": options[name].delays(threshold, arguments.fps)}
        for name, some in rows.items()
    }
    counts = {
        "polyp": sum("dice" in row for row in rows["none"]),
        "polyp_free": sum("episodes" in row for row in rows["none"]),
    }
    source = "synthetic scenes" if arguments.images is None else arguments.images.resolve().name
    if min(counts.values()) < arguments.clips:
        info(f"the pictures allow {counts['polyp']} polyp and {counts['polyp_free']} free clips")
    show(f"{model['name']} {model['precision']}, {source}", counts, found)
    if arguments.json is not None:
        kept = ("clips", "seconds", "fps", "side", "seed", "smooth", "persist", "hysteresis")
        write_json(
            arguments.json,
            {
                "model": model,
                "target": arguments.target,
                "source": source,
                "options": {name: getattr(arguments, name) for name in kept},
                "clips": counts,
                "settings": found,
                "rows": rows,
                "environment": describe(),
            },
        )
        info(f"results: {arguments.json}")


def show(title: str, counts: dict[str, int], found: dict[str, dict[str, Any]]) -> None:
    columns = {
        "changes_per_second": ("flicker, changes/s", 2),
        "false_episodes_per_minute": ("false episodes/min", 1),
        "delay_ms": ("delay ms", 0),
        "added_delay_ms": ("added ms", 0),
        "largest_added_delay_ms": ("at most", 0),
        "found": (f"found of {counts['polyp']}", 0),
        "dice": ("Dice", 3),
    }
    lines = []
    for name, figures in found.items():
        cells = [
            "-" if figures[key] is None else f"{figures[key]:.{digits}f}"
            for key, (_, digits) in columns.items()
        ]
        lines.append([name, *cells])
    heading = f"{title}: {counts['polyp']} clips with a polyp, {counts['polyp_free']} without"
    table(heading, ["setting", *(label for label, _ in columns.values())], lines)


if __name__ == "__main__":
    with one_line_errors():
        main()
