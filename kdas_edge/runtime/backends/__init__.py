"""Inference backends: one file per runtime, imported when a target names it.

A backend never falls back to another device or precision: it runs as the target says, or refuses.
What the runtime then really did is read back into `effective`.
"""

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kdas_edge.bundle.manifest import ModelFile
from kdas_edge.bundle.reader import Bundle
from kdas_edge.runtime.failures import TargetError
from kdas_edge.runtime.targets import RUNTIMES, Target

# runtime -> format of the model file that it loads
FORMATS = {"openvino": "openvino", "onnxruntime": "onnx", "torch": "torch"}


class Backend(Protocol):
    """A loaded model on one device. Any number of threads may use it at once.

    Attributes:
        effective: as the runtime reports it: precision, threads, streams, device name …
        load_seconds: time from the file to a model ready to run, without a first inference.
    """

    effective: dict[str, object]
    load_seconds: float

    def infer(self, x: NDArray[np.generic]) -> NDArray[np.float32]:
        """Run the model once, synchronously.

        Args:
            x: (B, 3, S, S) float32, normalised, for a `core` model; (B, H, W, 3) uint8 BGR for a
                `camera` model. B is the target's batch, 1 by default.

        Returns:
            (B, 2, S, S) float32 probabilities, background and polyp; the caller owns the array.
            A model from elsewhere returns what its file says.

        Raises:
            TargetError: the model is closed, or the runtime cannot run it any more.
        """
        ...

    def start(self, x: NDArray[np.generic]) -> Callable[[], NDArray[np.float32]]:
        """Begin an inference; what is returned waits for it and gives what `infer` would.

        Args:
            x: as for `infer`; left as it is until the result has been waited for. A runtime that
                cannot work in the background runs when it is waited for.
        """
        ...

    def close(self) -> None:
        """Free the model once what runs has ended; another inference is then a UserError."""
        ...


def open_backend(bundle: Bundle, precision: str, target: Target, preset: str = "core") -> Backend:
    """Load one model of a bundle on a target.

    Args:
        bundle: an opened bundle.
        precision: `fp32`, `fp16`, `int8` or `int8_weights`: the model file. The precision of its
            arithmetic is the target's option `precision`.
        target: where to run.
        preset: `core` or `camera`.

    Raises:
        TargetError: the bundle holds no such model, the runtime or the device is absent (what is
            present is listed), or the runtime cannot load the model with these options.
    """
    model = bundle.model(precision, FORMATS[target.runtime], preset)
    if model is None:
        raise TargetError("no such model", _no_such_model(bundle, precision, target, preset))
    check_present(target)
    shape = bundle.manifest.inputs[model.preset].shape
    return open_file(bundle.file(model.path), target, shape, bundle.manifest.output.name)


def open_file(
    path: Path, target: Target, shape: Sequence[int] | None = None, output: str | None = None
) -> Backend:
    """Load a model file on a target.

    Args:
        path: `.xml`, `.onnx` or a checkpoint, whichever the target's runtime loads.
        target: where to run; that it is present has been checked, see `check_present`.
        shape: the input's, batch 1, -1 where any size goes; used where the file leaves it open.
        output: name of the output to return; the file's first where it has none of this name.

    Raises:
        TargetError: the runtime cannot load the file with these options.
    """
    module = importlib.import_module(f"kdas_edge.runtime.backends.{target.runtime}")
    backend: Backend = module.open_file(path, target, shape, output)
    return backend


def available_devices() -> dict[str, list[str]]:
    """Devices of every runtime on this machine, e.g. `{"openvino": ["CPU"], "torch": []}`.

    A runtime that is not installed has none. Torch is imported if it is there (seconds).
    """
    return {runtime: runtime_devices(runtime) for runtime in RUNTIMES}


def runtime_devices(runtime: str) -> list[str]:
    """Devices of one runtime, in the words of a target; empty if it is not installed."""
    # find_spec first: the import of an installed but broken runtime must not look like absence
    if importlib.util.find_spec(runtime) is None:
        return []
    module = importlib.import_module(f"kdas_edge.runtime.backends.{runtime}")
    devices: list[str] = module.devices()
    return devices


def present_targets(runtimes: Sequence[str] = tuple(RUNTIMES)) -> list[Target]:
    """Every device of these runtimes on this machine, as targets without options.

    OpenVINO's AUTO is left out: it is one of the devices beside it, but does not say which.
    """
    return [
        Target(runtime, device)
        for runtime in runtimes
        for device in runtime_devices(runtime)
        if device != "AUTO"
    ]


def check_present(target: Target) -> None:
    """Refuse a target whose runtime or device this machine lacks.

    Raises:
        TargetError: names what is present.
    """
    if importlib.util.find_spec(target.runtime) is None:
        installed = [name for name in RUNTIMES if importlib.util.find_spec(name) is not None]
        remedy = (
            "pip install 'kdas-edge[train]'"
            if target.runtime == "torch"
            else (f"pip install {target.runtime}")
        )
        raise TargetError(
            "runtime absent",
            f"target {target}: {target.runtime} is not installed ({remedy}); "
            f"present: {', '.join(installed)}",
        )
    present = runtime_devices(target.runtime)
    # `GPU` means the first of GPU.0, GPU.1
    if target.device not in present and target.device not in {d.split(".")[0] for d in present}:
        listed = ", ".join(f"{target.runtime}:{device}" for device in present) or "none"
        raise TargetError(
            "device absent",
            f"target {target}: {target.runtime} finds no {target.device} on this machine; "
            f"present: {listed}",
        )


def _no_such_model(bundle: Bundle, precision: str, target: Target, preset: str) -> str:
    wanted = FORMATS[target.runtime]
    held = [
        f"{model.precision} {model.preset}"
        for model in bundle.manifest.models
        if model.format == wanted
    ]
    remedy = (
        f"for {target.runtime} it holds {', '.join(held)}"
        if held
        else f"it holds nothing for {target.runtime}: " + _formats_held(bundle.manifest.models)
    )
    return (
        f"bundle {bundle.name!r} has no {precision} {preset} model for {target.runtime}; {remedy}"
    )


def _formats_held(models: list[ModelFile]) -> str:
    runtimes = [name for name, held in FORMATS.items() if any(m.format == held for m in models)]
    return f"choose a target of {' or '.join(runtimes) or 'another bundle'}"
