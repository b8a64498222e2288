"""ONNX Runtime backend: one explicit execution provider, no fallback."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from kdas_edge.environment import thread_limit
from kdas_edge.errors import first_line
from kdas_edge.runtime.failures import TargetError, inference_failed, model_closed
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


def open_file(
    path: Path, target: Target, shape: Sequence[int] | None = None, output: str | None = None
) -> "OnnxRuntimeBackend":
    """Load an ONNX file on a provider, its input as the file says; see `backends.open_file`."""
    return OnnxRuntimeBackend(path, target, output)


class OnnxRuntimeBackend:
    """An inference session with one provider; see `Backend`.

    Attributes:
        outputs: the names of each output of the file, one each.
    """

    def __init__(self, path: Path, target: Target, output: str | None = None) -> None:
        provider, _, precision = provider_of(target)
        start = time.perf_counter()
        session = open_session(path, target)
        self.load_seconds = time.perf_counter() - start
        # A provider whose driver is missing only logs, and the session runs on the CPU.
        if session.get_providers()[0] != provider:
            raise TargetError(
                "device absent",
                f"target {target}: {provider} could not start and ONNX Runtime offered "
                f"{session.get_providers()[0]} instead; check the driver and its libraries",
            )
        _check_batch(session, target)
        self._target = target
        self._session: ort.InferenceSession | None = session
        # its thread is made by the first frame that is started
        self._background = ThreadPoolExecutor(1, thread_name_prefix="kdas-edge-onnxruntime")
        self._input = session.get_inputs()[0].name
        names = [found.name for found in session.get_outputs()]
        self.outputs = [frozenset({name}) for name in names]
        self._output = output if output in names else names[0]
        used = session.get_session_options()
        self.effective: dict[str, object] = {
            "runtime": f"onnxruntime {ort.__version__}",
            "precision": precision,
            # 0 is ONNX Runtime's word for one thread per physical core
            "threads": used.intra_op_num_threads or "one per core",
            "streams": 1,
            "hint": used.execution_mode.name.removeprefix("ORT_").lower(),
            "devices": session.get_providers(),
            "batch": target.batch,
            "device": target.device,
            "inter_op_threads": used.inter_op_num_threads,
            "graph_optimization": used.graph_optimization_level.name.removeprefix("ORT_").lower(),
            "provider_options": session.get_provider_options()[provider],
        }

    def infer(self, x: NDArray[np.generic]) -> NDArray[np.float32]:
        """Run once; see `Backend.infer`."""
        session = self._session  # another thread may close while this one runs
        if session is None:
            raise model_closed()
        try:
            output: NDArray[np.float32] = session.run(
                [self._output], {self._input: np.ascontiguousarray(x)}
            )[0]
        except Exception as error:  # the runtime's exceptions share no base but Exception
            raise inference_failed(self._target, "ONNX Runtime", error) from error
        return output

    def start(self, x: NDArray[np.generic]) -> Callable[[], NDArray[np.float32]]:
        """Begin in a thread of its own; see `Backend.start`."""
        try:
            return self._background.submit(self.infer, x).result
        except RuntimeError:  # after `close` no work is taken
            raise model_closed() from None

    def close(self) -> None:
        """Free the model; see `Backend.close`."""
        self._session = None
        self._background.shutdown(wait=False)


def open_session(
    path: Path,
    target: Target,
    threads: int | None = None,
    configure: Callable[[ort.SessionOptions], None] | None = None,
) -> ort.InferenceSession:
    """Make a session with the settings of a target and no fallback to another provider.

    Args:
        path: an ONNX file.
        target: an ONNX Runtime target.
        threads: of one inference; the target's by default.
        configure: changes the session's options, for example to profile it.

    Raises:
        TargetError: an option that the provider has not, or a file that does not load.
    """
    provider, provider_options, _ = provider_of(target)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or target.threads or thread_limit() or 0
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    # errors only: warnings about unfused nodes would interleave with the tables
    options.log_severity_level = 3
    if configure is not None:
        configure(options)
    try:
        session = ort.InferenceSession(str(path), options, providers=[(provider, provider_options)])
    except Exception as error:  # the runtime's exceptions share no base but Exception
        raise TargetError(
            "cannot load",
            f"target {target}: ONNX Runtime cannot load {path.name} "
            f"({first_line(error)}); try another device",
        ) from error
    session.disable_fallback()
    return session


def provider_of(target: Target) -> tuple[str, dict[str, str], str]:
    """Provider name, its options, and the arithmetic precision that they give.

    Raises:
        TargetError: a precision that the provider cannot be asked for, or an option that ONNX
            Runtime does not know.
    """
    for option in ("streams", "hint"):
        if option in target.options:
            raise TargetError(
                "wrong option",
                f"target {target}: ONNX Runtime has no {option}; remove the option",
            )
    name, _, index = target.device.partition(".")
    options: dict[str, str] = {"device_id": index} if index else {}
    precision = target.options.get("precision", "f32")
    if name == "CUDA" and precision == "f32":
        # CUDA convolutions otherwise round fp32 inputs to TF32's 10 bits
        options["use_tf32"] = "0"
    elif name == "TensorRT" and precision != "f32":
        options["trt_fp16_enable" if precision == "f16" else "trt_bf16_enable"] = "1"
    elif precision != "f32":
        raise TargetError(
            "wrong option",
            f"target {target}: ONNX Runtime on {name} computes in the precision of the file; "
            "remove the option precision",
        )
    return PROVIDERS[name], options, precision


def _check_batch(session: ort.InferenceSession, target: Target) -> None:
    """A file is for one batch, unless its first dimension has a name instead of a number."""
    fixed = (session.get_inputs()[0].shape or [None])[0]
    if isinstance(fixed, int) and fixed != target.batch:
        raise TargetError(
            "wrong option",
            f"target {target}: the ONNX file is for batch {fixed}; remove the option batch, "
            "or export it with an open batch",
        )
