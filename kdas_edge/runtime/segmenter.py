"""One frame in, one mask out.

    with Segmenter.load("mybundle", target="openvino:CPU") as segmenter:
        result = segmenter.segment(cv2.imread("frame.png"))

The steps are those of training and of every other host: PIL's antialiased bilinear resize to the
network's square, `(x / 255 - mean) / std` on RGB, the network, and back: the probability is
resized to the frame bilinearly and then compared with the threshold.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from kdas_edge.bundle.reader import Bundle, open_bundle
from kdas_edge.bundle.shipped import or_shipped
from kdas_edge.errors import UserError
from kdas_edge.runtime.backends import Backend
from kdas_edge.runtime.choice import first_that_works, read_targets
from kdas_edge.runtime.engine import Engine
from kdas_edge.runtime.failures import TargetError
from kdas_edge.runtime.field_of_view import FieldOfView, RoiChoice
from kdas_edge.runtime.frames import Color, Roi, check_frame
from kdas_edge.runtime.infer_future import InferFuture
from kdas_edge.runtime.inputs import preprocess
from kdas_edge.runtime.masks import mask_at_size
from kdas_edge.runtime.memory import trim_heap
from kdas_edge.runtime.result import Result
from kdas_edge.runtime.targets import Target

__all__ = ["InferFuture", "Result", "Segmenter", "check_frame", "mask_at_size", "preprocess"]

# seconds that a swap waits for the last frames of the old model
_LAST_FRAMES = 1.0


class Segmenter:
    """A bundle loaded on a target. Any number of threads may use one at the same time.

    Attributes:
        failures: why targets were given up, one line each, oldest first.
    """

    def __init__(
        self,
        engine: Engine,
        field_of_view: FieldOfView | None = None,
        fallbacks: Sequence[Target] = (),
        wanted: tuple[str | None, str | None] = (None, None),
        failures: Sequence[str] = (),
    ) -> None:
        """Use a loaded model; `load` makes one of a bundle.

        Args:
            engine: the loaded model; closed with the segmenter.
            field_of_view: the part of the frames that is looked at; all by default.
            fallbacks: targets that take over when the device fails, in this order.
            wanted: precision and preset that were asked for, which a fallback gets, too.
            failures: why targets before the engine's did not work.
        """
        self.failures = list(failures)
        self._engine = engine
        self._field_of_view = field_of_view or FieldOfView()
        self._fallbacks = list(fallbacks)
        self._wanted = wanted
        self._last_size: tuple[int, int] | None = None
        self._closed = False
        # held while models are exchanged; frames do not wait for it
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls,
        bundle: str | Path | None = None,
        target: str | Target | Sequence[str | Target] = "openvino:CPU",
        precision: str | None = None,
        preset: str | None = None,
        *,
        roi: RoiChoice = None,
    ) -> Self:
        """Open a bundle, check its hashes and load one of its models.

        Args:
            bundle: its directory; by default the student that comes with the package.
            target: `runtime:device[:option=value…]`. Of a list the first that works is used; when
                its device fails later, the next takes over in the middle of the frame. Without a
                list nothing is ever replaced.
            precision: `fp32`, `fp16`, `int8` or `int8_weights`; by default int8 where the bundle
                has it for this runtime, otherwise fp32.
            preset: `core` (this class prepares the frame) or `camera` (the graph does); by default
                `core`, which is faster on a CPU, where the bundle has it.
            roi: the part of the frames that is looked at: x, y, width, height; `auto` finds the
                picture within a black border in the first frames; None takes all.

        Raises:
            UserError: the bundle is damaged or has no such model, or the device is absent.
        """
        targets = read_targets(target)
        field_of_view = FieldOfView(roi)
        opened = open_bundle(or_shipped(None if bundle is None else Path(bundle)))
        engine, rest, failures = first_that_works(opened, targets, precision, preset)
        return cls(engine, field_of_view, rest, (precision, preset), failures)

    @property
    def bundle(self) -> Bundle:
        """The opened bundle."""
        return self._engine.bundle

    @property
    def backend(self) -> Backend:
        """The loaded model; `backend.effective` reports what the runtime does."""
        return self._engine.backend

    @property
    def target(self) -> Target:
        """Where it runs now."""
        return self._engine.target

    @property
    def precision(self) -> str:
        """`fp32`, `fp16`, `int8` or `int8_weights`."""
        return self._engine.precision

    @property
    def preset(self) -> str:
        """`core` (this class prepares the frame) or `camera` (the graph does)."""
        return self._engine.preset

    def segment(self, frame_bgr: NDArray[np.uint8], color: Color = "bgr") -> Result:
        """Segment one frame.

        Args:
            frame_bgr: (H, W, 3) uint8, channels blue, green, red as OpenCV and cameras give them,
                or what `color` says. It is read where it lies, a view of a larger array included.
            color: `bgr`, `rgb`, `gray` for (H, W) or (H, W, 1), `bgra` for (H, W, 4).

        Raises:
            UserError: the frame has another shape or type, or no pixel.
            TargetError: the device failed and there is no other target.
        """
        check_frame(frame_bgr, color)
        region = self._field_of_view.of(frame_bgr)
        self._last_size = frame_bgr.shape[0], frame_bgr.shape[1]
        return self._run(frame_bgr, color, region)

    def submit(self, frame_bgr: NDArray[np.uint8], color: Color = "bgr") -> "InferFuture":
        """Prepare a frame and begin its inference in the background.

        Two frames in flight keep the device busy: submit the next one before waiting for the
        result of this one. More frames only wait longer.

        Args:
            frame_bgr: as for `segment`; leave it as it is until the result is there.
            color: as for `segment`.

        Raises:
            UserError, TargetError: as for `segment`.
        """
        check_frame(frame_bgr, color)
        region = self._field_of_view.of(frame_bgr)
        self._last_size = frame_bgr.shape[0], frame_bgr.shape[1]
        while True:
            engine = self._engine
            try:
                finish = engine.start(frame_bgr, color, region)
                break
            except TargetError as error:
                self._recover(engine, error)

        def again(error: TargetError) -> Result:
            self._recover(engine, error)
            return self._run(frame_bgr, color, region)

        return InferFuture(finish, again)

    def segment_many(
        self, frames: Iterable[NDArray[np.uint8]], color: Color = "bgr", depth: int = 2
    ) -> Iterator[Result]:
        """Segment frames in their order, the next one prepared while one is inferred.

        Args:
            frames: as for `segment`; each is left as it is until its result is out.
            color: as for `segment`.
            depth: frames in flight; the first result comes when so many have been taken.

        Raises:
            UserError: a frame cannot be segmented; the results before it come first.
        """
        if depth < 1:
            raise UserError(f"depth {depth}: at least 1 frame is in flight; give 1 or 2")
        waiting: deque[InferFuture] = deque()
        try:
            for frame in frames:
                try:
                    waiting.append(self.submit(frame, color))
                except UserError:
                    while waiting:
                        yield waiting.popleft().result()
                    raise
                if len(waiting) >= depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            # the caller stopped early, and the device still reads those frames
            for pending in waiting:
                with contextlib.suppress(UserError):
                    pending.result()

    def warm_up(self, height: int, width: int) -> None:
        """Segment a black frame, so that the first real one of this size is not slow."""
        frame = np.zeros((height, width, 3), np.uint8)
        self._run(frame, "bgr", None)

    def swap(
        self,
        bundle: str | Path | None = None,
        target: str | Target | Sequence[str | Target] | None = None,
        precision: str | None = None,
        preset: str | None = None,
    ) -> None:
        """Replace the model while frames go on.

        The new one is loaded and warmed up first, at the size of the last frame. Until then, and
        if anything about it is wrong, frames are segmented by the old one; `Result.model` names
        the one that was used.

        Args:
            bundle: its directory; by default the one in use.
            target: as for `load`; by default the targets of the old model.
            precision: as for `load`.
            preset: as for `load`.

        Raises:
            UserError: as for `load`; the old model stays.
        """
        opened = open_bundle(self.bundle.path if bundle is None else Path(bundle))
        targets = [self.target, *self._fallbacks] if target is None else read_targets(target)
        replacement, rest, failures = first_that_works(opened, targets, precision, preset)
        try:
            if self._last_size is not None:
                replacement.run(np.zeros((*self._last_size, 3), np.uint8), "bgr", None)
            with self._lock:
                if self._closed:
                    raise UserError("the segmenter is closed; load it again")
                old, self._engine = self._engine, replacement
                self._fallbacks, self._wanted = rest, (precision, preset)
                self.failures += failures
        except UserError:
            replacement.close()
            raise
        old.close()
        # the last frames of the old model still use its buffers
        old.wait_until_idle(_LAST_FRAMES)
        trim_heap()

    def forget_region(self) -> None:
        """With `roi="auto"`: look for the picture again, e.g. of another endoscope."""
        self._field_of_view.forget()

    def close(self) -> None:
        """Free the model."""
        with self._lock:
            self._closed = True
            self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, frame: NDArray[np.uint8], color: str, region: Roi | None) -> Result:
        while True:
            engine = self._engine
            try:
                return engine.run(frame, color, region)
            except TargetError as error:
                self._recover(engine, error)

    def _recover(self, engine: Engine, error: TargetError) -> None:
        """Return if the frame is to be tried again, on another model than `engine`.

        Raises:
            TargetError: there is none.
        """
        with self._lock:
            if self._closed:
                raise error
            if self._engine is not engine:
                return  # swapped, or another thread was first
            if error.kind != "inference failed" or not self._fallbacks:
                raise error
            self.failures.append(str(error))
            try:
                replacement, rest, failures = first_that_works(
                    engine.bundle, self._fallbacks, *self._wanted
                )
            except UserError as last:
                raise TargetError(
                    "inference failed", f"{error}; no other target works: {last}"
                ) from error
            self._engine, self._fallbacks = replacement, rest
            self.failures += failures
        engine.close()
