"""Does the embedded runtime keep its memory and its speed? Thousands of 1080p frames, one swap.

Frames go through `Segmenter.segment` one after the other; in the middle another thread swaps the
model, by default for the same one, while frames go on. Every mask is compared with the first one of
its frame and model; the target is deterministic, so that a difference is a fault.

- `memory growth`: resident memory, median over the last tenth by that over the first, both after a
  warm-up of 1 % of the frames. Beside it that of the frames before and after the swap alone, and
  the step at the swap, where two models are in memory for a while;
- `latency drift`: the same of the time per frame (p50; p99 is in the JSON), by the drift of a fixed
  piece of arithmetic that is timed between the frames: a machine that others use becomes slower and
  faster by itself. The drift as the clock shows it is in the JSON, too;
- `dropped frames`: frames without a result, or with a wrong one. None may be.

    python benchmarks/soak.py BUNDLE --frames 50000 --json benchmarks/results/soak.json

The exit code is 1 if memory grows by 1 %, the latency drifts by 5 %, or a frame is dropped.
"""

import argparse
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from embedding_common import HEIGHT, WIDTH, Limit, frames_1080p, share_marked, show_limits

from kdas_edge.bench.memory import UNAVAILABLE, resident_bytes
from kdas_edge.bundle.shipped import or_shipped
from kdas_edge.console import info, progress, table
from kdas_edge.environment import describe
from kdas_edge.errors import UserError
from kdas_edge.files import check_output_file, write_json
from kdas_edge.process import one_line_errors
from kdas_edge.runtime import Segmenter

GROWTH_PERCENT, DRIFT_PERCENT = 1.0, 5.0
MINIMUM_FRAMES = 100
CONTROL_EVERY = 10  # frames
TENTHS = 10


class Swap(threading.Thread):
    """Swaps the model in the background and remembers how that went.

    Attributes:
        seconds: from the call to the new model in place.
        error: what went wrong, or None.
    """

    def __init__(self, segmenter: Segmenter, bundle: Path, **choice: Any) -> None:
        super().__init__(name="swap")
        self._segmenter, self._bundle, self._choice = segmenter, bundle, choice
        self.seconds = 0.0
        self.error: Exception | None = None

    def run(self) -> None:
        start = time.perf_counter()
        try:
            self._segmenter.swap(self._bundle, **self._choice)
        except Exception as error:
            self.error = error
        self.seconds = time.perf_counter() - start


class Control:
    """Arithmetic and memory traffic that nothing in this package can make slower.

    On one thread: a threaded product waits for cores that others use.
    """

    def __init__(self, frame: np.ndarray) -> None:
        self._values = np.random.default_rng(0).random(2**20, np.float32)
        self._result = np.empty_like(self._values)
        self._frame, self._copy = frame, np.empty_like(frame)

    def seconds(self) -> float:
        """Time it once."""
        start = time.perf_counter()
        np.exp(self._values, out=self._result)
        np.copyto(self._copy, self._frame)
        return time.perf_counter() - start


class Masks:
    """Tells whether every mask is the one that its frame had before.

    Args:
        same_model: the swap changes nothing, so that the masks after it are those before it.
    """

    def __init__(self, same_model: bool) -> None:
        self._before: dict[int, int] = {}
        self._after = self._before if same_model else {}
        self._meanwhile: list[tuple[int, int]] = []

    def wrong(self, frame: int, mask: np.ndarray, phase: str) -> bool:
        """Compare a mask made `before`, `during` or `after` the swap."""
        # a checksum: kept masks would count as growth
        found = zlib.crc32(mask.tobytes())
        if phase == "during":
            self._meanwhile.append((frame, found))
            return False
        known = self._before if phase == "before" else self._after
        return known.setdefault(frame, found) != found

    def wrong_meanwhile(self) -> int:
        """How many of those made during the swap are neither model's."""
        return sum(
            found not in (self._before.get(frame), self._after.get(frame))
            for frame, found in self._meanwhile
        )


