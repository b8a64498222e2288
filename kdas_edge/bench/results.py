"""The result files of `kdas-edge bench` and `kdas-edge eval`, typed.

`BenchResult` and `EvaluationResult` are whole files; `read_bench` and `read_evaluation` check one
from its first byte to its last, so that nothing behind them meets a wrong type, a NaN or a missing
key. `write_result` writes one.

A version is read by the kdas-edge that writes it and by no other. Within a version keys are only
added, and only optional ones: an older reader leaves out what it does not know.
"""

from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kdas_edge.bench.peer_config import PeerConfig
from kdas_edge.bundle.manifest import FileRecord
from kdas_edge.errors import UserError
from kdas_edge.files import write_json
from kdas_edge.files.reading import LARGEST_JSON, read_bytes
from kdas_edge.latency import Ratio
from kdas_edge.metrics.bootstrap import Estimate
from kdas_edge.metrics.sizes import size_group

BENCH_SCHEMA: Final = "kdas-edge/bench/2"
EVALUATION_SCHEMA: Final = "kdas-edge/eval/2"
DISCLAIMER = "Research software. No regulatory clearance. Not for clinical use."

Protocol = Literal["paper", "deploy"]
PROTOCOLS: tuple[Protocol, ...] = ("paper", "deploy")
# the metric that tables and plots show for each protocol
MAIN_METRIC: dict[Protocol, str] = {"paper": "mDice", "deploy": "Dice"}
Role = Literal["teacher", "student", "peer"]
# what a runtime says of itself: names and plain values
Property = str | int | float | bool | None | list[str] | dict[str, str]


class AccuracyKey(NamedTuple):
    """What decides the masks of a row: threads and streams change nothing but time.

    Attributes:
        model: its name in the result.
        precision: of its file.
        target: `runtime:device`, with the arithmetic where the target sets it.
        machine: label of the file, in joined results.
    """

    model: str
    precision: str
    target: str
    machine: str | None = None

    def __str__(self) -> str:
        return f"{self.model} {self.precision} on {self.target}"


class Record(BaseModel):
    """Base of what a result file holds: immutable, finite numbers, unknown keys left out."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, defer_build=True)


class Unavailable(Record):
    """What could not be measured, and why."""

    unavailable: str


# --- accuracy ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference(Estimate):
    """A paired difference over the same images.

    Attributes:
        metric: the protocol's main metric, or `false_positive_frame` where no frame has a polyp.
    """

    metric: str


class ScoredImage(NamedTuple):
    """One image of an `ImageScores`.

    Attributes:
        name: of the image.
        fraction: share of the frame that is polyp, 0…1; None in the oldest files.
        metrics: name to value, None where a metric is undefined on it.
        trained_on: the model was trained on this very image; None where that is not known.
    """

    name: str
    fraction: float | None
    metrics: dict[str, float | None]
    trained_on: bool | None

    @property
    def size(self) -> str:
        """Group of the polyp's size; see `metrics.sizes`."""
        return "" if self.fraction is None else size_group(self.fraction)


class ImageScores(Record):
    """The metrics of every image, column by column: a file of rows would be three times larger.

    Attributes:
        names: of the images, in the order of the set.
        polyp_fractions: share of each frame that is polyp, 0…1; empty in the oldest files.
        metrics: name to one value per image, None where the metric is undefined on it.
        trained_on: of each image whether the model was trained on it; None where not known.
    """

    names: list[str] = []
    polyp_fractions: list[float] = []
    metrics: dict[str, list[float | None]] = {}
    trained_on: list[bool] | None = None

    @model_validator(mode="after")
    def _same_length(self) -> "ImageScores":
        columns: list[Sized] = [*self.metrics.values(), self.polyp_fractions or self.names]
        columns += [self.trained_on] if self.trained_on is not None else []
        if any(len(column) != len(self.names) for column in columns):
            raise ValueError("the columns have not the same length")
        return self

    def rows(self) -> Iterator[ScoredImage]:
        """One image after the other."""
        for i, name in enumerate(self.names):
            yield ScoredImage(
                name,
                self.polyp_fractions[i] if self.polyp_fractions else None,
                {metric: values[i] for metric, values in self.metrics.items()},
                self.trained_on[i] if self.trained_on is not None else None,
            )

    def defined(self, metric: str) -> dict[str, float]:
        """Image to value of a metric, of the images on which it is defined."""
        values = self.metrics.get(metric, [])
        return {
            name: value
            for name, value in zip(self.names, values, strict=False)
            if value is not None
        }


