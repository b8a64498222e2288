"""Latency of networks of different precisions in OpenVINO, timed in turns."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from kdas_edge.export.openvino import to_openvino
from kdas_edge.latency import Latency, measure, speedup
from kdas_edge.runtime.backends.openvino import open_file
from kdas_edge.runtime.targets import Target


def openvino_latencies(
    networks: Mapping[str, nn.Module], size: int, iterations: int = 100, seconds: float = 20.0
) -> dict[str, Any]:
    """Time networks on OpenVINO's CPU, one thread, batch 1, interleaved.

    Args:
        networks: name → float or fake-quantised network; the first is the reference of the ratios.
        size: side S of their input, in pixels.
        iterations: rounds, each with one inference per network.
        seconds: stop earlier after so long.

    Returns:
        `target`, `reference`, and per network `p50` and `p90` in milliseconds and `speedup`: how
        many times faster than the reference, with a 95 % interval.
    """
    image = np.zeros((1, 3, size, size), np.float32)
    # one thread: what is compared is arithmetic, not the machine's spare cores
    target = Target("openvino", "CPU", {"threads": "1"})
    candidates = {
        name: functools.partial(open_file(to_openvino(network, size), target).infer, image)
        for name, network in networks.items()
    }
    found = measure(candidates, iterations, seconds)
    timed: dict[str, Latency] = {}
    for name, result in found.items():
        if isinstance(result, Exception):
            raise result
        timed[name] = result
    reference = next(iter(timed))
    return {
        "target": str(target),
        "reference": reference,
        "networks": {
            name: {
                "p50": round(latency.percentile(50) * 1e3, 3),
                "p90": round(latency.percentile(90) * 1e3, 3),
                "speedup": speedup(timed[reference], latency).as_json(),
            }
            for name, latency in timed.items()
        },
    }
