"""What stands around a peer's model: from a frame to its input, from its output to a mask."""

import time
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdas_edge.bench.peer_config import PeerConfig
from kdas_edge.errors import UserError
from kdas_edge.runtime.backends import Backend
from kdas_edge.runtime.segmenter import Result, check_frame

_PIL = {
    "bilinear-antialias": Image.Resampling.BILINEAR,
    "bicubic-antialias": Image.Resampling.BICUBIC,
}
_OPENCV = {
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "nearest": cv2.INTER_NEAREST,
}
_CHANNELS = {"two-channel": 2, "two-channel-logits": 2}


class PeerPipeline:
    """From a frame to a peer's mask; see `bench.pipeline.Pipeline`."""

    def __init__(self, name: str, config: PeerConfig, backend: Backend, batch: int = 1) -> None:
        self._name = name
        self._config = config
        self._backend = backend
        self._batch = batch

    def prepare(self, frame_rgb: NDArray[np.uint8]) -> NDArray[np.generic]:
        """Make the input, batch and all, from a (H, W, 3) uint8 RGB frame."""
        check_frame(frame_rgb)
        config = self._config
        image = _resize(frame_rgb, config)
        if config.color == "BGR":
            image = image[..., ::-1]
        x: NDArray[np.generic] = image
        if config.dtype == "float32":
            scaled = image.astype(np.float32) * np.float32(config.value_range / 255)
            x = (scaled - np.asarray(config.mean, np.float32)) / np.asarray(config.std, np.float32)
        if config.layout == "NCHW":
            x = x.transpose(2, 0, 1)
        return np.ascontiguousarray(np.repeat(x[np.newaxis], self._batch, axis=0))

    def probability(
        self, output: NDArray[np.generic], height: int, width: int
    ) -> NDArray[np.float32]:
        """Polyp probabilities of the first frame of the batch, at the size of the frame.

        Args:
            output: as the model gave it.
            height: of the frame.
            width: of the frame.

        Returns:
            (height, width) float32, 0–1.

        Raises:
            UserError: the output has not the shape that the configuration says.
        """
        small = self._polyp(output)
        if small.shape == (height, width):
            return small
        flags = _OPENCV[self._config.upsampling]
        large = cv2.resize(small, (width, height), interpolation=flags)
        # a cubic overshoots
        return np.clip(large, 0, 1).astype(np.float32, copy=False)

    def segment(self, frame_bgr: NDArray[np.uint8]) -> Result:
        """One frame in, one mask out; see `Segmenter.segment`."""
        check_frame(frame_bgr)
        started = time.perf_counter()
        x = self.prepare(frame_bgr[..., ::-1])
        prepared = time.perf_counter()
        output = self._backend.infer(x)
        inferred = time.perf_counter()
        probability = self.probability(output, *frame_bgr.shape[:2])
        mask = probability > self._config.threshold
        finished = time.perf_counter()
        milliseconds = {
            "preprocess": 1e3 * (prepared - started),
            "inference": 1e3 * (inferred - prepared),
            "postprocess": 1e3 * (finished - inferred),
        }
        return Result(mask, probability, self._config.threshold, milliseconds)

    def _polyp(self, output: NDArray[np.generic]) -> NDArray[np.float32]:
        """(h, w) float32 probabilities at the size of the output."""
        kind, polyp = self._config.output, self._config.polyp_class
        maps = _channels_first(output, _CHANNELS.get(kind, 1), self._config.layout)
        if maps is None:
            channels = _CHANNELS.get(kind, 1)
            raise UserError(
                f"peer {self._name}: its output has the shape {tuple(output.shape)}, but output: "
                f"{kind} needs {channels} channel{'s' if channels > 1 else ''} of height and "
                f"width ({', '.join(_shapes(channels))}); correct output: or output_name:"
            )
        if kind == "classes":
            return (maps[0] == polyp).astype(np.float32)
        if kind in _CHANNELS and polyp > 1:
            raise UserError(
                f"peer {self._name}: polyp_class: {polyp} is no channel of two; set 0 or 1"
            )
        values = maps.astype(np.float32, copy=False)
        if kind == "logits":
            return _sigmoid(values[0])
        if kind == "two-channel-logits":
            return _sigmoid(values[polyp] - values[1 - polyp])
        return np.ascontiguousarray(values[polyp if kind == "two-channel" else 0])


def _resize(frame: NDArray[np.uint8], config: PeerConfig) -> NDArray[np.uint8]:
    height, width = config.size
    if frame.shape[:2] == (height, width):
        return frame
    if config.resize in _PIL:
        # channels that were swapped by a view have no order that PIL could read
        image = Image.fromarray(np.ascontiguousarray(frame))
        return np.asarray(image.resize((width, height), _PIL[config.resize]), dtype=np.uint8)
    resized = cv2.resize(
        np.ascontiguousarray(frame), (width, height), interpolation=_OPENCV[config.resize]
    )
    return resized.astype(np.uint8, copy=False)


def _channels_first(
    output: NDArray[np.generic], channels: int, layout: str
) -> NDArray[np.generic] | None:
    """The first of the batch as (C, h, w), or None where the shape is another."""
    if output.ndim == 4:
        first = output[0]
        if first.shape[0] == channels and (channels != first.shape[2] or layout == "NCHW"):
            return first
        return first.transpose(2, 0, 1) if first.shape[2] == channels else None
    if channels == 1 and output.ndim in (2, 3):
        return output[:1] if output.ndim == 3 else output[np.newaxis]
    return None


def _shapes(channels: int) -> Sequence[str]:
    shapes = [f"(1, {channels}, h, w)", f"(1, h, w, {channels})"]
    return shapes if channels > 1 else [*shapes, "(1, h, w)", "(h, w)"]


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    # large negative logits overflow to infinity on the way to 0, which is right
    with np.errstate(over="ignore"):
        return (1 / (1 + np.exp(-logits))).astype(np.float32, copy=False)
