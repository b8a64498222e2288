"""What a manifest keeps of a benchmark: latencies, differences to the teacher, and where it fails.

`bench.records` writes it under `provenance.notes`, the model card shows it. Unknown keys are left
out, so that bundles of the first release are read as they are.
"""

from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator

from kdas_edge.errors import UserError

KEY = "benchmark"


class _Note(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, defer_build=True)


class LatencyNote(_Note):
    """Milliseconds of one precision on one target; `speedup` against the teacher's fp32."""

    precision: str
    target: str
    p50: float
    p90: float
    p99: float
    speedup: float | None = None


class DifferenceNote(_Note):
    """The paired difference of a metric to the teacher's fp32, with its 95 % interval."""

    dataset: str
    protocol: str
    precision: str
    target: str
    metric: str
    mean: float
    low: float
    high: float
    count: int


class SizeNote(_Note):
    """Mean Dice of the polyps of one size; `detected` is the share found with an IoU of 0.5."""

    dataset: str
    size: str
    what: str
    images: int
    mean: float
    low: float
    high: float
    detected: float | None = None


class CorruptionNote(_Note):
    """Mean Dice under a corruption: of the clean images, then at each strength."""

    corruption: str
    images: int
    dice: list[float] = Field(min_length=1)


class FailureNote(_Note):
    """What a mean hides of the precision and target that a device runs (deploy protocol)."""

    precision: str
    target: str
    sizes: list[SizeNote] = []
    corrupted: list[CorruptionNote] = Field(
        [], validation_alias=AliasChoices("corrupted", "spoilt")
    )


class BenchmarkNote(_Note):
    """One benchmark of one bundle, with the machine and the data on which it was made."""

    cpu: str
    created: str
    code_version: str
    data: dict[str, Any] = {}
    rows: list[LatencyNote] = []
    differences: list[DifferenceNote] = []
    failures: FailureNote | None = None

    @field_validator("failures", mode="before")
    @classmethod
    def _empty(cls, value: object) -> object:
        return value or None


def read_note(notes: dict[str, Any], source: str) -> BenchmarkNote | None:
    """The note of a manifest's `provenance.notes`; None where nothing was measured.

    Args:
        notes: of the manifest.
        source: the bundle's name, for the message.

    Raises:
        UserError: a key is missing or has a wrong value.
    """
    if not notes.get(KEY):
        return None
    try:
        return BenchmarkNote.model_validate(notes[KEY])
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, (KEY, *first["loc"])))
        raise UserError(
            f"{source}: provenance.notes.{place}: {first['msg']}; measure it again with kdas-edge "
            "bench and kdas-edge card"
        ) from None
