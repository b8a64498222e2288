"""`attempts.json`: every quantised network that was tried, with its validation Dice."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from kdas_edge.errors import UserError
from kdas_edge.files import read_json, write_json

ATTEMPTS = "attempts.json"

Phase = Literal["ptq", "qat", "mixed"]
Verdict = Literal["passed", "undecided", "failed"]
# of activations before depthwise convolutions
Ranges = Literal["tensor", "channel"]


@dataclass
class Attempt:
    """One quantised network, measured on the validation split.

    Attributes:
        phase: how it was made.
        label: the setting in words; no two attempts of a run have the same.
        dice: mean Dice, deploy protocol.
        drop: mean Dice lost against the float student; negative where it gained.
        agreement: mean Dice of its masks with the float student's masks, 0…1.
        seconds: to make and to measure it.
        verdict: of the gate.
        ranges: `tensor` or `channel`; of the activations.
        setting: the recipe's `ptq` section, for phase ptq.
        layers: in float, for phase mixed.
        kept: it is the one that was delivered.
    """

    phase: Phase
    label: str
    dice: float
    drop: float
    agreement: float
    seconds: float
    verdict: Verdict
    ranges: Ranges
    setting: dict[str, Any] = field(default_factory=dict)
    layers: list[str] = field(default_factory=list)
    kept: bool = False

    @property
    def passed(self) -> bool:
        """Whether the verdict is `passed`."""
        return self.verdict == "passed"

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Attempt":
        """Read what `as_json` gives; the first release wrote `passed` alone.

        Raises:
            TypeError: a field is missing or unknown.
        """
        values = dict(row)
        passed = values.pop("passed", None)
        if passed is not None:
            values.setdefault("verdict", "passed" if passed else "failed")
        return cls(**values)

    def as_json(self) -> dict[str, Any]:
        """Return the fields, and whether the gate was passed, as plain values."""
        return {**asdict(self), "passed": self.passed}


class AttemptLog:
    """The attempts of a run, written to `attempts.json` as they are made.

    Args:
        folder: the run.
        writes: false for processes of a `torchrun` job that leave the disk to the first.

    Raises:
        UserError: the file of an earlier, stopped run is damaged.
    """

    def __init__(self, folder: Path, writes: bool = True) -> None:
        self.path = folder / ATTEMPTS
        self.writes = writes
        self.rows: list[Attempt] = []
        if self.path.is_file():
            try:
                self.rows = [Attempt.from_json(row) for row in read_json(self.path)]
            except TypeError as error:
                raise UserError(
                    f"{self.path} is not of this version ({error}); start again with --overwrite"
                ) from None

    def find(self, label: str) -> Attempt | None:
        """Return the attempt of that label, if an earlier start of the run made it."""
        return next((row for row in self.rows if row.label == label), None)

    def add(self, attempt: Attempt) -> None:
        """Append an attempt and write the file."""
        self.rows.append(attempt)
        self._write()

    def keep(self, label: str) -> None:
        """Mark the attempt that is delivered."""
        for row in self.rows:
            row.kept = row.label == label
        self._write()

    def of(self, phase: Phase) -> list[Attempt]:
        """Return the attempts of one phase, in order."""
        return [row for row in self.rows if row.phase == phase]

    def as_json(self) -> list[dict[str, Any]]:
        """Return the rows as plain values."""
        return [row.as_json() for row in self.rows]

    def _write(self) -> None:
        if self.writes:
            write_json(self.path, self.as_json())
