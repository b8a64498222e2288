"""What the benchmark itself adds to a latency: a model that does nothing, measured as any other.

- `clock`: what `latency.measure` reports for a function that does nothing. It is in every sample.
- `loop`: the time of a whole round of such a function, i.e. also what lies between two samples.
- `backend`: an OpenVINO model that only copies its input, through this package's backend and the
  benchmark's feeding of frames, against a bare inference request that is started again and again:
  the median difference of rounds. It is in every sample of an OpenVINO row. The input is small, so
  that it stays in the cache: that a real frame has to come from memory is no overhead.
- `end to end`: the benchmark's bookkeeping of stages around one frame, against the plain call.

    python benchmarks/harness_overhead.py --json benchmarks/results/harness_overhead.json

The exit code is 1 if one inference costs more than 50 µs.
"""

import argparse
import itertools
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import yaml
from openvino import opset13 as ops

from kdas_edge.bench.candidates import BenchCandidate, TimedFrame
from kdas_edge.bench.peers import PeerBundle, open_peer
from kdas_edge.bench.timing import WholeFrame, model_only
from kdas_edge.console import table
from kdas_edge.environment import describe
from kdas_edge.files import write_json
from kdas_edge.latency import Latency, measure
from kdas_edge.runtime.backends import open_backend
from kdas_edge.runtime.backends.openvino import compile_model
from kdas_edge.runtime.targets import parse_target
from kdas_edge.table import number

LIMIT_US = 50.0
TARGET = parse_target("openvino:CPU:threads=1")


def write_copying_model(folder: Path, size: int) -> PeerBundle:
    """A graph that hands two of its three input channels through."""
    x = ops.parameter([1, 3, size, size], np.float32, name="x")
    two = ops.gather(x, ops.constant(np.array([0, 1])), ops.constant(np.array(1)))
    ov.save_model(ov.Model([two], [x], "copy"), folder / "copy.xml", compress_to_fp16=False)
    (folder / "copy.yaml").write_text(yaml.safe_dump({"size": size, "output": "two-channel"}))
    return open_peer(folder / "copy.xml", folder / "copy.yaml")


def times(candidates: dict[str, Any], rounds: int) -> dict[str, np.ndarray]:
    """Microseconds of every candidate, round by round."""
    found = {}
    for name, result in measure(candidates, rounds, seconds=120.0, warmup=20).items():
        if not isinstance(result, Latency):
            raise result
        found[name] = 1e6 * result.samples
    return found


def _duration(rounds: int) -> float:
    begun = time.perf_counter()
    measure({"nothing": nothing}, rounds, seconds=120.0, warmup=0)
    return time.perf_counter() - begun


def nothing() -> None:
    """The no-op."""


def overheads(rounds: int, size: int) -> dict[str, float]:
    """Median overhead in microseconds of each part."""
    clock = times({"nothing": nothing}, rounds)["nothing"]
    # the difference of two lengths: what `measure` does once, it does not do per inference
    loop = 1e6 * (_duration(21 * rounds) - _duration(rounds)) / (20 * rounds)
    with tempfile.TemporaryDirectory(prefix="kdas-edge-overhead-") as folder:
        bundle = write_copying_model(Path(folder), size)
        copy = BenchCandidate.of("copy", "peer", "fp32", TARGET, bundle)
        copy.backend = open_backend(bundle, "fp32", TARGET)
        frames = [TimedFrame(np.zeros((size, size, 3), dtype=np.uint8)) for _ in range(4)]
        request = compile_model(Path(folder) / "copy.xml", TARGET).create_infer_request()
        request.infer([copy.inputs(frames)[0]])
        plain = itertools.cycle(np.ascontiguousarray(frame.image) for frame in frames)
        segment = copy.pipeline.segment
        found = times(
            {
                "bare": lambda: request.infer(),
                "backend": model_only(copy, frames),
                "plain": lambda: segment(next(plain)),
                "end to end": WholeFrame(copy.pipeline, frames),
            },
            rounds,
        )
        copy.close()
    return {
        "clock": float(np.median(clock)),
        "loop": loop,
        "backend": float(np.median(found["backend"] - found["bare"])),
        "end to end": float(np.median(found["end to end"] - found["plain"])),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = overheads(args.rounds, args.size)
    table(
        f"overhead of the benchmark per inference, limit {LIMIT_US:g} µs",
        ["part", "µs"],
        [[name, number(value, 2)] for name, value in found.items()],
    )
    if args.json:
        write_json(
            args.json,
            {
                "unit": "us",
                "limit": LIMIT_US,
                "rounds": args.rounds,
                "size": args.size,
                "overhead": {name: round(value, 3) for name, value in found.items()},
                "environment": describe(),
            },
        )
    return int(max(found.values()) > LIMIT_US)


if __name__ == "__main__":
    sys.exit(main())
