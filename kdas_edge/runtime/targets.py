"""Targets: where a model runs, written `runtime:device[:option=value…]`."""

import difflib
from dataclasses import dataclass, field
from pathlib import Path

from kdas_edge.errors import UserError

RUNTIMES = {
    "openvino": ("CPU", "GPU", "NPU", "AUTO"),
    "onnxruntime": ("CPU", "CUDA", "TensorRT", "DirectML", "CoreML", "OpenVINO"),
    "torch": ("cpu", "cuda"),
}
# option name -> what a value may be; one row of data per option that a backend understands
OPTIONS = {
    "threads": "a whole number above 0",
    "precision": "f32, bf16 or f16",
    "streams": "a whole number above 0",
    "hint": "latency or throughput",
    "batch": "a whole number above 0",
    "tta": "1 to 4",
}
AUTO = "auto"


@dataclass(frozen=True)
class Target:
    """A runtime, a device and its options.

    Attributes:
        runtime: `openvino`, `onnxruntime` or `torch`.
        device: as that runtime names it, e.g. `CPU`, `GPU.1`, `CUDA`, `cpu`.
        options: e.g. `{"threads": "1", "precision": "bf16"}`.
    """

    runtime: str
    device: str
    options: dict[str, str] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return ":".join(
            [self.runtime, self.device, *(f"{key}={value}" for key, value in self.options.items())]
        )

    @property
    def threads(self) -> int | None:
        """Number of CPU threads asked for, or None for the runtime's own choice."""
        value = self.options.get("threads")
        return int(value) if value is not None else None

    @property
    def batch(self) -> int:
        """Frames in one inference; 1 unless the target says otherwise."""
        return int(self.options.get("batch", "1"))

    @property
    def tta(self) -> int:
        """Views that a torch network is averaged over: test-time flips (`models.tta`); 1: none."""
        return int(self.options.get("tta", "1"))


def parse_target(text: str) -> Target:
    """Read a target such as `openvino:CPU:threads=1`.

    Raises:
        UserError: unknown runtime, device or option; the nearest known word is suggested.
    """
    runtime, _, rest = text.strip().partition(":")
    if runtime not in RUNTIMES:
        raise UserError(
            f"target {text!r}: unknown runtime {runtime!r}{_nearest(runtime, RUNTIMES)}; "
            f"known: {', '.join(RUNTIMES)}"
        )
    device, *pairs = rest.split(":") if rest else [""]
    known = RUNTIMES[runtime]
    name, dot, index = device.partition(".")
    if name not in known or (dot and not _is_whole(index)):
        raise UserError(
            f"target {text!r}: {runtime} has no device {device!r}{_nearest(device, known)}; "
            f"known: {', '.join(known)}"
        )
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if key == "mirrors":
            raise UserError(f"target {text!r}: mirrors is called tta now; write tta={value}")
        if key not in OPTIONS:
            raise UserError(
                f"target {text!r}: unknown option {key!r}{_nearest(key, OPTIONS)}; "
                f"known: {', '.join(OPTIONS)}"
            )
        if key == "tta" and runtime != "torch":
            raise UserError(
                f"target {text!r}: tta is an option of torch alone, for teachers; remove it"
            )
        if key in options:
            raise UserError(f"target {text!r}: option {key} is given twice; remove one")
        if not equals or not _is_good(key, value):
            raise UserError(f"target {text!r}: option {key} takes {OPTIONS[key]}, not {value!r}")
        options[key] = value
    return Target(runtime, device, options)


def cpu_target(path: Path, threads: int | None = None) -> Target:
    """The CPU in the runtime of a model file: OpenVINO for `.xml`, ONNX Runtime for `.onnx`.

    Args:
        path: of the file.
        threads: the runtime's own choice by default.
    """
    runtime = "openvino" if path.suffix == ".xml" else "onnxruntime"
    return Target(runtime, "CPU", {} if threads is None else {"threads": str(threads)})


def parse_targets(text: str) -> list[Target]:
    """Read a comma-separated list of targets."""
    targets = [parse_target(part) for part in text.split(",") if part.strip()]
    if not targets:
        raise UserError("no target given; for example --targets openvino:CPU:threads=1")
    return targets


def _is_good(key: str, value: str) -> bool:
    if key == "precision":
        return value in ("f32", "bf16", "f16")
    if key == "hint":
        return value in ("latency", "throughput")
    if key == "tta":
        return value in ("1", "2", "3", "4")
    return _is_whole(value) and int(value) > 0


def _is_whole(text: str) -> bool:
    # isdigit alone accepts digits that int() refuses, such as ²
    return text.isascii() and text.isdigit()


def _nearest(word: str, known: object) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)  # type: ignore[call-overload]
    return f" (did you mean {close[0]!r}?)" if close else ""
