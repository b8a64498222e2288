"""The candidates of a benchmark: one model × precision × target, loaded, measured and closed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdas_edge.bench.models import precisions
from kdas_edge.bench.peers import PeerBundle
from kdas_edge.bench.pipeline import Pipeline, pipeline
from kdas_edge.bench.result_base import PROTOCOLS, AccuracyKey, Protocol, Role, properties
from kdas_edge.bench.results import RobustnessSettings, Row, SettingsRecord
from kdas_edge.bundle.reader import Bundle
from kdas_edge.data.corruptions import SEED
from kdas_edge.data.layout import ImageSet
from kdas_edge.errors import last_line
from kdas_edge.image_files import read_image
from kdas_edge.latency import Warmup
from kdas_edge.runtime.backends import FORMATS, Backend, open_backend
from kdas_edge.runtime.failures import TargetError
from kdas_edge.runtime.targets import Target

# Frames that are timed in turn: real content, since the speed of no layer should depend on it,
# and more than one, so that a cache of results could not hide.
_TIMED_FRAMES = 4


@dataclass(frozen=True)
class Settings:
    """How to measure; see the options of `kdas-edge bench`.

    Attributes:
        iterations, seconds, warmup: see `latency.measure`.
        limit: only the first so many images of each set.
        protocols: of the accuracy.
        precisions: only these; all by default.
        profile: tell where the time goes, by layer type.
        end_to_end: also time frame in, mask out, in the same rounds.
        startup: load every row once more in a fresh process, for load time and memory.
        energy: energy per frame, where the machine tells it.
        minutes: length of the sustained run of each row; 0 for none.
        throughput: frames a second with many requests in flight, in a table of their own.
        robustness: corruptions under which Dice is measured again; see `bench.robustness`.
        robustness_limit: so many images of each set for that, evenly spread; None for all.
    """

    iterations: int = 100
    seconds: float = 60.0
    warmup: int | Warmup = field(default_factory=Warmup)
    limit: int | None = None
    protocols: tuple[Protocol, ...] = PROTOCOLS
    precisions: tuple[str, ...] | None = None
    profile: bool = False
    end_to_end: bool = True
    startup: bool = False
    energy: bool = True
    minutes: float = 0.0
    throughput: bool = False
    robustness: tuple[str, ...] = ()
    robustness_limit: int | None = None

    def record(self) -> SettingsRecord:
        """What the result file says of how latencies were measured."""
        plan = self.warmup
        if isinstance(plan, int):
            plan = Warmup(plan, plan)
        robustness = RobustnessSettings(
            corruptions=list(self.robustness),
            seed=SEED,
            images_of_each_set=self.robustness_limit,
        )
        return SettingsRecord(
            iterations=self.iterations,
            seconds=self.seconds,
            warmup_rounds=plan.minimum,
            warmup_rounds_at_most=plan.maximum,
            warmup_settled_at_percent=round(100 * plan.tolerance, 3),
            warmup_window=plan.window,
            limit=self.limit,
            batch="1, or the target's option batch",
            mode="synchronous, one request, candidates of a target interleaved",
            sustained_minutes=self.minutes,
            robustness=robustness if self.robustness else None,
        )


@dataclass(frozen=True)
class TimedFrame:
    """A frame that is timed: (H, W, 3) uint8 RGB, and the file it came from, if any."""

    image: NDArray[np.uint8]
    file: Path | None = None


@dataclass
class BenchCandidate:
    """One model × precision × target while it is measured.

    Attributes:
        row: of the result file; filled in by the measurements.
        target: where it runs.
        bundle: what runs.
        backend: the loaded model; None before, after, and where it could not be loaded.
    """

    row: Row
    target: Target
    bundle: Bundle
    backend: Backend | None = None

    @classmethod
    def of(
        cls, model: str, role: Role, precision: str, target: Target, bundle: Bundle
    ) -> "BenchCandidate":
        """A candidate that is not loaded yet."""
        row = Row(model=model, role=role, precision=precision, target=str(target))
        return cls(row, target, bundle)

    @property
    def failed(self) -> bool:
        """True after `fail`."""
        return self.row.status == "failed"

    @property
    def accuracy_key(self) -> AccuracyKey:
        """Candidates with the same key give the same masks: threads change nothing but time."""
        arithmetic = self.target.options.get("precision")
        where = f"{self.target.runtime}:{self.target.device}"
        where += f":{arithmetic}" if arithmetic else ""
        return AccuracyKey(self.row.model, self.row.precision, where)

    @property
    def pipeline(self) -> Pipeline:
        """What stands around the loaded model."""
        assert self.backend is not None
        return pipeline(self.bundle, self.backend, self.target, self.row.precision)

    def fail(self, error: Exception | str) -> None:
        """Remember why there is no result; the first reason stays.

        `failure` are two words for a table's cell, e.g. `device absent`.
        """
        if not self.failed:
            self.row.status = "failed"
            self.row.reason = error if isinstance(error, str) else last_line(error)
            self.row.failure = error.kind if isinstance(error, TargetError) else "inference failed"

    def inputs(self, frames: Sequence[TimedFrame]) -> list[NDArray[np.generic]]:
        """The frames as the loaded model takes them, batch and all."""
        prepare = self.pipeline.prepare
        return [prepare(frame.image) for frame in frames]

    def close(self) -> None:
        """Free the model."""
        if self.backend is not None:
            self.backend.close()
            self.backend = None


def precisions_of(bundle: Bundle, target: Target, settings: Settings) -> list[str]:
    """Those that the bundle holds for this runtime; one row that fails where it holds none."""
    held = precisions(bundle, target.runtime)
    if isinstance(bundle, PeerBundle):
        return [bundle.config.precision]
    if settings.precisions is not None:
        held = [precision for precision in held if precision in settings.precisions]
    return held or ["fp32" if settings.precisions is None else settings.precisions[0]]


def load(group: Sequence[BenchCandidate]) -> None:
    """Load every model; one that cannot be loaded fails and says why."""
    for candidate in group:
        row, bundle, target = candidate.row, candidate.bundle, candidate.target
        try:
            candidate.backend = backend = open_backend(bundle, row.precision, target)
        except Exception as error:  # a row fails, the table continues
            candidate.fail(error)
            continue
        model = bundle.model(row.precision, FORMATS[target.runtime])
        if model is not None:
            row.file_bytes = bundle.size_bytes(model)
        row.load_ms = round(backend.load_seconds * 1e3, 2)
        row.effective = properties(backend.effective)


def timed_frames(sets: dict[str, ImageSet]) -> list[TimedFrame]:
    """A few frames of each set, or one of noise where there is no set."""
    pairs = [pair for image_set in sets.values() for pair in image_set.pairs[:_TIMED_FRAMES]]
    if not pairs:
        rng = np.random.default_rng(0)
        return [TimedFrame(rng.integers(0, 256, (480, 640, 3), dtype=np.uint8))]
    return [TimedFrame(read_image(pair.image), pair.image) for pair in pairs[:_TIMED_FRAMES]]
