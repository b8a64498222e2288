"""What all parts of a result file share: the base of its records, its keys and its plain words."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

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
