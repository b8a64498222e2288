"""Layer times of OpenVINO: time from the request, precision and shapes from the executed graph."""

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from kdas_edge.errors import UserError, last_line
from kdas_edge.inspect.layers import Layer, Profile, is_depthwise, kind_of, precision_name
from kdas_edge.runtime.backends.openvino import compile_model, core
from kdas_edge.runtime.targets import Target

# Below it, what the counters round away is no longer small; see `per_inference`.
_ROUNDS = 5


def profile_model(
    model: ov.Model | Path,
    x: NDArray[np.generic] | Sequence[NDArray[np.generic]],
    target: Target,
    rounds: int,
    warmup: int,
) -> Profile:
    """Run a model with OpenVINO's counters on; see `inspect.profile`."""
    if rounds < _ROUNDS:
        raise UserError(f"a profile of {rounds} rounds is too short; take at least {_ROUNDS}")
    feeds = itertools.cycle([x] if isinstance(x, np.ndarray) else x)
    compiled = compile_model(model, target, profiling=True)
    try:
        request = compiled.create_infer_request()
        for _ in range(warmup):
            request.infer([next(feeds)], share_inputs=True, share_outputs=True)
        readings = [_read(request)]
        seconds = []
        for _ in range(rounds):
            start = time.perf_counter()
            request.infer([next(feeds)], share_inputs=True, share_outputs=True)
            seconds.append(time.perf_counter() - start)
            readings.append(_read(request))
    except RuntimeError as error:
        raise UserError(
            f"OpenVINO cannot profile on {target.device} ({last_line(error)})"
        ) from error
    counters = [np.array([reading.get(name, 0.0) for reading in readings]) for name in readings[-1]]
    if target.device.startswith("CPU"):
        clock = np.array(seconds)
        spent = [per_inference(counter, warmup, clock) for counter in counters]
    else:
        # other plugins report the last inference
        spent = [float(np.median(counter[1:])) for counter in counters]
    times = dict(zip(readings[-1], spent, strict=True))
    graph = core().read_model(model) if isinstance(model, Path) else model
    layers = _layers(request, executed_layers(compiled), graph, times)
    return Profile(layers, rounds, float(np.median(seconds)) * 1e3)


def per_inference(
    averages: NDArray[np.float64], before: int, seconds: NDArray[np.float64]
) -> float:
    """Milliseconds of one inference from the CPU plugin's running average.

    The plugin's counter is the average over all inferences since the model was compiled, in whole
    microseconds, so that the first inference, ten times as slow, never leaves it. Average × count
    is the running total, whose steps are coarse: by as many microseconds as there were inferences.
    But in a row of steps the errors cancel all but the first and the last one. So the mean over the
    undisturbed inferences, those no more than a tenth slower than the median by the clock, is exact
    to a few microseconds; another process that takes the CPU every few inferences is left out.

    Args:
        averages: (N + 1,) milliseconds, a reading before the first inference and one after each.
        before: inferences up to and including the first reading.
        seconds: (N,) wall-clock time of each inference.
    """
    counts = before + np.arange(len(averages))
    # the average was rounded down, by half a microsecond at the mean; zero means "never ran"
    totals = counts * (averages + np.where(averages > 0, 0.5e-3, 0.0))
    undisturbed = seconds <= 1.1 * np.median(seconds)
    return max(0.0, float(np.diff(totals)[undisturbed].mean()))


def _read(request: ov.InferRequest) -> dict[str, float]:
    """Milliseconds of each executed layer, in the order of execution."""
    return {
        info.node_name: info.real_time.total_seconds() * 1e3
        for info in request.get_profiling_info()
        if str(info.status).endswith("EXECUTED")
    }


@dataclass(frozen=True)
class ExecutedLayer:
    """A layer of the graph that OpenVINO runs.

    Attributes:
        name: as OpenVINO calls it.
        operator: OpenVINO's layer type, e.g. `Convolution`; empty where it does not say.
        precision: of the arithmetic, as OpenVINO writes it, e.g. `u8`.
        originals: names of the layers of the file that were fused into it.
        weights: shape of its second input; empty where there is none or it is not static.
    """

    name: str
    operator: str
    precision: str
    originals: tuple[str, ...] = ()
    weights: tuple[int, ...] = ()


def executed_layers(compiled: ov.CompiledModel) -> list[ExecutedLayer]:
    """Read the graph that a device runs, in the order of execution."""
    return [_executed(op) for op in compiled.get_runtime_model().get_ordered_ops()]


def _executed(op: ov.Node) -> ExecutedLayer:
    info = op.get_rt_info()
    weights = op.input_value(1).get_partial_shape() if len(op.inputs()) > 1 else None
    static = weights is not None and weights.is_static
    return ExecutedLayer(
        name=op.get_friendly_name(),
        operator=_text(info, "layerType"),
        precision=_text(info, "runtimePrecision"),
        originals=tuple(name for name in _text(info, "originalLayersNames").split(",") if name),
        weights=tuple(weights.to_shape()) if weights is not None and static else (),
    )


def _text(info: Any, key: str) -> str:
    try:
        return str(info[key].astype(str))
    except (KeyError, RuntimeError):
        return ""


def _layers(
    request: ov.InferRequest,
    executed: Sequence[ExecutedLayer],
    graph: ov.Model,
    times: Mapping[str, float],
) -> tuple[Layer, ...]:
    by_name = {layer.name: layer for layer in executed}
    types = {op.get_friendly_name(): op.get_type_name() for op in graph.get_ops()}
    layers = []
    for info in request.get_profiling_info():
        if info.node_name not in times:
            continue
        kernel = info.exec_type
        layer = by_name.get(info.node_name)
        if layer is None:
            layer = ExecutedLayer(info.node_name, info.node_type, kernel.rpartition("_")[2])
        # operators that a transformation made are named after their type: Multiply_1234
        fused = [types.get(name, name.rpartition("_")[0]) for name in layer.originals]
        depthwise = is_depthwise(layer.weights) if len(layer.weights) >= 5 else "_dw" in kernel
        layers.append(
            Layer(
                name=info.node_name,
                operator=info.node_type,
                kind=kind_of(info.node_type, fused, depthwise),
                kernel=kernel,
                precision=precision_name(layer.precision),
                milliseconds=times[info.node_name],
            )
        )
    return tuple(layers)
