"""ONNX Runtime: one explicit execution provider, no silent fallback."""

import time

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from kdas_edge.bundle.manifest import ModelFile
from kdas_edge.bundle.reader import Bundle
from kdas_edge.errors import UserError
from kdas_edge.runtime.targets import Target

PROVIDERS = {
    "CPU": "CPUExecutionProvider",
    "CUDA": "CUDAExecutionProvider",
    "TensorRT": "TensorrtExecutionProvider",
    "DirectML": "DmlExecutionProvider",
    "CoreML": "CoreMLExecutionProvider",
    "OpenVINO": "OpenVINOExecutionProvider",
}


def devices() -> list[str]:
    """Devices whose execution provider this build of ONNX Runtime has."""
    present = ort.get_available_providers()
    return [device for device, provider in PROVIDERS.items() if provider in present]


def open_model(bundle: Bundle, model: ModelFile, target: Target) -> "OnnxRuntimeBackend":
    """Load an ONNX file on a provider; see `backends.open_backend`."""
    return OnnxRuntimeBackend(bundle, model, target)


class OnnxRuntimeBackend:
    """An inference session with one provider; see `Backend`."""

    def __init__(self, bundle: Bundle, model: ModelFile, target: Target) -> None:
        provider, provider_options, precision = provider_of(target)
        options = ort.SessionOptions()
        options.intra_op_num_threads = target.threads or 0
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        # errors only: warnings about unfused nodes would interleave with the tables
        options.log_severity_level = 3
        path = bundle.file(model.path)
        start = time.perf_counter()
        try:
            session = ort.InferenceSession(
                str(path), options, providers=[(provider, provider_options)]
            )
        except Exception as error:  # the runtime's exceptions share no base but Exception
            raise UserError(
                f"target {target}: ONNX Runtime cannot load {model.path} "
                f"({str(error).splitlines()[0][:200]}); try another device"
            ) from error
        self.load_seconds = time.perf_counter() - start
        # A provider whose driver is missing only logs, and the session runs on the CPU.
        if session.get_providers()[0] != provider:
            raise UserError(
                f"target {target}: {provider} could not start and ONNX Runtime offered "
                f"{session.get_providers()[0]} instead; check the driver and its libraries"
            )
        session.disable_fallback()
        self._session: ort.InferenceSession | None = session
        self._input = session.get_inputs()[0].name
        self._output = session.get_outputs()[0].name
        used = session.get_session_options()
        self.effective: dict[str, object] = {
            "runtime": f"onnxruntime {ort.__version__}",
            "precision": precision,
            # 0 is ONNX Runtime's word for one thread per physical core
            "threads": used.intra_op_num_threads or "one per core",
            "streams": 1,
            "hint": "sequential",
            "devices": session.get_providers(),
            "device": target.device,
        }

    def infer(self, x: NDArray[np.generic]) -> NDArray[np.float32]:
        """Run once; see `Backend.infer`."""
        if self._session is None:
            raise UserError("the model is closed; load it again")
        output: NDArray[np.float32] = self._session.run(
            [self._output], {self._input: np.ascontiguousarray(x)}
        )[0]
        return output

    def close(self) -> None:
        """Free the model; see `Backend.close`."""
        self._session = None


def provider_of(target: Target) -> tuple[str, dict[str, str], str]:
    """Provider name, its options, and the arithmetic precision that they give.

    Raises:
        UserError: a precision that the provider cannot be asked for.
    """
    name, _, index = target.device.partition(".")
    options: dict[str, str] = {"device_id": index} if index else {}
    precision = target.options.get("precision", "f32")
    if name == "CUDA" and precision == "f32":
        # CUDA convolutions otherwise round fp32 inputs to TF32's 10 bits
        options["use_tf32"] = "0"
    elif name == "TensorRT" and precision != "f32":
        options["trt_fp16_enable" if precision == "f16" else "trt_bf16_enable"] = "1"
    elif precision != "f32":
        raise UserError(
            f"target {target}: ONNX Runtime on {name} computes in the precision of the file; "
            "remove the option precision"
        )
    return PROVIDERS[name], options, precision
