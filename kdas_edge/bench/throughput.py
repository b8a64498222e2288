"""Throughput: frames a second when many requests are in flight. It is not the inverse of a latency.

For recordings, not for the live picture: every frame waits for others. So it stands in a table of
its own, measured after the latencies, with the model loaded again for this purpose.
"""

import itertools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdas_edge.bench.measurement_results import Throughput
from kdas_edge.bench.result_base import properties
from kdas_edge.bundle.reader import Bundle
from kdas_edge.environment import usable_cpus
from kdas_edge.errors import UserError
from kdas_edge.runtime.backends import FORMATS, check_present
from kdas_edge.runtime.failures import TargetError
from kdas_edge.runtime.targets import Target

_WARMUP_ROUNDS = 2


def measure_throughput(
    bundle: Bundle,
    precision: str,
    target: Target,
    inputs: Sequence[NDArray[np.generic]],
    seconds: float,
) -> Throughput:
    """Frames a second of a `core` model with as many requests in flight as the runtime likes.

    OpenVINO: an asynchronous queue under the hint THROUGHPUT, with the number of requests that
    the device asks for. ONNX Runtime on a CPU: as many threads call one session as the target has
    threads, each inference on one thread; on other devices two callers.

    Args:
        bundle: an opened bundle.
        precision: which of its models.
        target: where; its options hold, but for `hint`.
        inputs: of the target's batch, fed in turn.
        seconds: how long.

    Raises:
        TargetError: the target is absent, has no requests in flight (torch), or cannot load it.
    """
    if target.runtime == "torch":
        raise TargetError(
            "wrong option", f"target {target}: torch has no requests in flight; choose another"
        )
    model = bundle.model(precision, FORMATS[target.runtime])
    if model is None:
        raise TargetError(
            "no such model", f"{bundle.name} has no {precision} model for {target.runtime}"
        )
    if seconds <= 0:
        raise UserError(f"a throughput over {seconds:g} s measures nothing; raise --seconds")
    check_present(target)
    file, shape = bundle.file(model.path), bundle.manifest.inputs["core"].shape
    if target.runtime == "openvino":
        return _openvino(file, target, shape, inputs, seconds)
    return _onnxruntime(file, target, inputs, seconds)


def _openvino(
    file: Path,
    target: Target,
    shape: Sequence[int],
    inputs: Sequence[NDArray[np.generic]],
    seconds: float,
) -> Throughput:
    import openvino as ov

    from kdas_edge.runtime.backends.openvino import compile_model, effective_properties

    options = {**target.options, "hint": "throughput"}
    compiled = compile_model(file, replace(target, options=options), shape)
    queue = ov.AsyncInferQueue(compiled)
    requests = len(queue)
    feeds = itertools.cycle(inputs)
    for _ in range(_WARMUP_ROUNDS * requests):
        queue.start_async([next(feeds)])
    queue.wait_all()
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        # waits for an idle request, so that as many as there are stay in flight
        queue.start_async([next(feeds)])
        count += 1
    queue.wait_all()
    taken = time.perf_counter() - begun
    return _result(count, taken, requests, target, effective_properties(compiled))


def _onnxruntime(
    file: Path, target: Target, inputs: Sequence[NDArray[np.generic]], seconds: float
) -> Throughput:
    from kdas_edge.runtime.backends.onnxruntime import open_session

    on_cpu = target.device == "CPU"
    callers = (target.threads or usable_cpus()) if on_cpu else 2
    session = open_session(file, target, threads=1 if on_cpu else None)
    name = session.get_inputs()[0].name
    for x in itertools.islice(itertools.cycle(inputs), _WARMUP_ROUNDS):
        session.run(None, {name: x})

    def call(until: float) -> int:
        feeds, count = itertools.cycle(inputs), 0
        while time.perf_counter() < until:
            session.run(None, {name: next(feeds)})
            count += 1
        return count

    with ThreadPoolExecutor(callers) as pool:
        begun = time.perf_counter()
        count = sum(pool.map(call, [begun + seconds] * callers))
        taken = time.perf_counter() - begun
    effective = {"threads": callers, "devices": session.get_providers(), "hint": "callers"}
    return _result(count, taken, callers, target, effective)


def _result(
    inferences: int, seconds: float, requests: int, target: Target, effective: dict[str, object]
) -> Throughput:
    frames = inferences * target.batch
    return Throughput(
        frames_per_second=round(frames / seconds, 2),
        frames=frames,
        seconds=round(seconds, 3),
        requests=requests,
        batch=target.batch,
        effective=properties(effective),
    )
