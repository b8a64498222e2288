"""Run one OpenVINO file on stored inputs, in a process of its own.

oneDNN reads ONEDNN_MAX_CPU_ISA once, when a process first computes: another instruction set needs
another process. Called by `agreement_common.run_openvino`.

    ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/openvino_worker.py model.xml in.npy out.npy out.json
"""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import openvino as ov

from kdas_edge.files import write_json
from kdas_edge.inspect import profile_model
from kdas_edge.inspect.layers import ARITHMETIC


def main(model: Path, inputs: Path, outputs: Path, report: Path, threads: int) -> None:
    properties = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
    }
    x = np.load(inputs, mmap_mode="r")
    compiled = ov.Core().compile_model(model, "CPU", properties)
    count, size = len(x), x.shape[-1]
    maps = np.lib.format.open_memmap(outputs, "w+", np.float32, (count, size, size))
    for index in range(count):
        maps[index] = compiled(np.ascontiguousarray(x[index : index + 1]))[0][0, 1]
    maps.flush()
    profile = profile_model(model, np.array(x[:1]), threads, rounds=5, properties=properties)
    arithmetic = [layer for layer in profile.layers if layer.kind in ARITHMETIC]
    write_json(
        report,
        {
            "int8_kernels": Counter(x.kernel for x in arithmetic if x.precision == "int8"),
            "float_kernels": Counter(x.kernel for x in arithmetic if x.precision != "int8"),
        },
    )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:5]), threads=int(sys.argv[5]) if len(sys.argv) > 5 else 1)
