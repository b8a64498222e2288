"""A loaded model with preprocessing and postprocessing: a frame in, a `Result` out."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.bundle.reader import Bundle
from kdas_edge.environment import usable_cpus
from kdas_edge.errors import UserError
from kdas_edge.runtime.backends import FORMATS, Backend, open_backend
from kdas_edge.runtime.buffer_pool import BufferPool, Workspace
from kdas_edge.runtime.failures import inference_failed
from kdas_edge.runtime.frames import Roi, to_three_channels
from kdas_edge.runtime.result import Result
from kdas_edge.runtime.targets import Target

# In this order where a preset is not named. `core` with the resize of `resample` is the faster one
# on a CPU: benchmarks/embedding_latency.py measures both.
PRESETS = ("core", "camera")


@dataclass(frozen=True)
class Prepared:
    """A frame that is ready for the network.

    Attributes:
        shape: height and width of the frame.
        region: the part of it that is looked at, or None.
        received, done: `time.perf_counter()` before and after the preparation.
    """

    shape: tuple[int, int]
    region: Roi | None
    received: float
    done: float


class Engine:
    """A model loaded on a target; any number of threads may use it at once.

    Attributes:
        bundle: the opened bundle.
        backend: the loaded model.
        target: where it runs.
        precision: of the model file.
        preset: `core` or `camera`.
        name: all of these in a line.
    """

    def __init__(
        self, bundle: Bundle, backend: Backend, target: Target, precision: str, preset: str
    ) -> None:
        self.bundle = bundle
        self.backend = backend
        self.target = target
        self.precision = precision
        self.preset = preset
        self.name = f"{bundle.name} {precision} {preset} on {target}"
        self._buffers = BufferPool(bundle.manifest)
        self._in_flight = 0
        self._change = threading.Condition()
        # a target of one thread leaves the other cores to the host's own work
        self._helper = (target.threads or usable_cpus()) > 1

    @classmethod
    def open(
        cls, bundle: Bundle, target: Target, precision: str | None, preset: str | None
    ) -> Self:
        """Load a model of an opened bundle.

        Args:
            bundle: its hashes have been checked.
            target: where to run.
            precision: of the model file; by default int8 where the bundle has it for this runtime,
                otherwise fp32.
            preset: by default the first of `PRESETS` that the bundle has.

        Raises:
            UserError: no such model, an absent device, or a target with a batch.
        """
        if target.batch != 1:
            raise UserError(
                f"target {target}: frames are segmented one at a time; remove the option batch"
            )
        precision, preset = _choice(bundle, target, precision, preset)
        if preset == "holoscan" and preset in bundle.manifest.inputs:
            raise UserError(
                f"preset {preset!r} is for NVIDIA Holoscan, which prepares the frame itself; "
                f"choose {' or '.join(PRESETS)}"
            )
        backend = open_backend(bundle, precision, target, preset)
        return cls(bundle, backend, target, precision, preset)

    def run(self, frame: NDArray[np.uint8], color: str, region: Roi | None) -> Result:
        """Segment one frame that has been checked.

        Raises:
            TargetError: the runtime cannot run the model any more.
        """
        self._enter()
        try:
            x, workspace, prepared = self._prepare(frame, color, region, self._helper)
            # a workspace is not given back where the runtime failed: it may still read it
            output = self.backend.infer(x)
            result = self._result(output, prepared, workspace)
            self._buffers.give_back(workspace)
            return result
        finally:
            self._leave()

    def start(
        self, frame: NDArray[np.uint8], color: str, region: Roi | None
    ) -> Callable[[], Result]:
        """Prepare a frame and begin its inference; the function returned waits for the result.

        It must be called, or the frame counts as in flight for ever.

        Args:
            frame: left as it is until then.
            color: order of its channels.
            region: the part that is looked at.
        """
        self._enter()
        try:
            # no helper: the other cores are at work on the frame before
            x, workspace, prepared = self._prepare(frame, color, region, helper=False)
            wait = self.backend.start(x)
        except BaseException:
            self._leave()
            raise

        def finish() -> Result:
            try:
                result = self._result(wait(), prepared, workspace)
                self._buffers.give_back(workspace)
                return result
            finally:
                self._leave()

        return finish

    def close(self) -> None:
        """Free the model and, once its last frame is done, the buffers."""
        self.backend.close()
        self._buffers.close()

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait until no frame is in flight; False if one still is after so many seconds."""
        with self._change:
            return self._change.wait_for(lambda: self._in_flight == 0, seconds)

    def _enter(self) -> None:
        with self._change:
            self._in_flight += 1

    def _leave(self) -> None:
        with self._change:
            self._in_flight -= 1
            self._change.notify_all()

    def _prepare(
        self, frame: NDArray[np.uint8], color: str, region: Roi | None, helper: bool
    ) -> tuple[NDArray[np.generic], Workspace, Prepared]:
        received = time.perf_counter()
        part = frame if region is None else frame[region.slices]
        part = to_three_channels(part, color)
        workspace = self._buffers.take(*part.shape[:2])
        if self.preset == "core":
            x: NDArray[np.generic] = workspace.core_input(part, color == "rgb", helper)
        else:
            bgr = cv2.cvtColor(part, cv2.COLOR_RGB2BGR) if color == "rgb" else part
            x = bgr[np.newaxis]
        height, width = frame.shape[:2]
        return x, workspace, Prepared((height, width), region, received, time.perf_counter())

    def _result(
        self, output: NDArray[np.float32], prepared: Prepared, workspace: Workspace
    ) -> Result:
        inferred = time.perf_counter()
        probability, threshold = output[0, 1], self.bundle.manifest.threshold
        # the maximum is NaN where any value is; a comparison with NaN would give an empty mask
        if not np.isfinite(probability.max()):
            error = ArithmeticError("its output holds values that are no numbers")
            raise inference_failed(self.target, self.target.runtime, error)
        mask = np.zeros(prepared.shape, np.bool_)
        region = prepared.region
        workspace.write_mask(
            probability, threshold, mask if region is None else mask[region.slices]
        )
        finished = time.perf_counter()
        return Result(
            mask,
            probability,
            threshold,
            {
                "preprocess": 1e3 * (prepared.done - prepared.received),
                "inference": 1e3 * (inferred - prepared.done),
                "postprocess": 1e3 * (finished - inferred),
            },
            {
                "received": prepared.received,
                "prepared": prepared.done,
                "inferred": inferred,
                "finished": finished,
            },
            region,
            self.name,
        )


def _choice(
    bundle: Bundle, target: Target, precision: str | None, preset: str | None
) -> tuple[str, str]:
    """The first precision and preset of those allowed that the bundle has for this runtime."""
    precisions = ("int8", "fp32") if precision is None else (precision,)
    presets = PRESETS if preset is None else (preset,)
    for one in precisions:
        for other in presets:
            if bundle.model(one, FORMATS[target.runtime], other) is not None:
                return one, other
    # there is none; loading it fails with a message that lists what there is
    return precisions[-1], presets[0]
