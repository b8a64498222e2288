"""Layer times of ONNX Runtime, from the trace file of its profiler, and its optimised graph."""

import itertools
import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from kdas_edge.errors import UserError
from kdas_edge.inspect.layers import Layer, Profile, is_depthwise, kind_of, precision_name
from kdas_edge.runtime.backends.onnxruntime import open_session
from kdas_edge.runtime.targets import Target

if TYPE_CHECKING:
    import onnx

_SUFFIX = "_kernel_time"


def profile_onnx(
    model: Path,
    x: NDArray[np.generic] | Sequence[NDArray[np.generic]],
    target: Target,
    rounds: int,
    warmup: int,
) -> Profile:
    """Run a model with ONNX Runtime's profiler on; see `inspect.profile`."""
    if rounds < 1:
        raise UserError(f"a profile of {rounds} rounds is too short; take at least 1")
    feeds = itertools.cycle([x] if isinstance(x, np.ndarray) else x)
    # Weights that a kernel has repacked are missing in the trace, and with them what tells a
    # depthwise convolution. One inference without repacking shows them.
    shown = _trace(model, itertools.islice(feeds, 1), target, repack=False)
    events = _trace(model, itertools.islice(feeds, warmup + rounds), target, repack=True)
    weights = {_key(node): _weights(node) for node in _nodes(shown)}
    return parse(events, warmup, weights)


def _trace(
    model: Path, feeds: Iterable[NDArray[np.generic]], target: Target, repack: bool
) -> list[dict[str, Any]]:
    """Run the model on every input and return what the profiler wrote."""
    with tempfile.TemporaryDirectory(prefix="kdas-edge-profile-") as folder:

        def configure(options: ort.SessionOptions) -> None:
            # fatal errors only: a file that does not load is reported once, by the exception
            options.log_severity_level = 4
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "trace")
            options.add_session_config_entry("session.disable_prepacking", "0" if repack else "1")

        session = open_session(model, target, configure=configure)
        name = session.get_inputs()[0].name
        for x in feeds:
            session.run(None, {name: np.ascontiguousarray(x)})
        events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
    return events


def optimised_graph(path: Path, target: Target) -> "onnx.ModelProto":
    """Read the graph that ONNX Runtime really runs, which it writes when it loads a file."""
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        optimised = str(Path(folder) / "optimised.onnx")

        def configure(options: ort.SessionOptions) -> None:
            options.optimized_model_filepath = optimised

        open_session(path, target, configure=configure)
        return onnx.load(optimised)


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