def soak(segmenter: Segmenter, count: int, swap: Swap, masks: Masks) -> dict[str, Any]:
    """Segment so many frames, with a swap after half of them; the JSON object without limits."""
    frames = frames_1080p(segmenter.bundle)
    # written to now, so that the pages are there and do not count as growth
    seconds, resident = np.full(count, np.nan), np.full(count, np.nan)
    control, control_seconds = Control(frames[0]), np.full(count, np.nan)
    wrong = failed = during = 0
    marked = share_marked([segmenter.segment(frame).mask for frame in frames])
    phase = "before"
    with progress(count, "soak") as advance:
        for index in range(count):
            if index == count // 2:
                swap.start()
                phase = "during"
            elif phase == "during" and not swap.is_alive():
                phase = "after"
            during += phase == "during"
            place = index % len(frames)
            start = time.perf_counter()
            try:
                mask = segmenter.segment(frames[place]).mask
            except UserError as error:
                failed += 1
                info(f"frame {index}: {error}")
            else:
                seconds[index] = time.perf_counter() - start
                wrong += masks.wrong(place, mask, phase)
            if index % CONTROL_EVERY == 0:
                control_seconds[index] = control.seconds()
            resident[index] = resident_bytes() or np.nan
            advance()
    swap.join()
    if swap.error is not None:
        raise swap.error
    for place, frame in enumerate(frames):
        wrong += masks.wrong(place, segmenter.segment(frame).mask, "after")
    return {
        "frames": count,
        "frame": f"{WIDTH}×{HEIGHT}",
        "marked_share": marked,
        "failed": failed,
        "wrong": wrong + masks.wrong_meanwhile(),
        "swap": {"seconds": round(swap.seconds, 3), "frames_meanwhile": during},
        **summary(seconds, control_seconds, resident, count // 2, count // 2 + during),
    }


def summary(
    seconds: np.ndarray, control: np.ndarray, resident: np.ndarray, begun: int, ended: int
) -> dict[str, Any]:
    """Tenths of the run, and how the last differs from the first.

    Args:
        seconds: (N,) per frame, NaN where it failed.
        control: (N,) of the control, NaN where it was not timed.
        resident: (N,) bytes after each frame, NaN where unknown.
        begun, ended: first frame during the swap, and first after it.
    """
    count = len(seconds)
    warm = slice(max(1, count // 100), None)
    parts = list(
        zip(
            np.array_split(seconds[warm], TENTHS),
            np.array_split(control[warm], TENTHS),
            np.array_split(resident[warm], TENTHS),
            strict=True,
        )
    )
    tenths = [
        {
            "p50_ms": round(1e3 * float(np.nanpercentile(times, 50)), 4),
            "p99_ms": round(1e3 * float(np.nanpercentile(times, 99)), 4),
            "max_ms": round(1e3 * float(np.nanmax(times)), 4),
            "control_ms": round(1e3 * float(np.nanmedian(fixed)), 4),
            "resident_mb": round(float(np.nanmedian(memory)) / 1e6, 3)
            if np.isfinite(memory).any()
            else None,
        }
        for times, fixed, memory in parts
    ]

    def growth(earlier: np.ndarray, later: np.ndarray) -> float | None:
        if not (np.isfinite(earlier).any() and np.isfinite(later).any()):
            return None
        return round(100 * float(np.nanmedian(later) / np.nanmedian(earlier) - 1), 3)

    def drift(percent: float, beside_control: bool) -> float:
        first, last = (
            np.nanpercentile(parts[place][0], percent)
            / (np.nanmedian(parts[place][1]) if beside_control else 1)
            for place in (0, -1)
        )
        return round(100 * float(last / first - 1), 3)

    # half a tenth: the swap may take up some of the frames after the middle
    part = max(1, count // (2 * TENTHS))
    start = resident[warm][:part]
    return {
        "tenths": tenths,
        "memory_growth_percent": growth(*(parts[place][2] for place in (0, -1))),
        "memory_growth_before_swap_percent": growth(start, resident[:begun][-part:]),
        "memory_step_at_swap_percent": growth(
            resident[:begun][-part:], resident[ended : ended + part]
        ),
        "memory_growth_after_swap_percent": growth(
            resident[ended : ended + part], resident[-part:]
        ),
        "latency_drift_percent": drift(50, True),
        "latency_drift_by_the_clock_percent": drift(50, False),
        "p99_drift_by_the_clock_percent": drift(99, False),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", nargs="?", type=Path, help="by default the shipped student")
    parser.add_argument("--frames", type=int, default=50_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--preset", choices=("core", "camera"), help="by default the runtime's")
    parser.add_argument("--precision", help="by default int8 where the bundle has it")
    parser.add_argument("--swap-to", type=Path, metavar="BUNDLE", help="by default the same again")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.frames < MINIMUM_FRAMES:
        raise UserError(f"--frames {args.frames}: tenths need at least {MINIMUM_FRAMES} frames")
    if args.json is not None:
        check_output_file(args.json)
    path = or_shipped(args.bundle)
    target = f"openvino:CPU:threads={args.threads}"
    choice = {"precision": args.precision, "preset": args.preset}
    with Segmenter.load(path, target=target, **choice) as segmenter:
        head = {
            "bundle": segmenter.bundle.name,
            "precision": segmenter.precision,
            "preset": segmenter.preset,
            "target": target,
            "effective": segmenter.backend.effective,
        }
        other = args.swap_to or path
        found = head | soak(
            segmenter,
            args.frames,
            Swap(segmenter, other, **choice),
            Masks(same_model=other.resolve() == path.resolve()),
        )
    swapped = found["swap"]
    table(
        f"{found['bundle']} {found['precision']} {found['preset']} on {target}: "
        f"{found['frames']} frames of {found['frame']}, swap in "
        f"{swapped['seconds']:.2f} s with {swapped['frames_meanwhile']} frames meanwhile",
        ["tenth", "p50 ms", "p99 ms", "max ms", "control ms", "resident MB"],
        [
            [
                number,
                number(t["p50_ms"], 2),
                number(t["p99_ms"], 2),
                number(t["max_ms"], 2),
                number(t["control_ms"], 2),
                t["resident_mb"],
            ]
            for number, t in enumerate(found["tenths"], 1)
        ],
    )
    growth = found["memory_growth_percent"]
    if growth is None:
        info(UNAVAILABLE)
    limits = [
        Limit("memory growth", np.nan if growth is None else growth, GROWTH_PERCENT, "%"),
        Limit("latency drift (p50)", found["latency_drift_percent"], DRIFT_PERCENT, "%"),
        Limit("dropped frames", found["failed"] + found["wrong"], 0, ""),
    ]
    kept = show_limits(limits)
    for name in ("growth_before_swap", "step_at_swap", "growth_after_swap"):
        value = found[f"memory_{name}_percent"]
        if value is not None:
            info(f"memory, {name.replace('_', ' ')}: {value:.3f} %")
    if args.json is not None:
        found["limits"] = {limit.name: limit.as_json() for limit in limits}
        write_json(args.json, {**found, "environment": describe()})
    return int(not kept)


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
