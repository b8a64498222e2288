"""Run an exported file where it was exported: one CPU runtime each, in fp32 arithmetic.

The device wing has its own backends for every device; this room may not know them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdas_edge.export.openvino import import_openvino

# takes the model's input, gives (1, 2, S, S) probabilities
Infer = Callable[[NDArray[np.generic]], NDArray[np.float32]]


def load(path: Path, threads: int | None = None) -> Infer:
    """Load an `.xml` in OpenVINO or an `.onnx` in ONNX Runtime.

    Args:
        path: the file.
        threads: of the CPU; the runtime's own choice by default.
    """
    if path.suffix == ".xml":
        compiled = compile_openvino(path, threads)
        return lambda x: compiled(x)[0]
    session = onnxruntime_session(path, threads)
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def compile_openvino(model: Any, threads: int | None = None) -> Any:
    """Compile an IR for the CPU, with explicit fp32 arithmetic and one stream.

    Args:
        model: the path of an `.xml`, or an `ov.Model` in memory.
        threads: of the CPU; the runtime's own choice by default.
    """
    ov = import_openvino()
    # without the hint a CPU with bf16 would silently compute in it
    properties: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    if threads is not None:
        properties["INFERENCE_NUM_THREADS"] = threads
    return ov.Core().compile_model(model, "CPU", properties)


def onnxruntime_session(
    path: Path, threads: int | None = None, optimised: Path | None = None
) -> Any:
    """Open a CPU session with all optimisations.

    Args:
        path: the `.onnx` file.
        threads: of one operator.
        optimised: where to write the graph that is really run.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
