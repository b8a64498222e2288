"""From a frame to a mask in the steps that a benchmark times apart, for ours and for peers."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kdas_edge.bench.peer_pipeline import PeerPipeline
from kdas_edge.bench.peers import PeerBundle
from kdas_edge.bundle.reader import Bundle
from kdas_edge.runtime.backends import Backend
from kdas_edge.runtime.engine import Engine
from kdas_edge.runtime.segmenter import Result, Segmenter, preprocess
from kdas_edge.runtime.targets import Target


class Pipeline(Protocol):
    """A loaded model with all that comes before and after it."""

    def prepare(self, frame_rgb: NDArray[np.uint8]) -> NDArray[np.generic]:
        """Make the model's input, the frame repeated over the batch, from (H, W, 3) uint8 RGB."""
        ...

    def probability(
        self, output: NDArray[np.generic], height: int, width: int
    ) -> NDArray[np.float32]:
        """Polyp probabilities (h, w) of the first frame of an output of the model.

        Ours have the model's size and are resized by the metrics; a peer's have the frame's, since
        how they get there is the peer's affair.
        """
        ...

    def segment(self, frame_bgr: NDArray[np.uint8]) -> Result:
        """Frame in, mask of the frame's size out."""
        ...


class CorePipeline:
    """The `core` model of one of our bundles; see `Pipeline`."""

    def __init__(self, bundle: Bundle, backend: Backend, target: Target, precision: str) -> None:
        self._manifest = bundle.manifest
        self._batch = target.batch
        self._segmenter = Segmenter(Engine(bundle, backend, target, precision, "core"))

    def prepare(self, frame_rgb: NDArray[np.uint8]) -> NDArray[np.generic]:
        """See `Pipeline.prepare`."""
        x = preprocess(frame_rgb, self._manifest)
        return np.repeat(x, self._batch, axis=0) if self._batch > 1 else x

    def probability(
        self, output: NDArray[np.generic], height: int, width: int
    ) -> NDArray[np.float32]:
        """See `Pipeline.probability`."""
        found: NDArray[np.float32] = output[0, 1]
        return found

    def segment(self, frame_bgr: NDArray[np.uint8]) -> Result:
        """See `Pipeline.segment`."""
        return self._segmenter.segment(frame_bgr)


def pipeline(bundle: Bundle, backend: Backend, target: Target, precision: str) -> Pipeline:
    """What stands around a loaded model.

    Args:
        bundle: of `bench.models.open_model` or `bench.peers.open_peer`.
        backend: that bundle's model, loaded on `target`.
        target: where it runs.
        precision: of the model file.
    """
    if isinstance(bundle, PeerBundle):
        return PeerPipeline(bundle.name, bundle.config, backend, target.batch)
    return CorePipeline(bundle, backend, target, precision)
