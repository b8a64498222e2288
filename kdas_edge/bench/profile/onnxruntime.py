"""ONNX Runtime's profiler: it writes a trace file, which is read here and removed."""

import itertools
import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from kdas_edge.bench.profile.layers import Layer, Profile, is_depthwise, kind_of, precision_name
from kdas_edge.errors import UserError

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
    with tempfile.TemporaryDirectory(prefix="kdas-edge-profile-") as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "trace")
        try:
            session = ort.InferenceSession(
                str(model), options, providers=[(provider, dict(provider_options or {}))]
            )
        except Exception as error:  # the runtime's exceptions share no base but Exception
            raise UserError(
                f"ONNX Runtime cannot profile {model.name} ({str(error).splitlines()[0][:200]})"
            ) from error
        name = session.get_inputs()[0].name
        for _ in range(warmup + rounds):
            session.run(None, {name: np.ascontiguousarray(next(feeds))})
        events = json.loads(Path(session.end_profiling()).read_text())
    return parse(events, warmup)


def parse(events: Sequence[Mapping[str, Any]], warmup: int) -> Profile:
    """A profile from the events of a trace.

    Args:
        events: of the categories `Session` (`model_run`: one inference) and `Node`; times in
            microseconds.
        warmup: first inferences that do not count.
    """
    runs = sorted(
        (event for event in events if event["name"] == "model_run"), key=lambda event: event["ts"]
    )[warmup:]
    # a node's index is unique where its name need not be
    spent: dict[tuple[str, str], list[float]] = {}
    first: dict[tuple[str, str], Mapping[str, Any]] = {}
    calls: Counter[tuple[str, str]] = Counter()
    nodes = [e for e in events if e["cat"] == "Node" and e["name"].endswith(_SUFFIX)]
    nodes.sort(key=lambda event: event["ts"])
    for number, run in enumerate(runs):
        sums: defaultdict[tuple[str, str], float] = defaultdict(float)
        for event in nodes:
            if run["ts"] <= event["ts"] <= run["ts"] + run["dur"]:
                key = (event["args"].get("node_index", ""), event["name"].removesuffix(_SUFFIX))
                sums[key] += event["dur"] / 1e3
                first.setdefault(key, event)
                calls[key] += 1 if number == 0 else 0
        for key, milliseconds in sums.items():
            spent.setdefault(key, []).append(milliseconds)
    layers = [
        _layer(key[1], first[key]["args"], float(np.median(times)), calls[key])
        for key, times in spent.items()
    ]
    wall = float(np.median([run["dur"] for run in runs])) / 1e3 if runs else 0.0
    return Profile(tuple(layers), len(runs), wall)


def _layer(name: str, arguments: Mapping[str, Any], milliseconds: float, calls: int) -> Layer:
    operator = arguments["op_name"]
    # one {type: shape} for each input; weights are inputs too
    inputs = [item for entry in arguments.get("input_type_shape", []) for item in entry.items()]
    weights = next((shape for _, shape in inputs[1:] if len(shape) >= 3), ())
    return Layer(
        name=name,
        operator=operator,
        kind=kind_of(operator, depthwise=is_depthwise(weights)),
        kernel=operator,
        precision=precision_name(inputs[0][0]) if inputs else "",
        milliseconds=milliseconds,
        calls=calls,
    )
