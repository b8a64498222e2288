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
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdas_edge.bench.memory import UNAVAILABLE, folder_bytes, peak_bytes, resident_bytes
from kdas_edge.bundle.reader import Bundle
from kdas_edge.errors import last_line
from kdas_edge.runtime.backends import FORMATS, check_present
from kdas_edge.runtime.targets import Target, parse_target

_TIMEOUT = 600.0
_MARK = "startup: "


def measure_startup(bundle: Bundle, precision: str, target: Target) -> dict[str, Any]:
    """Load a `core` model in a fresh process and tell what that took.

    The file is in the operating system's cache, as after a restart of the program, not of the
    machine.

    Args:
        bundle: an opened bundle.
        precision: which of its models.
        target: where.

    Returns:
        `{"unavailable": reason}`, or milliseconds and bytes:
        `load_ms` from the file to a model that is ready, without a cache; `first_ms` the first
        inference; `resident_bytes` by which loading and the first inference made the process grow
        (`resident_after_load_bytes` loading alone; memory of a GPU or NPU is not in it), `null`
        where the system does not tell; `peak_bytes` how far it grew in between; `cache` with
        `load_ms`, a load that finds the model in OpenVINO's model cache, and `bytes` of that cache,
        or `null` for a runtime without one.
    """
    model = bundle.model(precision, FORMATS[target.runtime])
    if model is None:
        return {"unavailable": f"{bundle.name} has no {precision} model for {target.runtime}"}
    contract = bundle.manifest.inputs["core"]
    job: dict[str, Any] = {
        "file": str(bundle.file(model.path)),
        "target": str(target),
        "shape": [target.batch, *contract.shape[1:]],
        "dtype": contract.dtype,
    }
    try:
        with tempfile.TemporaryDirectory(prefix="kdas-edge-cache-") as folder:
            cache = folder if target.runtime == "openvino" else None
            result = _in_a_process({**job, "store": cache})
            result["cache"] = None
            if cache is not None:
                size = folder_bytes(Path(folder))
                found = _in_a_process({**job, "cache": cache})
                result["cache"] = {"load_ms": found["load_ms"], "bytes": size}
    except (OSError, subprocess.SubprocessError) as error:
        return {"unavailable": f"the measuring process failed: {error}"[:300]}
    return result


def _in_a_process(job: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "kdas_edge.bench.startup", json.dumps(job)],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    found = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if done.returncode or not found:
        said = last_line(done.stderr)
        raise subprocess.SubprocessError(said or f"exit code {done.returncode}")
    result: dict[str, Any] = json.loads(found[-1].removeprefix(_MARK))
    return result


def measure_here(
    file: Path,
    target: Target,
    shape: tuple[int, ...],
    dtype: str = "float32",
    cache: Path | None = None,
    store: Path | None = None,
) -> dict[str, Any]:
    """Load a model file in this process, which has loaded no model before.

    Args:
        file: `.xml`, `.onnx` or a torch checkpoint.
        target: where.
        shape: of the input.
        dtype: of the input.
        cache: load with OpenVINO's model cache in this folder.
        store: afterwards fill OpenVINO's model cache in this folder.

    Returns:
        See `measure_startup`.
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
    result: dict[str, Any] = {
        "load_ms": round(1e3 * (loaded_at - start), 2),
        "first_ms": round(1e3 * (finished - begun), 2),
        "resident_bytes": _growth(before, ran),
        "resident_after_load_bytes": _growth(before, loaded),
        "peak_bytes": _growth(before, peak),
    }
    if before is None:
        result["memory_unavailable"] = UNAVAILABLE
    return result


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
    asked = json.loads(sys.argv[1])
    answer = measure_here(
        Path(asked["file"]),
        parse_target(asked["target"]),
        tuple(asked["shape"]),
        asked["dtype"],
        _folder(asked.get("cache")),
        _folder(asked.get("store")),
    )
    print(_MARK + json.dumps(answer))