class WorstImage(Record):
    """An image with a low main metric."""

    name: str
    score: float
    polyp_fraction: float
    size: str


class SizeGroup(Record):
    """The scores of the polyps of one size; see `metrics.sizes`."""

    what: str
    images: int
    metrics: dict[str, Estimate]
    difference_to_teacher: Difference | None = None
    difference_to_fp32: Difference | None = None


class FrameShares(Record):
    """Whole frames that were missed or falsely marked (deploy protocol).

    The interval is a bootstrap over frames like every other; where all frames agree (none missed)
    it shrinks to a point, and the count says how little that may mean: 0 of n frames is compatible
    with a rate of 3 / n.

    Attributes:
        polyp_frames: frames with a polyp.
        polyp_free_frames: frames without.
        sensitivity: share of polyp frames on which at least one pixel of the polyp is marked.
        sensitivity_iou50: share of polyp frames that are marked with an IoU of at least 0.5.
        false_positive_frames: share of polyp-free frames on which anything is marked.
    """

    polyp_frames: int
    polyp_free_frames: int
    sensitivity: Estimate | None = None
    sensitivity_iou50: Estimate | None = None
    false_positive_frames: Estimate | None = None


class AccuracyEntry(Record):
    """One model in one precision and runtime, on one data set, under one protocol.

    Attributes:
        images: images that were scored.
        skipped_polyp_free: polyp-free images, which the paper protocol leaves out.
        metrics: mean and interval over the images.
        set_metrics: numbers of the set as a whole that are no mean over images.
        per_image: the scores of every image.
        by_size: `small`, `medium`, `large` and, under the deploy protocol, `polyp-free`: those
            that the set has.
        frames: of the deploy protocol.
        worst: images with the lowest main metric, worst first.
        difference_to_teacher, difference_to_fp32: the protocol's main metric, this entry minus the
            teacher's fp32, or minus the same model's fp32, in the same runtime.
        data_sha256: of the images and masks; see `accuracy.data_fingerprint`.
        trained_on: how many of the images the model was trained on; None where that is not known.
        near_duplicates: how many look like an image that it was trained on.
        machine: label of the file, in joined results.
    """

    model: str
    precision: str
    target: str
    machine: str | None = None
    dataset: str
    protocol: Protocol
    images: int
    skipped_polyp_free: int = 0
    metrics: dict[str, Estimate]
    set_metrics: dict[str, float] = {}
    per_image: ImageScores = ImageScores()
    by_size: dict[str, SizeGroup] = {}
    frames: FrameShares | None = None
    worst: list[WorstImage] = []
    difference_to_teacher: Difference | None = None
    difference_to_fp32: Difference | None = None
    data_sha256: str | None = None
    trained_on: int | None = None
    near_duplicates: int | None = None

    @property
    def key(self) -> AccuracyKey:
        """What the rows that share these masks have in common."""
        return AccuracyKey(self.model, self.precision, self.target, self.machine)

    @property
    def main(self) -> Estimate | None:
        """The protocol's main metric: `mDice` or `Dice`; None where no image defines it."""
        return self.metrics.get(MAIN_METRIC[self.protocol])


class RobustnessEntry(Record):
    """Deploy-protocol scores on the images of one set under one corruption of one strength.

    Attributes:
        strength: 0 is the clean image, once for each corruption, then 1, 2, 3.
        difference_to_clean: Dice minus Dice of the same model on the clean images.
        difference_to_teacher, difference_to_fp32: minus the teacher's fp32, or the same model's
            fp32, on the same corrupted images. All are paired per image.
    """

    model: str
    precision: str
    target: str
    machine: str | None = None
    dataset: str
    corruption: str
    strength: int = Field(ge=0)
    images: int = Field(gt=0)
    metrics: dict[str, Estimate]
    difference_to_clean: Estimate | None = None
    difference_to_teacher: Estimate | None = None
    difference_to_fp32: Estimate | None = None

    @property
    def key(self) -> AccuracyKey:
        """Whose masks these are."""
        return AccuracyKey(self.model, self.precision, self.target, self.machine)


# --- time, memory, energy -----------------------------------------------------------------------


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
    deadline_misses: dict[int, float] = {}
    warmup: WarmupRecord | None = None
    samples: list[float] = []


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
    frames: list[str] = []


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
    kernels: dict[str, float] = {}


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
    effective: dict[str, Property] = {}


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


