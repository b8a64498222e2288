"""One frame in, one mask out.

    with Segmenter.load("mybundle", target="openvino:CPU") as segmenter:
        result = segmenter.segment(cv2.imread("frame.png"))

The steps are those of training and of every other host: PIL's antialiased bilinear resize to the
network's square, `(x / 255 - mean) / std` on RGB, the network, and back: the probability is
resized to the frame bilinearly and then compared with the threshold.
"""

import functools
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.bundle.manifest import Manifest, Normalisation
from kdas_edge.bundle.reader import Bundle, open_bundle
from kdas_edge.data.layout import resize_image
from kdas_edge.errors import UserError
from kdas_edge.runtime.backends import FORMATS, Backend, open_backend
from kdas_edge.runtime.targets import Target, parse_target


@dataclass(frozen=True)
class Result:
    """What the network says about one frame of height H and width W.

    Attributes:
        mask: (H, W) bool, True where polyp.
        probability: (S, S) float32, 0–1, at the size of the network.
        threshold: the mask is where the probability, resized to the frame, is above this.
        milliseconds: duration of the stages `preprocess`, `inference` and `postprocess`.
    """

    mask: NDArray[np.bool_]
    probability: NDArray[np.float32]
    threshold: float
    milliseconds: dict[str, float]


class Segmenter:
    """A bundle loaded on a target. Use one from one thread at a time.

    Attributes:
        bundle: the opened bundle.
        target: where it runs.
        precision: `fp32`, `fp16`, `int8` or `int8_weights`.
        preset: `core` (this class prepares the frame) or `camera` (the graph does).
        backend: the loaded model; `backend.effective` tells what the runtime really does.
    """

    def __init__(
        self, bundle: Bundle, backend: Backend, target: Target, precision: str, preset: str
    ) -> None:
        self.bundle = bundle
        self.backend = backend
        self.target = target
        self.precision = precision
        self.preset = preset

    @classmethod
    def load(
        cls,
        path: str | Path,
        target: str | Target = "openvino:CPU",
        precision: str | None = None,
        preset: str = "core",
    ) -> Self:
        """Open a bundle, check its hashes and load one of its models.

        Args:
            path: the bundle's directory.
            target: `runtime:device[:option=value…]`.
            precision: `fp32`, `fp16`, `int8` or `int8_weights`; by default int8 where the bundle
                has it for this runtime, otherwise fp32.
            preset: `core` or `camera`.

        Raises:
            UserError: the bundle is damaged or has no such model, or the device is absent.
        """
        if isinstance(target, str):
            target = parse_target(target)
        if target.batch != 1:
            raise UserError(
                f"target {target}: frames are segmented one at a time; remove the option batch"
            )
        bundle = open_bundle(Path(path))
        if precision is None:
            quantised = bundle.model("int8", FORMATS[target.runtime], preset)
            precision = "int8" if quantised is not None else "fp32"
        return cls(
            bundle, open_backend(bundle, precision, target, preset), target, precision, preset
        )

    def segment(self, frame_bgr: NDArray[np.uint8]) -> Result:
        """Segment one frame.

        Args:
            frame_bgr: (H, W, 3) uint8, channels blue, green, red as OpenCV and cameras give them.

        Raises:
            UserError: the frame has another shape or type, or no pixel.
        """
        check_frame(frame_bgr)
        manifest = self.bundle.manifest
        started = time.perf_counter()
        if self.preset == "camera":
            x: NDArray[np.generic] = frame_bgr[np.newaxis]
        else:
            # the channels are swapped after the resize, where there are fewer pixels
            x = _normalise(
                resize_image(frame_bgr, manifest.size, manifest.size)[..., ::-1],
                manifest.normalisation,
            )
        prepared = time.perf_counter()
        probability = self.backend.infer(x)[0, 1]
        inferred = time.perf_counter()
        height, width = frame_bgr.shape[:2]
        mask = mask_at_size(probability, manifest.threshold, height, width)
        finished = time.perf_counter()
        milliseconds = {
            "preprocess": 1e3 * (prepared - started),
            "inference": 1e3 * (inferred - prepared),
            "postprocess": 1e3 * (finished - inferred),
        }
        return Result(mask, probability, manifest.threshold, milliseconds)

    def close(self) -> None:
        """Free the model."""
        self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def preprocess(frame_rgb: NDArray[np.uint8], manifest: Manifest) -> NDArray[np.float32]:
    """Make the input of a `core` model.

    Args:
        frame_rgb: (H, W, 3) uint8 RGB of any size.
        manifest: gives the side S and the normalisation.

    Returns:
        (1, 3, S, S) float32.

    Raises:
        UserError: the frame has another shape or type, or no pixel.
    """
    check_frame(frame_rgb)
    return _normalise(resize_image(frame_rgb, manifest.size, manifest.size), manifest.normalisation)


def mask_at_size(
    probability: NDArray[np.float32], threshold: float, height: int, width: int
) -> NDArray[np.bool_]:
    """Resize (S, S) probabilities bilinearly to the frame and compare with the threshold.

    Returns:
        (height, width) bool. Resizing the probability instead of the mask keeps the contour smooth
        and within half a network pixel.
    """
    if probability.shape != (height, width):
        probability = cv2.resize(  # type: ignore[assignment]
            probability, (width, height), interpolation=cv2.INTER_LINEAR
        )
    return probability > threshold


def check_frame(frame: object) -> None:
    """Refuse anything but a (H, W, 3) uint8 array with pixels.

    Raises:
        UserError: says what was given and how to convert it.
    """
    if not isinstance(frame, np.ndarray):
        raise UserError(f"a frame is a NumPy array (H, W, 3) uint8, not {type(frame).__name__}")
    if frame.dtype != np.uint8:
        raise UserError(f"a frame holds uint8 values 0–255, not {frame.dtype}; convert it")
    if frame.ndim != 3 or frame.shape[2] != 3:
        raise UserError(
            f"a frame has the shape (H, W, 3), not {frame.shape}; "
            "convert grey or BGRA with cv2.cvtColor"
        )
    if frame.size == 0:
        raise UserError(f"the frame of shape {frame.shape} has no pixel; check the source")


def _normalise(image_rgb: NDArray[np.uint8], normalisation: Normalisation) -> NDArray[np.float32]:
    """(S, S, 3) uint8 -> (1, 3, S, S) float32, by table: 256 exact values per channel."""
    table = _table(normalisation)
    out = np.empty((1, 3, *image_rgb.shape[:2]), dtype=np.float32)
    for channel in range(3):
        # mode="clip" writes into `out` directly; uint8 cannot be out of range
        np.take(table[channel], image_rgb[..., channel], out=out[0, channel], mode="clip")
    return out


@functools.lru_cache(maxsize=16)
def _table(normalisation: Normalisation) -> NDArray[np.float32]:
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    mean = np.asarray(normalisation.mean, dtype=np.float32)[:, np.newaxis]
    std = np.asarray(normalisation.std, dtype=np.float32)[:, np.newaxis]
    table: NDArray[np.float32] = (levels - mean) / std
    return table
