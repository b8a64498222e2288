"""ONNX Runtime's profiler: it writes a trace file, which is read here and removed."""

import itertools
import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from kdas_edge.errors import UserError, first_line
from kdas_edge.inspect.layers import Layer, Profile, is_depthwise, kind_of, precision_name

_SUFFIX = "_kernel_time"


def profile_onnx(
    model: Path,
    x: NDArray[np.generic] | Sequence[NDArray[np.generic]],
    threads: int = 1,
    rounds: int = 20,
    provider: str = "CPUExecutionProvider",
    provider_options: Mapping[str, str] | None = None,
    warmup: int = 5,
) -> Profile:
    """Run a model with ONNX Runtime's profiler on, synchronously.

    Args:
        model: an ONNX file.
        x: the input, or several that are fed in turn.
        threads: of the CPU; 0 for one per core.
        rounds: profiled inferences.
        provider: execution provider.
        provider_options: its options.
        warmup: inferences before the profiled ones.

    Returns:
        Every node that ran, after ONNX Runtime's own fusions; the kernel is its operator.

    Raises:
        UserError: no round, or the file does not load.
    """
    if rounds < 1:
        raise UserError(f"a profile of {rounds} rounds says nothing; take at least 1")
    feeds = itertools.cycle([x] if isinstance(x, np.ndarray) else x)
    settings = (provider, dict(provider_options or {}))
    # Weights that a kernel has repacked are missing in the trace, and with them what tells a
    # depthwise convolution. One inference without repacking shows them.
    shown = _trace(model, itertools.islice(feeds, 1), threads, settings, repack=False)
    events = _trace(model, itertools.islice(feeds, warmup + rounds), threads, settings, repack=True)
    weights = {_key(node): _weights(node) for node in _nodes(shown)}
    return parse(events, warmup, weights)


def _trace(
    model: Path,
    feeds: Iterable[NDArray[np.generic]],
    threads: int,
    provider: tuple[str, dict[str, str]],
    repack: bool,
) -> list[dict[str, Any]]:
    """Run the model on every input and return what the profiler wrote."""
    with tempfile.TemporaryDirectory(prefix="kdas-edge-profile-") as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        # fatal errors only: a file that does not load is told once, below
        options.log_severity_level = 4
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "trace")
        options.add_session_config_entry("session.disable_prepacking", "0" if repack else "1")
        try:
            session = ort.InferenceSession(str(model), options, providers=[provider])
        except Exception as error:  # the runtime's exceptions share no base but Exception
            raise UserError(
                f"ONNX Runtime cannot profile {model.name} ({first_line(error)})"
            ) from error
        name = session.get_inputs()[0].name
        for x in feeds:
            session.run(None, {name: np.ascontiguousarray(x)})
        events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
    return events


def parse(
    events: Sequence[Mapping[str, Any]],
    warmup: int,
    weights: Mapping[tuple[str, str], Sequence[int]] | None = None,
) -> Profile:
    """A profile from the events of a trace.

    Args:
        events: of the categories `Session` (`model_run`: one inference) and `Node`; times in
            microseconds.
        warmup: first inferences that do not count.
        weights: shapes by (index, name) of a node where the trace itself lacks them.
    """
    runs = sorted(
        (event for event in events if event["name"] == "model_run"), key=lambda event: event["ts"]
    )[warmup:]
    spent: dict[tuple[str, str], list[float]] = {}
    first: dict[tuple[str, str], Mapping[str, Any]] = {}
    calls: Counter[tuple[str, str]] = Counter()
    nodes = sorted(_nodes(events), key=lambda event: event["ts"])
    for number, run in enumerate(runs):
        sums: defaultdict[tuple[str, str], float] = defaultdict(float)
        for event in nodes:
            if run["ts"] <= event["ts"] <= run["ts"] + run["dur"]:
                key = _key(event)
                sums[key] += event["dur"] / 1e3
                first.setdefault(key, event)
                calls[key] += 1 if number == 0 else 0
        for key, milliseconds in sums.items():
            spent.setdefault(key, []).append(milliseconds)
    layers = []
    for key, times in spent.items():
        event = first[key]
        shape = (weights or {}).get(key) or _weights(event)
        layers.append(_layer(event, shape, float(np.median(times)), calls[key]))
    wall = float(np.median([run["dur"] for run in runs])) / 1e3 if runs else 0.0
    return Profile(tuple(layers), len(runs), wall)


def _nodes(events: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [e for e in events if e["cat"] == "Node" and e["name"].endswith(_SUFFIX)]


def _key(event: Mapping[str, Any]) -> tuple[str, str]:
    """Index and name: the index is unique where the name need not be."""
    return event["args"].get("node_index", ""), event["name"].removesuffix(_SUFFIX)


def _inputs(event: Mapping[str, Any]) -> list[tuple[str, list[int]]]:
    """Element type and shape of each input; weights are inputs, too."""
    return [item for entry in event["args"].get("input_type_shape", []) for item in entry.items()]


def _weights(event: Mapping[str, Any]) -> Sequence[int]:
    return next((shape for _, shape in _inputs(event)[1:] if len(shape) >= 3), ())


def _layer(
    event: Mapping[str, Any], weights: Sequence[int], milliseconds: float, calls: int
) -> Layer:
    operator = event["args"]["op_name"]
    inputs = _inputs(event)
    x = inputs[0][1] if inputs else []
    # (N, C, H, W), or (N, H, W, C) in ONNX Runtime's own operators; one input channel is not
    # depthwise, it is one input channel
    depthwise = is_depthwise(weights) and weights[0] in (*x[1:2], *x[-1:])
    return Layer(
        name=_key(event)[1],
        operator=operator,
        kind=kind_of(operator, depthwise=depthwise),
        kernel=operator,
        precision=precision_name(inputs[0][0]) if inputs else "",
        milliseconds=milliseconds,
        calls=calls,
    )
