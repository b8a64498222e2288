"""Time int8 against fp32 in each runtime where the bundle is made; say why it is not faster."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdas_edge.bundle.manifest import Format
from kdas_edge.console import info
from kdas_edge.inspect.kernels import Kernels, kernels_of
from kdas_edge.latency import Latency, Ratio, measure, speedup
from kdas_edge.runtime.backends import open_file
from kdas_edge.runtime.targets import cpu_target

RUNTIMES: dict[Format, str] = {"openvino": "OpenVINO", "onnx": "ONNX Runtime"}
_ROUNDS = 15
# a teacher of 250 ms in both precisions and runtimes must not hold up the export for long
_SECONDS = 20.0


@dataclass(frozen=True)
class Int8Speed:
    """int8 against fp32 in one runtime: one thread, `core` preset, batch 1, in turns.

    Attributes:
        format: `openvino` or `onnx`.
        fp32, int8: medians in milliseconds; on a busy machine only their ratio means anything.
        ratio: how many times faster int8 is, with its 95 % interval.
        rounds: timed inferences of each.
        kernels: what the runtime made of the int8 file.
    """

    format: Format
    fp32: float
    int8: float
    ratio: Ratio
    rounds: int
    kernels: Kernels

    @property
    def faster(self) -> bool:
        """True if int8 is faster beyond the noise: the whole interval is above 1."""
        return self.ratio.low > 1

    def line(self) -> str:
        """The verdict in one line; with the reason, where int8 is not faster."""
        runtime = RUNTIMES[self.format]
        ratio = f"{self.ratio.value:.2f} × ({self.ratio.low:.2f}–{self.ratio.high:.2f})"
        if self.faster:
            return (
                f"int8 is {ratio} as fast as fp32 in {runtime}, one thread: {self.kernels.counts()}"
            )
        return (
            f"int8 is NOT faster than fp32 in {runtime}: {ratio}, one thread, because: "
            f"{self.kernels.explanation()}"
        )

    def as_json(self) -> dict[str, Any]:
        """A JSON object with the numbers and the line."""
        return {
            "format": self.format,
            "threads": 1,
            "rounds": self.rounds,
            "fp32_ms": round(self.fp32, 4),
            "int8_ms": round(self.int8, 4),
            "ratio": self.ratio.as_json(),
            "faster": self.faster,
            "kernels": self.kernels.as_json(),
            "line": self.line(),
        }


def time_int8(
    files: Mapping[Format, tuple[Path, Path]], x: NDArray[np.float32], rounds: int = _ROUNDS
) -> list[Int8Speed]:
    """Time fp32 and int8 of every runtime in turns, on one thread.

    Args:
        files: format to the fp32 and the int8 file, both of the `core` preset.
        x: (1, 3, S, S) float32, normalised.
        rounds: timed inferences of each file.

    Returns:
        One result per format; a file that cannot be run is reported and left out.
    """
    candidates = {}
    for format_, pair in files.items():
        for precision, path in zip(("fp32", "int8"), pair, strict=True):
            backend = open_file(path, cpu_target(path, threads=1))
            candidates[f"{format_} {precision}"] = functools.partial(backend.infer, x)
    measured = measure(candidates, rounds, _SECONDS)
    speeds = []
    for format_, (_, quantised) in files.items():
        fp32, int8 = (measured[f"{format_} {precision}"] for precision in ("fp32", "int8"))
        if not isinstance(fp32, Latency) or not isinstance(int8, Latency):
            info(f"{RUNTIMES[format_]}: int8 could not be timed ({fp32}, {int8})")
            continue
        speeds.append(
            Int8Speed(
                format_,
                1e3 * fp32.percentile(50),
                1e3 * int8.percentile(50),
                speedup(fp32, int8),
                len(int8.samples),
                kernels_of(quantised),
            )
        )
    return speeds
