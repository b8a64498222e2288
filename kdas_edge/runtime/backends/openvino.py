"""OpenVINO backend: one request per inference in flight, explicit inference precision."""

import contextlib
import functools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from kdas_edge.environment import thread_limit
from kdas_edge.errors import last_line
from kdas_edge.runtime.failures import TargetError, inference_failed, model_closed
from kdas_edge.runtime.targets import Target

# compiled-model property -> name under which `effective` reports it
_REPORTED = {
    "INFERENCE_PRECISION_HINT": "precision",
    "INFERENCE_NUM_THREADS": "threads",
    "NUM_STREAMS": "streams",
    "PERFORMANCE_HINT": "hint",
    "EXECUTION_DEVICES": "devices",
}


@functools.cache
def core() -> ov.Core:
    """The process's one Core; making another loads every device plugin again."""
    return ov.Core()


def devices() -> list[str]:
    """Devices that OpenVINO finds, and AUTO, which chooses among them."""
    return [*core().available_devices, "AUTO"]


def open_file(
    model: "Path | ov.Model",
    target: Target,
    shape: Sequence[int] | None = None,
    output: str | None = None,
) -> "OpenVinoBackend":
    """Compile a file, or a graph in memory, for a device; see `backends.open_file`."""
    return OpenVinoBackend(model, target, shape, output)


