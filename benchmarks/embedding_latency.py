"""1080p BGR frame in, mask at 1080p out: what the embedded runtime adds to the model.

All candidates are timed in turns in one process, each round on the next frame:

- `end to end`: `Segmenter.segment`, as a host calls it;
- `model`: the preset's model alone through this package's backend, its input ready. The `camera`
  model resizes the frame itself, the `core` model gets it resized;
- `OpenVINO`: a bare inference request of the same model with the same input and output memory;
- `pixels`: the work on pixels outside OpenVINO (resize and normalisation for `core`, the mask).

`beside OpenVINO` is `end to end` minus `OpenVINO`, median over the rounds. `Python` is what a call
of `segment` takes outside its stage `inference`, minus `pixels`, each by its median: both are
short, so that the noise of a long inference is not in their difference. It may be below zero by
noise; the upper end of its 95 % bootstrap interval over the rounds has to keep the limit. What the
backend adds within that stage is measured by benchmarks/harness_overhead.py. The frames are the
bundle's golden frames, enlarged.

    python benchmarks/embedding_latency.py BUNDLE --json benchmarks/results/embedding_latency.json

The exit code is 1 if a limit is missed: p50 at most 1.3 times the model, p99 33 ms, Python 1 ms.
Two processor threads are the default; measure on a machine that does nothing else.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from embedding_common import (
    HEIGHT,
    WIDTH,
    Limit,
    endlessly,
    frames_1080p,
    share_marked,
    show_limits,
)

from kdas_edge.bundle.manifest import FILE_NAME, Preset
from kdas_edge.bundle.shipped import or_shipped
from kdas_edge.console import info, progress, table
from kdas_edge.environment import describe
from kdas_edge.errors import UserError
from kdas_edge.files import check_output_file, write_json
from kdas_edge.latency import Latency, Run, Warmup, measure
from kdas_edge.metrics.bootstrap import interval, resampled
from kdas_edge.process import one_line_errors
from kdas_edge.runtime import Segmenter
from kdas_edge.runtime.backends.openvino import compile_model
from kdas_edge.runtime.buffer_pool import Workspace
from kdas_edge.runtime.inputs import model_input
from kdas_edge.table import number

RATIO, P99_MS, PYTHON_MS = 1.3, 33.0, 1.0


def bare_request(segmenter: Segmenter, inputs: list[np.ndarray]) -> Run:
    """OpenVINO and nothing else: memory is bound before, as the backend does per frame."""
    import openvino as ov

    bundle, precision, preset = segmenter.bundle, segmenter.precision, segmenter.preset
    file = bundle.model(precision, "openvino", preset)
    assert file is not None, "the segmenter has loaded it"
    shape = bundle.manifest.inputs[file.preset].shape
    request = compile_model(bundle.file(file.path), segmenter.target, shape).create_infer_request()
    tensors = endlessly([ov.Tensor(x, shared_memory=True) for x in inputs])

    def run() -> None:
        request.set_input_tensor(next(tensors))
        request.infer()

    # the tensors hold no reference to their arrays
    run.inputs = inputs  # type: ignore[attr-defined]
    return run


def pixel_work(segmenter: Segmenter, frames: list[np.ndarray], helper: bool) -> Run:
    """The same buffers and steps as the runtime's, without its calls around them."""
    manifest = segmenter.bundle.manifest
    workspace = Workspace(HEIGHT, WIDTH, manifest)
    work = endlessly([(frame, segmenter.segment(frame).probability) for frame in frames])

    def run() -> None:
        frame, probability = next(work)
        if segmenter.preset == "core":
            workspace.core_input(frame, False, helper)
        workspace.write_mask(probability, manifest.threshold, np.zeros((HEIGHT, WIDTH), np.bool_))

    return run


class EndToEnd:
    """Segments the next frame; keeps the seconds of each call that are not `inference`."""

    def __init__(self, segmenter: Segmenter, frames: list[np.ndarray]) -> None:
        self._segment = segmenter.segment
        self._frames = endlessly(frames)
        self.outside: list[float] = []

    def __call__(self) -> None:
        start = time.perf_counter()
        result = self._segment(next(self._frames))
        taken = time.perf_counter() - start
        self.outside.append(taken - result.milliseconds["inference"] / 1e3)


