"""What `kdas-edge doctor` reports: one finding per thing that was looked at."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "note", "missing"]


@dataclass(frozen=True)
class MachineFinding:
    """One thing that was looked at.

    Attributes:
        area: heading under which it is shown.
        what: the thing.
        found: what was seen.
        verdict: `ok`; `note` if something could be better; `missing` if a verb will refuse.
        advice: one line, empty if there is nothing to do.
    """

    area: str
    what: str
    found: str
    verdict: Verdict = "ok"
    advice: str = ""