class OpenVinoBackend:
    """A graph compiled for one device; see `Backend`.

    Attributes:
        outputs: the names of each output of the file.
    """

    def __init__(
        self,
        model: "Path | ov.Model",
        target: Target,
        shape: Sequence[int] | None = None,
        output: str | None = None,
    ) -> None:
        start = time.perf_counter()
        compiled = compile_model(model, target, shape)
        # idle requests; as many exist as there were ever inferences at the same time
        self._idle: deque[ov.InferRequest] = deque([compiled.create_infer_request()])
        self.load_seconds = time.perf_counter() - start
        self._compiled: ov.CompiledModel | None = compiled
        self._target = target
        self.outputs = [frozenset(output.get_names()) for output in compiled.outputs]
        self._output = _index(compiled.outputs, output)
        port = compiled.outputs[self._output]
        # A camera model takes any frame size and gives one output size, which may be written as
        # dynamic: then OpenVINO allocates the output itself.
        found = port.partial_shape
        self._output_shape = tuple(found.to_shape()) if found.is_static else None
        self._output_type = port.element_type.to_dtype()
        self.effective: dict[str, object] = {
            "runtime": f"openvino {ov.__version__.partition('-')[0]}",
            **effective_properties(compiled),
            "batch": target.batch,
            "device": _device_name(target.device),
        }

    def infer(self, x: NDArray[np.generic]) -> NDArray[np.float32]:
        """Run once; see `Backend.infer`."""
        # OpenVINO holds no reference to the arrays, so that both have a name here until it is done
        x = _shareable(x)
        request, output = self._prepared(x)
        with self._failures():
            request.infer()
        return self._result(request, output)

    def start(self, x: NDArray[np.generic]) -> Callable[[], NDArray[np.float32]]:
        """Begin in the background; see `Backend.start`."""
        x = _shareable(x)
        request, output = self._prepared(x)
        with self._failures():
            request.start_async()

        def wait(x: NDArray[np.generic] = x) -> NDArray[np.float32]:
            # the default argument keeps the input alive
            with self._failures():
                request.wait()
            return self._result(request, output)

        return wait

    def close(self) -> None:
        """Free the model; see `Backend.close`."""
        self._compiled = None
        self._idle.clear()

    def _prepared(
        self, x: NDArray[np.generic]
    ) -> tuple[ov.InferRequest, NDArray[np.float32] | None]:
        """A request of this thread's own that reads `x` in place, and where it writes."""
        compiled = self._compiled  # another thread may close while this one runs
        if compiled is None:
            raise model_closed()
        with self._failures():
            try:
                request = self._idle.pop()
            except IndexError:
                request = compiled.create_infer_request()
            request.set_input_tensor(ov.Tensor(x, shared_memory=True))
            if self._output_shape is None:
                return request, None
            output = np.empty(self._output_shape, dtype=self._output_type)
            request.set_output_tensor(self._output, ov.Tensor(output, shared_memory=True))
        return request, output

    def _result(
        self, request: ov.InferRequest, output: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """The output of a request that is done; the request is idle again."""
        if output is None:
            with self._failures():
                output = np.array(request.get_output_tensor(self._output).data)
        # a request that failed does not come here; one of a model that was closed is dropped
        if self._compiled is not None:
            self._idle.append(request)
        return output

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn what OpenVINO raises into a `TargetError`."""
        try:
            yield
        except RuntimeError as error:
            raise inference_failed(self._target, "OpenVINO", error) from error


def compile_model(
    model: "Path | ov.Model",
    target: Target,
    shape: Sequence[int] | None = None,
    cache: Path | None = None,
    profiling: bool = False,
) -> ov.CompiledModel:
    """Compile an IR, an ONNX file or a graph in memory with the settings of a target.

    Args:
        model: path of an `.xml` or `.onnx`, or a graph, which is not changed.
        target: an OpenVINO target.
        shape: the input's, batch 1, -1 where any size goes; used where the file leaves it open.
        cache: OpenVINO's model cache, a folder; `shape` is then left to the file unless the
            target has a batch.
        profiling: count the time of each layer, which itself takes time.

    Raises:
        TargetError: an option or a shape that the device or the model has not, or a file that
            OpenVINO cannot load.
    """
    settings = properties(target)
    if profiling:
        settings["PERF_COUNT"] = True
    if cache is not None:
        settings["CACHE_DIR"] = str(cache)
    try:
        if cache is not None and target.batch == 1:
            # from the path, OpenVINO finds the cached model without reading the graph
            return core().compile_model(model, target.device, settings)
        graph = core().read_model(model) if isinstance(model, Path) else model.clone()
        _fix_shape(graph, target, shape)
        return core().compile_model(graph, target.device, settings)
    except RuntimeError as error:
        name = model.name if isinstance(model, Path) else model.get_friendly_name()
        raise TargetError(
            "cannot load",
            f"target {target}: OpenVINO cannot load {name} "
            f"({last_line(error)}); try another device or precision",
        ) from error


def effective_properties(compiled: ov.CompiledModel) -> dict[str, object]:
    """Read back what a compiled model does: precision, threads, streams, hint and devices.

    A property that the device does not report (AUTO and NPU know fewer than CPU) is None.
    """
    supported = {str(name) for name in compiled.get_property("SUPPORTED_PROPERTIES")}
    return {
        reported: _plain(compiled.get_property(name)) if name in supported else None
        for name, reported in _REPORTED.items()
    }


def properties(target: Target) -> dict[str, object]:
    """What a target means to OpenVINO: by default one synchronous request; explicit precision.

    Raises:
        TargetError: an option that the device has not.
    """
    hint = target.options.get("hint", "latency")
    settings: dict[str, object] = {"PERFORMANCE_HINT": hint.upper()}
    streams = target.options.get("streams")
    if hint == "latency" and streams is None:
        settings["PERFORMANCE_HINT_NUM_REQUESTS"] = 1
    # Without a hint, a CPU with AMX or AVX512-BF16 runs an fp32 IR in bf16, a GPU in fp16.
    # NPUs have no f32 arithmetic at all.
    default = "f16" if target.device.startswith("NPU") else "f32"
    settings["INFERENCE_PRECISION_HINT"] = target.options.get("precision", default)
    if streams is not None:
        if target.device != "CPU" and not target.device.startswith("GPU"):
            raise TargetError(
                "wrong option",
                f"target {target}: option streams is for openvino:CPU and openvino:GPU; remove it",
            )
        settings["NUM_STREAMS"] = int(streams)
    elif target.device == "CPU" and hint == "latency":
        settings["NUM_STREAMS"] = 1
    if target.threads is not None:
        if target.device != "CPU":
            raise TargetError(
                "wrong option",
                f"target {target}: option threads is for openvino:CPU; remove it",
            )
        settings["INFERENCE_NUM_THREADS"] = target.threads
    elif target.device == "CPU" and (limit := thread_limit()) is not None:
        settings["INFERENCE_NUM_THREADS"] = limit
    return settings


def _shareable(x: NDArray[np.generic]) -> NDArray[np.generic]:
    """The array itself where OpenVINO can read it in place, otherwise a copy.

    It takes no memory that is read-only, as frames of PyAV or `np.frombuffer` are.
    """
    return np.require(x, requirements=["C", "W"])


def _fix_shape(graph: ov.Model, target: Target, shape: Sequence[int] | None) -> None:
    """Give the input the target's batch, and the contract's size where the file leaves it open."""
    found = graph.inputs[0].partial_shape
    if found.rank.is_dynamic and shape is None:
        raise _dynamic(target, found)
    wanted = (
        ov.PartialShape(list(shape))
        if shape is not None and found.is_dynamic
        else ov.PartialShape(str(found))
    )
    if target.batch > 1 or wanted[0].is_dynamic:
        wanted[0] = target.batch
    if wanted.is_dynamic and target.device.startswith("NPU"):
        raise _dynamic(target, found)
    if wanted == found:
        return
    try:
        graph.reshape(wanted)
    except RuntimeError as error:
        raise TargetError(
            "wrong option" if target.batch > 1 else "dynamic shape",
            f"target {target}: the model of input {found} cannot be given {wanted} "
            f"({last_line(error)}); remove the option batch, or export it with that shape",
        ) from error


def _dynamic(target: Target, shape: ov.PartialShape) -> TargetError:
    return TargetError(
        "dynamic shape",
        f"target {target}: {target.device} needs a static input, the model's is {shape}; "
        "use the core preset, or export it with one size",
    )


def _index(outputs: Sequence[ov.ConstOutput], name: str | None) -> int:
    """Index of the output of this name; 0 where the file has none."""
    return next((i for i, output in enumerate(outputs) if name in output.get_names()), 0)


def _device_name(device: str) -> str:
    if device == "AUTO":
        return "AUTO"
    return str(core().get_property(device, "FULL_DEVICE_NAME")).strip()


def _plain(value: object) -> object:
    """A property as a number, list or short word that JSON can hold."""
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [str(item) for item in value]
    if isinstance(value, ov.Type):
        return value.get_type_name()
    return str(value).rpartition(".")[2]
