"""PyTorch backend, the reference on the workstation: eager mode, no TF32.

This is the one file of the device wing that needs torch; it is imported only for a torch target.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kdas_edge.environment import thread_limit
from kdas_edge.runtime.failures import TargetError, inference_failed, model_closed
from kdas_edge.runtime.targets import Target

_DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16}


def devices() -> list[str]:
    """`cpu`, and `cuda`, `cuda.1` … where torch can use them."""
    found = ["cpu"]
    if torch.cuda.is_available():
        found += ["cuda"] + [f"cuda.{index}" for index in range(1, torch.cuda.device_count())]
    return found


def open_file(
    path: Path, target: Target, shape: Sequence[int] | None = None, output: str | None = None
) -> "TorchBackend":
    """Load a checkpoint, which has one input and one output; see `backends.open_file`."""
    return TorchBackend(path, target)


class TorchBackend:
    """The trained network in eager mode; see `Backend`."""

    def __init__(self, path: Path, target: Target) -> None:
        # the workstation wing; a bundle with a torch file is opened where it was trained
        from kdas_edge.models.architecture import FullSize
        from kdas_edge.models.checkpoints import load_network
        from kdas_edge.models.tta import with_tta

        if target.threads is not None and not target.device.startswith("cpu"):
            raise TargetError(
                "wrong option", f"target {target}: option threads is for torch:cpu; remove it"
            )
        for option in ("streams", "hint"):
            if option in target.options:
                raise TargetError(
                    "wrong option", f"target {target}: torch has no {option}; remove the option"
                )
        self._device = torch.device(target.device.replace(".", ":"))
        self._target = target
        self._lock = threading.Lock()
        self._threads = target.threads or thread_limit() or torch.get_num_threads()
        precision = target.options.get("precision", "f32")
        self._autocast = _DTYPES.get(precision)
        start = time.perf_counter()
        network = FullSize(with_tta(load_network(path), target.tta))
        self._network: torch.nn.Module | None = network.eval().to(self._device)
        self.load_seconds = time.perf_counter() - start
        on_gpu = self._device.type == "cuda"
        self.effective: dict[str, object] = {
            "runtime": f"torch {torch.__version__}",
            "precision": precision,
            "threads": self._threads,
            "streams": 1,
            "hint": "eager",
            "devices": [str(self._device)],
            "batch": target.batch,
            "device": torch.cuda.get_device_name(self._device) if on_gpu else "CPU",
        }

    def infer(self, x: NDArray[np.generic]) -> NDArray[np.float32]:
        """Run once; see `Backend.infer`."""
        network = self._network  # another thread may close while this one runs
        if network is None:
            raise model_closed()
        # the thread count and cuDNN's flags belong to the process: one inference at a time
        with self._lock:
            # another backend may have changed it
            if torch.get_num_threads() != self._threads:
                torch.set_num_threads(self._threads)
            try:
                with torch.inference_mode(), _full_precision(), self._cast():
                    z1, z2 = network(torch.from_numpy(np.ascontiguousarray(x)).to(self._device))
                    polyp = torch.sigmoid(z1.float() + z2.float())
                # (B, 1, S, S) -> (B, 2, S, S); the copy to the host waits for the GPU
                output: NDArray[np.float32] = torch.cat([1 - polyp, polyp], dim=1).cpu().numpy()
            except RuntimeError as error:
                raise inference_failed(self._target, "torch", error) from error
        return output

    def start(self, x: NDArray[np.generic]) -> Callable[[], NDArray[np.float32]]:
        """Run when waited for; see `Backend.start`."""
        return lambda: self.infer(x)

    def close(self) -> None:
        """Free the model; see `Backend.close`."""
        self._network = None

    def _cast(self) -> contextlib.AbstractContextManager[object]:
        if self._autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, dtype=self._autocast)


def _full_precision() -> contextlib.AbstractContextManager[object]:
    # cuDNN convolutions use TF32 by default, which is not the fp32 that a table would claim
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=False)
