"""The result of an export, file by file."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kdas_edge.bundle.manifest import Format, Precision, Preset
from kdas_edge.bundle.versions import UNKNOWN, Versions
from kdas_edge.errors import GateError
from kdas_edge.export.agreement import Agreement
from kdas_edge.export.timing import Int8Speed


@dataclass
class ExportedFile:
    """One exported file and the result of its check.

    Attributes:
        path: relative to the bundle.
        status: `ok`, `disagrees` or `failed`.
        agreement: with torch, None for the torch file itself or a failure.
        versions: of the file's format, read from the file.
        reason: of a failure, one line.
    """

    path: str
    precision: Precision
    format: Format
    preset: Preset
    status: str = "ok"
    bytes: int = 0
    seconds: float = 0.0
    agreement: Agreement | None = None
    versions: Versions = UNKNOWN
    reason: str = ""


@dataclass
class ExportReport:
    """A written bundle and its table.

    Attributes:
        path: the bundle.
        rows: one per file.
        changes: precision to how far its torch model is from the fp32 one: what quantising costs
            before any runtime.
        speeds: int8 against fp32, one per runtime; empty if it was not timed.
    """

    path: Path
    rows: list[ExportedFile] = field(default_factory=list)
    changes: dict[Precision, Agreement] = field(default_factory=dict)
    speeds: list[Int8Speed] = field(default_factory=list)

    @property
    def failures(self) -> list[ExportedFile]:
        """The rows that are not `ok`."""
        return [row for row in self.rows if row.status != "ok"]

    def as_json(self) -> dict[str, Any]:
        """Return plain values for a file."""
        return {
            "bundle": str(self.path),
            "files": [asdict(row) for row in self.rows],
            "change_from_fp32": {name: asdict(change) for name, change in self.changes.items()},
            "int8_speed": [speed.as_json() for speed in self.speeds],
        }


def raise_for_failures(report: ExportReport) -> None:
    """Raise `GateError` if a file failed or disagrees with torch."""
    if not report.failures:
        return
    first = report.failures[0]
    raise GateError(
        f"{len(report.failures)} of {len(report.rows)} files are not fit for use, first "
        f"{first.path}: {first.reason}; the bundle {report.path} is kept for inspection"
    )