def measure_preset(
    path: Path, preset: Preset, precision: str | None, threads: int, rounds: int
) -> dict[str, Any]:
    """Time one preset of a bundle; the JSON object of one row."""
    target = f"openvino:CPU:threads={threads}"
    with Segmenter.load(path, target=target, precision=precision, preset=preset) as segmenter:
        manifest = segmenter.bundle.manifest
        frames = frames_1080p(segmenter.bundle)
        inputs = [
            np.ascontiguousarray(model_input(frame[..., ::-1], manifest, preset))
            for frame in frames
        ]
        marked = share_marked([segmenter.segment(frame).mask for frame in frames])
        whole, next_input = EndToEnd(segmenter, frames), endlessly(inputs)
        candidates: dict[str, Run] = {
            "end to end": whole,
            "model": lambda: segmenter.backend.infer(next(next_input)),
            "OpenVINO": bare_request(segmenter, inputs),
            "pixels": pixel_work(segmenter, frames, threads > 1),
        }
        with progress(rounds, f"{preset}, {threads} threads") as advance:
            # a short try is not to warm up longer than it measures
            warmup = Warmup(maximum=max(3, min(50, rounds)))
            timed = measure(candidates, rounds, seconds=600.0, warmup=warmup, advance=advance)
        found: dict[str, Latency] = {}
        for name, result in timed.items():
            if not isinstance(result, Latency):
                raise result
            found[name] = result
        seconds = {name: result.samples for name, result in found.items()}
        outside = np.array(whole.outside[-len(seconds["end to end"]) :])
        beside = seconds["end to end"] - seconds["OpenVINO"]
        return {
            "bundle": segmenter.bundle.name,
            "preset": segmenter.preset,
            "precision": segmenter.precision,
            "target": str(segmenter.target),
            "effective": segmenter.backend.effective,
            "frame": f"{WIDTH}×{HEIGHT}",
            "marked_share": marked,
            "latency": {name: result.as_json() for name, result in found.items()},
            "ratio_to_model": float(np.median(seconds["end to end"]) / np.median(seconds["model"])),
            "beside_openvino_ms": 1e3 * float(np.median(beside)),
            "outside_inference_ms": 1e3 * float(np.median(outside)),
            **python_of(outside, seconds["pixels"]),
        }


def python_of(outside: np.ndarray, pixels: np.ndarray) -> dict[str, Any]:
    """Difference of the medians of two (N,) series in seconds, and its interval, in ms."""
    drawn = resampled(len(outside), seed=0)
    medians = np.median(outside[drawn], axis=1) - np.median(pixels[drawn], axis=1)
    low, high = interval(1e3 * medians)
    return {
        "python_ms": 1e3 * float(np.median(outside) - np.median(pixels)),
        "python_ms_interval": [low, high],
    }


def limits_of(row: dict[str, Any]) -> list[Limit]:
    """The limits of the issue on one row."""
    name, python = row["preset"], row["python_ms_interval"][1]
    return [
        Limit(f"{name}: p50 end to end by p50 of the model", row["ratio_to_model"], RATIO, "×"),
        Limit(f"{name}: p99 end to end", row["latency"]["end to end"]["p99"], P99_MS, "ms"),
        Limit(f"{name}: Python per frame", python, PYTHON_MS, "ms"),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", nargs="?", type=Path, help="by default the shipped student")
    parser.add_argument("--preset", choices=("core", "camera"), help="by default both")
    parser.add_argument("--precision", help="by default int8 where the bundle has it")
    parser.add_argument("--frames", type=int, default=300, help="timed rounds")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.json is not None:
        check_output_file(args.json)
    path = or_shipped(args.bundle)
    if not (path / FILE_NAME).is_file():
        raise UserError(f"{path} has no {FILE_NAME}, so it is not a bundle; check the path")
    presets: list[Preset] = [args.preset] if args.preset else ["core", "camera"]
    rows = [
        measure_preset(path, preset, args.precision, args.threads, args.frames)
        for preset in presets
    ]
    first = rows[0]
    table(
        f"{first['bundle']} {first['precision']} on {first['target']}: {first['frame']}, "
        f"{len(first['latency']['model']['samples'])} rounds, "
        f"{first['marked_share']:.0%} of the frames marked; ms",
        ["preset", "what", "p50", "p90", "p99", "max"],
        [
            [row["preset"], name, *(number(timing[key], 2) for key in ("p50", "p90", "p99", "max"))]
            for row in rows
            for name, timing in row["latency"].items()
        ],
    )
    for row in rows:
        info(
            f"{row['preset']}: {row['beside_openvino_ms']:.3f} ms beside OpenVINO, "
            "{:.3f} ms Python around the work on pixels ({:.3f} to {:.3f})".format(
                row["python_ms"], *row["python_ms_interval"]
            )
        )
    limits = [limit for row in rows for limit in limits_of(row)]
    kept = show_limits(limits)
    if args.json is not None:
        write_json(
            args.json,
            {
                "rows": rows,
                "limits": {limit.name: limit.as_json() for limit in limits},
                "environment": describe(),
            },
        )
    return int(not kept)


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
