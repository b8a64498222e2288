"""What it costs to start: time to load, with and without the model cache, and resident memory.

Measured in a fresh process for each row, with the cache in one more. In the process of the
benchmark a second model would find the runtime's pools and the allocator's free pages of the first,
and would seem to need nothing.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdas_edge.bench.measurement_results import ModelCache, Startup
from kdas_edge.bench.memory import UNAVAILABLE, folder_bytes, peak_bytes, resident_bytes
from kdas_edge.bench.result_base import Unavailable
from kdas_edge.bundle.reader import Bundle
from kdas_edge.errors import last_line
from kdas_edge.runtime.backends import FORMATS, check_present
from kdas_edge.runtime.targets import Target, parse_target

_TIMEOUT = 600.0
_MARK = "startup: "


@dataclass(frozen=True)
class _Job:
    """What the measuring process is asked; see `measure_here`."""

    file: str
    target: str
    shape: tuple[int, ...]
    dtype: str
    cache: str | None = None
    store: str | None = None


def measure_startup(bundle: Bundle, precision: str, target: Target) -> Startup | Unavailable:
    """Load a `core` model in a fresh process and tell what that took.

    The file is in the operating system's cache, as after a restart of the program, not of the
    machine.

    Args:
        bundle: an opened bundle.
        precision: which of its models.
        target: where.
    """
    model = bundle.model(precision, FORMATS[target.runtime])
    if model is None:
        return Unavailable(
            unavailable=f"{bundle.name} has no {precision} model for {target.runtime}"
        )
    contract = bundle.manifest.inputs["core"]
    shape = (target.batch, *contract.shape[1:])
    job = _Job(str(bundle.file(model.path)), str(target), shape, contract.dtype)
    try:
        with tempfile.TemporaryDirectory(prefix="kdas-edge-cache-") as folder:
            if target.runtime != "openvino":
                return _in_a_process(job)
            result = _in_a_process(replace(job, store=folder))
            size = folder_bytes(Path(folder))
            found = _in_a_process(replace(job, cache=folder))
            cache = ModelCache(load_ms=found.load_ms, bytes=size)
            return result.model_copy(update={"cache": cache})
    except (OSError, subprocess.SubprocessError) as error:
        return Unavailable(unavailable=f"the measuring process failed: {error}"[:300])


def _in_a_process(job: _Job) -> Startup:
    done = subprocess.run(
        # -P: a numpy.py in the working folder is not ours
        [sys.executable, "-P", "-m", "kdas_edge.bench.startup", json.dumps(asdict(job))],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    found = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if done.returncode or not found:
        said = last_line(done.stderr)
        raise subprocess.SubprocessError(said or f"exit code {done.returncode}")
    return Startup.model_validate_json(found[-1].removeprefix(_MARK))


def measure_here(
    file: Path,
    target: Target,
    shape: tuple[int, ...],
    dtype: str = "float32",
    cache: Path | None = None,
    store: Path | None = None,
) -> Startup:
    """Load a model file in this process, which has loaded no model before.

    Args:
        file: `.xml`, `.onnx` or a torch checkpoint.
        target: where.
        shape: of the input.
        dtype: of the input.
        cache: load with OpenVINO's model cache in this folder.
        store: afterwards fill OpenVINO's model cache in this folder.
    """
    check_present(target)  # imports the runtime and starts its device, which is no model's growth
    x = np.zeros(shape, dtype=dtype)
    before = resident_bytes()
    start = time.perf_counter()
    infer = _load(file, target, x, cache)
    loaded_at = time.perf_counter()
    loaded = resident_bytes()
    begun = time.perf_counter()
    infer()
    finished = time.perf_counter()
    ran, peak = resident_bytes(), peak_bytes()
    if store is not None:
        _load(file, target, x, store)
    return Startup(
        load_ms=round(1e3 * (loaded_at - start), 2),
        first_ms=round(1e3 * (finished - begun), 2),
        resident_bytes=_growth(before, ran),
        resident_after_load_bytes=_growth(before, loaded),
        peak_bytes=_growth(before, peak),
        memory_unavailable=UNAVAILABLE if before is None else None,
    )


def _load(
    file: Path, target: Target, x: NDArray[np.generic], cache: Path | None
) -> Callable[[], object]:
    if target.runtime == "openvino":
        from kdas_edge.runtime.backends.openvino import compile_model

        request = compile_model(file, target, x.shape, cache).create_infer_request()
        return lambda: request.infer([x])
    from kdas_edge.runtime.backends import open_file

    backend = open_file(file, target)
    return lambda: backend.infer(x)


def _growth(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before


def _folder(path: str | None) -> Path | None:
    return Path(path) if path is not None else None


if __name__ == "__main__":
    asked = _Job(**json.loads(sys.argv[1]))
    answer = measure_here(
        Path(asked.file),
        parse_target(asked.target),
        tuple(asked.shape),
        asked.dtype,
        _folder(asked.cache),
        _folder(asked.store),
    )
    print(_MARK + answer.model_dump_json())
