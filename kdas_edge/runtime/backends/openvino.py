"""OpenVINO: synchronous, one request, explicit inference precision."""

import functools
import time

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from kdas_edge.bundle.manifest import ModelFile
from kdas_edge.bundle.reader import Bundle
from kdas_edge.errors import UserError
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


def open_model(bundle: Bundle, model: ModelFile, target: Target) -> "OpenVinoBackend":
    """Compile an IR for a device; see `backends.open_backend`."""
    return OpenVinoBackend(bundle, model, target)


class OpenVinoBackend:
    """An IR compiled for one device; see `Backend`."""

    def __init__(self, bundle: Bundle, model: ModelFile, target: Target) -> None:
        settings = properties(target)
        path = bundle.file(model.path)
        start = time.perf_counter()
        try:
            graph = core().read_model(path)
            compiled = core().compile_model(graph, target.device, settings)
            self._request: ov.InferRequest | None = compiled.create_infer_request()
        except RuntimeError as error:
            raise UserError(
                f"target {target}: OpenVINO cannot load {model.path} "
                f"({_reason(error)}); try another device or precision"
            ) from error
        self.load_seconds = time.perf_counter() - start
        self._compiled: ov.CompiledModel | None = compiled
        shape = compiled.output(0).partial_shape
        # A camera model takes any frame size and gives one output size, which may be written as
        # dynamic: then OpenVINO allocates the output itself.
        self._output_shape = tuple(shape.to_shape()) if shape.is_static else None
        self.effective: dict[str, object] = {
            "runtime": f"openvino {ov.__version__.partition('-')[0]}"
        }
        supported = {str(name) for name in compiled.get_property("SUPPORTED_PROPERTIES")}
        for name, reported in _REPORTED.items():
            # None: this device does not tell (AUTO and NPU know fewer properties than CPU)
            known = name in supported
            self.effective[reported] = _plain(compiled.get_property(name)) if known else None
        self.effective["device"] = _device_name(target.device)

    def infer(self, x: NDArray[np.generic]) -> NDArray[np.float32]:
        """Run once; see `Backend.infer`."""
        if self._request is None:
            raise UserError("the model is closed; load it again")
        # Shared memory: the input is read, and the output written, in place. OpenVINO holds no
        # reference to the arrays, so that both must have a name here until it is done.
        x = np.ascontiguousarray(x)
        self._request.set_input_tensor(ov.Tensor(x, shared_memory=True))
        if self._output_shape is None:
            self._request.infer()
            return np.array(self._request.get_output_tensor().data, dtype=np.float32)
        output = np.empty(self._output_shape, dtype=np.float32)
        self._request.set_output_tensor(ov.Tensor(output, shared_memory=True))
        self._request.infer()
        return output

    def close(self) -> None:
        """Free the model; see `Backend.close`."""
        self._request = None
        self._compiled = None


def properties(target: Target) -> dict[str, object]:
    """What a target means to OpenVINO: one synchronous request, explicit precision.

    Raises:
        UserError: an option that the device has not.
    """
    settings: dict[str, object] = {
        "PERFORMANCE_HINT": "LATENCY",
        "PERFORMANCE_HINT_NUM_REQUESTS": 1,
    }
    # Without a hint, a CPU with AMX or AVX512-BF16 runs an fp32 IR in bf16, a GPU in fp16.
    # NPUs have no f32 arithmetic at all.
    default = "f16" if target.device.startswith("NPU") else "f32"
    settings["INFERENCE_PRECISION_HINT"] = target.options.get("precision", default)
    if target.device == "CPU":
        settings["NUM_STREAMS"] = 1
    if target.threads is not None:
        if target.device != "CPU":
            raise UserError(f"target {target}: option threads is for openvino:CPU; remove it")
        settings["INFERENCE_NUM_THREADS"] = target.threads
    return settings


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


def _reason(error: Exception) -> str:
    """The last line that says something: OpenVINO puts source locations first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
