"""The result files of `kdas-edge bench` and `kdas-edge eval`, typed.

`BenchResult` and `EvaluationResult` are whole files; `read_bench` and `read_evaluation` check one
from its first byte to its last, so that nothing behind them meets a wrong type, a NaN or a missing
key. `write_result` writes one. Their parts are in `accuracy_results` and `measurement_results`.

A version is read by the kdas-edge that writes it and by no other. Within a version keys are only
added, and only optional ones: an older reader leaves out what it does not know.
"""

from pathlib import Path
from typing import Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kdas_edge.bench.accuracy_results import AccuracyEntry, RobustnessEntry
from kdas_edge.bench.measurement_results import (
    EndToEnd,
    Energy,
    LatencyRecord,
    ProfileRecord,
    Startup,
    Sustained,
    ThroughputEntry,
)
from kdas_edge.bench.peer_config import PeerConfig
from kdas_edge.bench.result_base import AccuracyKey, Property, Record, Role, Unavailable
from kdas_edge.bundle.manifest import FileRecord
from kdas_edge.errors import UserError
from kdas_edge.files import write_json
from kdas_edge.files.reading import LARGEST_JSON, read_bytes
from kdas_edge.latency import Ratio

BENCH_SCHEMA: Final = "kdas-edge/bench/2"
EVALUATION_SCHEMA: Final = "kdas-edge/eval/2"
DISCLAIMER = "Research software. No regulatory clearance. Not for clinical use."


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
    effective: dict[str, Property] = Field(default_factory=dict)
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
    cpu_features: dict[str, bool | None] = Field(default_factory=dict)
    cpus_logical: int | None = None
    cpus_usable: int
    memory_gib: float | None = None
    governor: str | None = None
    load_average: list[float] | None = None
    load_average_before: list[float] | None = None
    thread_environment: dict[str, str] = Field(default_factory=dict)
    packages: dict[str, str] = Field(default_factory=dict)


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
    throughput: list[ThroughputEntry] = Field(default_factory=list)
    robustness: list[RobustnessEntry] = Field(default_factory=list)
    environments: list[MachineRecord] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    demo_seconds: dict[str, float] = Field(default_factory=dict)

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
    effective: dict[str, Property] = Field(default_factory=dict)
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
