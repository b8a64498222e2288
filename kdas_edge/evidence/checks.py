"""What a verification consists of: checks, and a report of all of them."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["pass", "fail", "skipped"]


@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    Attributes:
        what: the file, the runtime and the property.
        expected: the rule, with its number.
        observed: what was found, with its number.
        verdict: `skipped` is a check that this machine cannot make; `observed` says why.
    """

    what: str
    expected: str
    observed: str
    verdict: Verdict


@dataclass(frozen=True)
class VerificationReport:
    """All checks of one bundle on one machine.

    Attributes:
        bundle: the bundle's name.
        checks: in the order in which they were made.
        targets: target -> what the runtime says it does (`Backend.effective`).
        files: the hash of every file of the manifest.
    """

    bundle: str
    checks: list[Check]
    targets: dict[str, dict[str, object]]
    files: list[Check] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """True if no check failed."""
        return not self.failures

    @property
    def failures(self) -> list[Check]:
        """The checks that failed."""
        return [check for check in self.checks if check.verdict == "fail"]

    def as_json(self) -> dict[str, Any]:
        """A JSON object with everything."""
        return {"passed": self.passed, **asdict(self)}
