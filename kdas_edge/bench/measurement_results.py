"""Time, memory and energy in a result file."""

from typing import Literal

from pydantic import Field

from kdas_edge.bench.result_base import Property, Record, Role, Unavailable
from kdas_edge.latency import Ratio


class WarmupRecord(Record):
    """How the warm-up went; see `latency.Warmed`."""

    rounds: int
    change_percent: float | None = None
    settled: bool


class LatencyRecord(Record):
    """Milliseconds of one inference; see `latency.Latency`.

    Attributes:
        first: the very first inference.
        deadline_misses: frames per second to the share of inferences that take longer, 0…1.
        samples: every inference in order.
    """

    unit: Literal["ms"] = "ms"
    p50: float
    p90: float
    p95: float
    p99: float
    max: float
    min: float
    mean: float
    first: float
    deadline_misses: dict[int, float] = Field(default_factory=dict)
    warmup: WarmupRecord | None = None
    samples: list[float] = Field(default_factory=list)


class Percentiles(Record):
    """Median, 90th and 99th percentile in milliseconds."""

    p50: float
    p90: float
    p99: float


class EndToEnd(LatencyRecord):
    """Frame in, mask out.

    Attributes:
        speedup: against the teacher's fp32, end to end.
        stages: median milliseconds of `preprocess`, `inference`, `postprocess`.
        decode: reading the frame from its file, which is not in the latency; None without data.
        frames: sizes of the frames, width × height.
    """

    speedup: Ratio | None = None
    stages: dict[str, float]
    decode: Percentiles | None = None
    frames: list[str] = Field(default_factory=list)


class ModelCache(Record):
    """Loading with OpenVINO's model cache, and the size of that cache."""

    load_ms: float
    bytes: int


class Startup(Record):
    """Loading a model in a fresh process.

    Attributes:
        load_ms: from the file to a model that is ready, without a cache.
        first_ms: the first inference.
        resident_bytes: by which loading and the first inference made the process grow; None where
            the system does not tell. Memory of a GPU or NPU is not in it.
        resident_after_load_bytes: loading alone.
        peak_bytes: how far it grew in between.
        cache: None for a runtime without one.
        memory_unavailable: why the memory is not told.
    """

    load_ms: float
    first_ms: float
    resident_bytes: int | None = None
    resident_after_load_bytes: int | None = None
    peak_bytes: int | None = None
    cache: ModelCache | None = None
    memory_unavailable: str | None = None


class Energy(Record):
    """Energy per frame of the processor packages, everything that ran included.

    Attributes:
        idle_watts: the packages at rest, just before.
    """

    joules_per_frame: float
    watts: float
    idle_watts: float
    frames: int
    seconds: float
    source: str


class SustainedWindow(Record):
    """A part of a sustained run; percentiles in milliseconds."""

    start_s: float
    inferences: int
    p50: float
    p99: float


class Sustained(Record):
    """A run without a pause, window by window.

    Attributes:
        slowdown: median of the last window by that of the first: 1.2 is 20 % slower.
        worst_slowdown: the same of the slowest window.
    """

    seconds: float
    inferences: int
    window_seconds: float
    windows: list[SustainedWindow] = Field(min_length=1)
    slowdown: float
    worst_slowdown: float


class LayerGroupRecord(Record):
    """All layers of one type; kernels with their milliseconds, the longest first."""

    group: str
    calls: int
    ms: float
    share: float
    kernels: dict[str, float] = Field(default_factory=dict)


class LayerRecord(Record):
    """One executed layer."""

    name: str
    operator: str
    group: str
    kernel: str
    precision: str
    calls: int
    ms: float


class ProfileRecord(Record):
    """Where the time of one inference goes; see `inspect.layers.Profile`."""

    unit: Literal["ms"] = "ms"
    rounds: int
    inference: float
    total: float
    int8_share: float | None = None
    groups: list[LayerGroupRecord]
    layers: list[LayerRecord]


class Throughput(Record):
    """Frames a second with many requests in flight: no latency, and without a ratio."""

    frames_per_second: float
    frames: int
    seconds: float
    requests: int
    batch: int
    effective: dict[str, Property] = Field(default_factory=dict)


class ThroughputEntry(Record):
    """The throughput of one model × precision × target, or why there is none."""

    model: str
    role: Role
    precision: str
    target: str
    machine: str | None = None
    measured: Throughput | Unavailable

    @property
    def place(self) -> str:
        """The target, with the machine where results of several were joined."""
        return f"{self.target} · {self.machine}" if self.machine else self.target
