"""What a choice of precisions costs in time: OpenVINO models of a few networks, timed in turns."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import nn

from kdas_edge.export.openvino import import_openvino, to_openvino
from kdas_edge.export.runners import compile_openvino
from kdas_edge.latency import Latency, measure, speedup


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
    ov = import_openvino()
    image = np.zeros((1, 3, size, size), np.float32)
    # one thread: what is compared is arithmetic, not the machine's spare cores
    compiled = {
        name: compile_openvino(to_openvino(network, size), threads=1)
        for name, network in networks.items()
    }

    def runner(model: Any) -> Callable[[], object]:
        request = model.create_infer_request()
        request.set_input_tensor(ov.Tensor(image))
        return lambda: request.infer()

    found = measure({name: runner(model) for name, model in compiled.items()}, iterations, seconds)
    timed: dict[str, Latency] = {}
    for name, result in found.items():
        if isinstance(result, Exception):
            raise result
        timed[name] = result
    reference = next(iter(timed))
    return {
        "target": "openvino:CPU:threads=1",
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
