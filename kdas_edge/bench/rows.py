"""The rows of a benchmark: one model × precision × target, loaded, measured and closed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdas_edge.bench.accuracy import PROTOCOLS, Protocol
from kdas_edge.bench.models import one_line, precisions
from kdas_edge.bundle.manifest import Manifest
from kdas_edge.bundle.reader import Bundle
from kdas_edge.data.layout import ImageSet, read_image
from kdas_edge.runtime.backends import FORMATS, Backend, open_backend
from kdas_edge.runtime.segmenter import preprocess
from kdas_edge.runtime.targets import Target

# Frames that are timed in turn: real content, since the speed of no layer should depend on it,
# and more than one, so that a cache of results could not hide.
_TIMED_FRAMES = 4


@dataclass(frozen=True)
class Settings:
    """How to measure; see the options of `kdas-edge bench`."""

    iterations: int = 100
    seconds: float = 60.0
    warmup: int = 3
    limit: int | None = None
    protocols: tuple[Protocol, ...] = PROTOCOLS
    precisions: tuple[str, ...] | None = None
    profile: bool = False


@dataclass
class Row:
    """One model × precision × target, and what was measured on it."""

    model: str
    role: str
    precision: str
    target: Target
    bundle: Bundle
    reason: str | None = None
    backend: Backend | None = None
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def accuracy_key(self) -> str:
        """Rows with the same key give the same masks: threads change nothing but time."""
        arithmetic = self.target.options.get("precision")
        where = f"{self.target.runtime}:{self.target.device}"
        return f"{self.model}|{self.precision}|{where}" + (f":{arithmetic}" if arithmetic else "")

    def fail(self, error: Exception | str) -> None:
        """Remember why the row has no result; the first reason stays."""
        self.reason = self.reason or (error if isinstance(error, str) else one_line(error))

    def close(self) -> None:
        """Free the model."""
        if self.backend is not None:
            self.backend.close()
            self.backend = None

    def as_json(self) -> dict[str, Any]:
        """The row of the result file."""
        return {
            "model": self.model,
            "role": self.role,
            "precision": self.precision,
            "target": str(self.target),
            "status": "ok" if self.reason is None else "failed",
            "reason": self.reason,
            **self.values,
        }


def precisions_of(bundle: Bundle, target: Target, settings: Settings) -> list[str]:
    """Those that the bundle holds for this runtime; one row that fails where it holds none."""
    held = precisions(bundle, target.runtime)
    if settings.precisions is not None:
        held = [precision for precision in held if precision in settings.precisions]
    return held or ["fp32" if settings.precisions is None else settings.precisions[0]]


def load_rows(group: Sequence[Row]) -> None:
    """Load the model of every row; a row that cannot be loaded fails and says why."""
    for row in group:
        try:
            row.backend = open_backend(row.bundle, row.precision, row.target)
        except Exception as error:  # a row fails, the table continues
            row.fail(error)
            continue
        model = row.bundle.model(row.precision, FORMATS[row.target.runtime])
        if model is not None:
            row.values["file_bytes"] = row.bundle.size_bytes(model)
        row.values["load_ms"] = round(row.backend.load_seconds * 1e3, 2)
        row.values["effective"] = row.backend.effective


def timed_frames(sets: dict[str, ImageSet]) -> list[NDArray[np.uint8]]:
    """A few (H, W, 3) uint8 RGB frames of each set, or one of noise where there is no set."""
    pairs = [pair for image_set in sets.values() for pair in image_set.pairs[:_TIMED_FRAMES]]
    if not pairs:
        rng = np.random.default_rng(0)
        return [rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)]
    return [read_image(pair.image) for pair in pairs[:_TIMED_FRAMES]]


def core_inputs(
    frames: Sequence[NDArray[np.uint8]], manifest: Manifest
) -> list[NDArray[np.float32]]:
    """Frames as the input of a `core` model: (1, 3, S, S) float32 each."""
    return [preprocess(frame, manifest) for frame in frames]
