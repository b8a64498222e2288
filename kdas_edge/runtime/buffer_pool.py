"""Buffers for preprocessing and masks, reused from frame to frame."""

import threading
from collections import deque

import numpy as np
from numpy.typing import NDArray

from kdas_edge.bundle.manifest import Manifest
from kdas_edge.data.layout import resize_image
from kdas_edge.runtime.inputs import normalise
from kdas_edge.runtime.masks import mask_at_size
from kdas_edge.runtime.resample import FrameResampler, worth_it

# frame sizes that are remembered: a source has one, a second source another
_SIZES = 4


class Workspace:
    """The buffers of one frame; for one thread at a time.

    Args:
        height: H of the frames.
        width: W of the frames.
        manifest: of the model.
    """

    def __init__(self, height: int, width: int, manifest: Manifest) -> None:
        self.shape = height, width
        self._manifest = manifest
        self._input: NDArray[np.float32] | None = None
        self._resampler: FrameResampler | None = None
        self._full: NDArray[np.float32] | None = None

    def core_input(
        self, frame: NDArray[np.uint8], is_rgb: bool, helper: bool
    ) -> NDArray[np.float32]:
        """Make the input of a `core` model.

        Args:
            frame: (H, W, 3) uint8.
            is_rgb: order of the channels; otherwise BGR.
            helper: let a second thread work on half of the frame, if it is free.

        Returns:
            (1, 3, S, S) float32; overwritten by the next call.
        """
        size = self._manifest.size
        if self._input is None:
            self._input = np.empty((1, 3, size, size), np.float32)
            if worth_it(*self.shape, size):
                self._resampler = FrameResampler(*self.shape, size)
        if self._resampler is not None:
            planes = self._resampler.planes(frame, helper)
        else:
            small = resize_image(frame, size, size)
            planes = [small[..., channel] for channel in range(3)]
        # the channels are swapped after the resize, where there are fewer pixels
        normalise(planes if is_rgb else planes[::-1], self._manifest.normalisation, self._input)
        return self._input

    def write_mask(
        self, probability: NDArray[np.float32], threshold: float, out: NDArray[np.bool_]
    ) -> None:
        """Write the mask to (H, W) bool that is all False; see `mask_at_size`."""
        if self._full is None:
            self._full = np.empty(self.shape, np.float32)
        mask_at_size(probability, threshold, *self.shape, scratch=self._full, out=out)


class BufferPool:
    """Idle workspaces by size of the frame; for any number of threads.

    A size has as many workspaces as there were ever frames of it in flight at the same time.

    Args:
        manifest: of the model.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._lock = threading.Lock()
        self._idle: dict[tuple[int, int], deque[Workspace]] = {}
        self._closed = False

    def take(self, height: int, width: int) -> Workspace:
        """A workspace for frames of this size, for the caller alone."""
        with self._lock:
            idle = self._idle.get((height, width))
            if idle:
                return idle.pop()
        return Workspace(height, width, self._manifest)

    def give_back(self, workspace: Workspace) -> None:
        """Let another frame use it."""
        with self._lock:
            if self._closed:
                return
            idle = self._idle.get(workspace.shape)
            if idle is None:
                if len(self._idle) == _SIZES:
                    # folders of images have many sizes; their buffers must not add up
                    self._idle.pop(next(iter(self._idle)))
                idle = self._idle[workspace.shape] = deque()
            idle.append(workspace)

    def close(self) -> None:
        """Free the idle workspaces, and from now on those that are given back."""
        with self._lock:
            self._closed = True
            self._idle.clear()