# --- the whole ----------------------------------------------------------------------------------


class Row(Record):
    """One model × precision × target; the benchmark fills it in measurement by measurement.

    Attributes:
        reason: why it failed, one line.
        failure: the reason in two words.
        file_bytes: size of the model's files.
        load_ms: in the process of the benchmark.
        effective: what the runtime says it does.
        latency: the model alone; `speedup` is against the teacher's fp32 row of the same target.
        ms_per_frame: where a batch has several frames.
        refused: why `kdas-edge verify` refuses this model here; None where it does not, or where
            the model is none of ours.
        accuracy_target: with model and precision the key of the row's accuracy entries.
        machine: label of the file, in joined results.
    """

    model_config = ConfigDict(frozen=False)

    model: str
    role: Role
    precision: str
    target: str
    machine: str | None = None
    status: Literal["ok", "failed"] = "ok"
    reason: str | None = None
    failure: str | None = None
    file_bytes: int | None = None
    load_ms: float | None = None
    effective: dict[str, Property] = {}
    startup: Startup | Unavailable | None = None
    latency: LatencyRecord | None = None
    speedup: Ratio | None = None
    ms_per_frame: float | None = None
    end_to_end: EndToEnd | Unavailable | None = None
    energy: Energy | Unavailable | None = None
    sustained: Sustained | Unavailable | None = None
    profile: ProfileRecord | Unavailable | None = None
    refused: str | None = None
    accuracy_target: str | None = None

    @property
    def accuracy_key(self) -> AccuracyKey | None:
        """The key of the row's accuracy entries; None where none was computed."""
        if self.accuracy_target is None:
            return None
        return AccuracyKey(self.model, self.precision, self.accuracy_target, self.machine)

    @property
    def is_reference(self) -> bool:
        """True for the teacher's fp32, which ratios and differences refer to."""
        return self.role == "teacher" and self.precision == "fp32"

    @property
    def network(self) -> str:
        """Model and precision, as plots and tables name it."""
        return f"{self.model} {self.precision}"

    @property
    def place(self) -> str:
        """The target, with the machine where results of several were joined."""
        return f"{self.target} · {self.machine}" if self.machine else self.target


class Environment(Record):
    """The machine behind a number; see `environment.describe`. None: the system does not tell."""

    code_version: str
    created: str
    system: str
    machine: str
    python: str
    cpu: str
    cpu_features: dict[str, bool | None] = {}
    cpus_logical: int | None = None
    cpus_usable: int
    memory_gib: float | None = None
    governor: str | None = None
    load_average: list[float] | None = None
    load_average_before: list[float] | None = None
    thread_environment: dict[str, str] = {}
    packages: dict[str, str] = {}


class MachineRecord(Record):
    """One machine of joined results: the label of its file, and what it is."""

    label: str
    environment: Environment


class RobustnessSettings(Record):
    """Corruptions of `--robustness`, their seed, and images of each set (None: all)."""

    corruptions: list[str]
    seed: int
    images_of_each_set: int | None = None


class SettingsRecord(Record):
    """How latencies and accuracies were measured; see `rows.Settings`."""

    iterations: int
    seconds: float | None = None
    warmup_rounds: int = 0
    warmup_rounds_at_most: int = 0
    warmup_settled_at_percent: float | None = None
    warmup_window: int | None = None
    limit: int | None = None
    batch: str = ""
    mode: str = ""
    sustained_minutes: float = 0.0
    robustness: RobustnessSettings | None = None


class DataRecord(Record):
    """A data set: how many images, and the hash over them; see `accuracy.data_fingerprint`."""

    images: int
    sha256: str


class ModelOrigin(Record):
    """What made a model, as far as a result file tells it; zeros for a foreign file."""

    created: str = ""
    code_version: str = ""
    data_split_sha256: str | None = None
    parameters: int = 0
    multiply_accumulates: int = 0


class MeasuredModel(Record):
    """A model: what it is, what made it, and the hash of each of its files.

    Attributes:
        config: how a peer is fed and read; None for ours.
    """

    role: Role = "student"
    kind: str
    folder: str
    input_size: int
    threshold: float
    provenance: ModelOrigin
    config: PeerConfig | None = None
    files: dict[str, FileRecord]


