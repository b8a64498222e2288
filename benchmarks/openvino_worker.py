"""Run one OpenVINO file on stored inputs, in a process of its own.

oneDNN reads ONEDNN_MAX_CPU_ISA once, when a process first computes: another instruction set needs
another process. Called by `agreement_common.run_openvino`.

    ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/openvino_worker.py model.xml in.npy out.npy out.json
"""

import sys
from pathlib import Path

import numpy as np

from kdas_edge.files import write_json
from kdas_edge.inspect import profile
from kdas_edge.runtime.backends import open_file
from kdas_edge.runtime.targets import cpu_target


def main(model: Path, inputs: Path, outputs: Path, report: Path, threads: int) -> None:
    x = np.load(inputs, mmap_mode="r")
    target = cpu_target(model, threads)
    backend = open_file(model, target)
    count, size = len(x), x.shape[-1]
    maps = np.lib.format.open_memmap(outputs, "w+", np.float32, (count, size, size))
    for index in range(count):
        maps[index] = backend.infer(x[index : index + 1])[0, 1]
    maps.flush()
    found = profile(model, np.array(x[:1]), target, rounds=5)
    write_json(report, found.arithmetic_kernels())


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:5]), threads=int(sys.argv[5]) if len(sys.argv) > 5 else 1)