class BenchResult(Record):
    """A result file of `kdas-edge bench`, or several joined by `kdas-edge report`.

    Attributes:
        models: name to model, in the order of the rows.
        data: name to data set.
        environments: in joined results one for each file, instead of `environment`.
        notes: what a reader of joined results has to know.
        demo_seconds: of the steps of `kdas-edge demo`.
    """

    version: Literal["kdas-edge/bench/2"] = Field(BENCH_SCHEMA, alias="schema")
    disclaimer: str = DISCLAIMER
    environment: Environment
    settings: SettingsRecord
    data: dict[str, DataRecord]
    models: dict[str, MeasuredModel]
    rows: list[Row]
    accuracy: list[AccuracyEntry]
    throughput: list[ThroughputEntry] = []
    robustness: list[RobustnessEntry] = []
    environments: list[MachineRecord] = []
    notes: list[str] = []
    demo_seconds: dict[str, float] = {}

    @property
    def dice(self) -> dict[AccuracyKey, dict[str, AccuracyEntry]]:
        """The entries of the deploy protocol that have a Dice, by key and data set."""
        found: dict[AccuracyKey, dict[str, AccuracyEntry]] = {}
        for entry in self.accuracy:
            if entry.protocol == "deploy" and entry.main is not None:
                found.setdefault(entry.key, {})[entry.dataset] = entry
        return found


class EvaluationResult(Record):
    """A result file of `kdas-edge eval`.

    Attributes:
        name: of the model, or of the folder of maps.
        model: None for maps.
        precision, target: empty for maps.
    """

    version: Literal["kdas-edge/eval/2"] = Field(EVALUATION_SCHEMA, alias="schema")
    name: str
    model: MeasuredModel | None = None
    precision: str = ""
    target: str = ""
    effective: dict[str, Property] = {}
    threshold: float
    environment: Environment
    accuracy: list[AccuracyEntry]


Result = TypeVar("Result", BenchResult, EvaluationResult)


class _Head(BaseModel):
    version: str | None = Field(None, alias="schema")


def read_bench(path: Path) -> BenchResult:
    """Read a result file of `kdas-edge bench`.

    Raises:
        UserError: unreadable, not JSON, another schema version, incomplete, or a wrong value.
    """
    return _read(path, BenchResult, BENCH_SCHEMA, "kdas-edge bench --json")


def read_evaluation(path: Path) -> EvaluationResult:
    """Read a result file of `kdas-edge eval`; raises as `read_bench`."""
    return _read(path, EvaluationResult, EVALUATION_SCHEMA, "kdas-edge eval --json")


def write_result(path: Path, result: BenchResult | EvaluationResult) -> None:
    """Write a result file atomically; keys without a value are left out."""
    write_json(path, result.model_dump(mode="json", by_alias=True, exclude_none=True))


def _read(path: Path, kind: type[Result], schema: str, remedy: str) -> Result:
    text = read_bytes(path, LARGEST_JSON)
    try:
        head = _Head.model_validate_json(text)
        if head.version != schema:
            raise UserError(
                f"{path} has schema {_brief(head.version)}, this kdas-edge reads {schema!r}; "
                f"write it again with {remedy}"
            )
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise UserError(f"{path}: {_problem(error)}; write it again with {remedy}") from None


def _problem(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    if first["type"] == "json_invalid":
        return f"not a JSON file ({first['msg'].removeprefix('Invalid JSON: ')})"
    place = ".".join(_brief(part) if isinstance(part, str) else str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"no complete result, {place} is missing"
    if not first["loc"]:
        return f"no result ({first['msg']})"
    return f"{place} is {_brief(first['input'])}: {first['msg']}"


def _brief(value: object) -> str:
    """A value of a file that may be hostile, short enough for a line."""
    text = value if isinstance(value, str) and value.isidentifier() else repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def properties(effective: Mapping[str, object]) -> dict[str, Property]:
    """What a runtime says of itself, as a result file holds it."""
    return {
        name: value if value is None or isinstance(value, str | int | float) else _plain(value)
        for name, value in effective.items()
    }


def _plain(value: object) -> Property:
    if isinstance(value, list | tuple):
        return [str(item) for item in value]
    if isinstance(value, dict):
        return {str(key): str(item) for key, item in value.items()}
    return str(value)


def pooled_dice(entries: Sequence[RobustnessEntry]) -> float:
    """Mean Dice of entries of several data sets, each image counting alike."""
    found = [entry.metrics["Dice"] for entry in entries if "Dice" in entry.metrics]
    return sum(dice.count * dice.mean for dice in found) / sum(dice.count for dice in found)
