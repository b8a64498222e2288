"""The verification as a record: what, expected, observed, verdict, as JSON and as a page.

The page needs no package beyond the base install, because it is made on the device.
"""

from html import escape
from pathlib import Path
from string import Template
from typing import Any

from kdas_edge import environment
from kdas_edge.evidence.checks import Check, VerificationReport
from kdas_edge.files import sha256, write_json, write_text_atomic

SCHEMA = "kdas-edge/verification/1"
DISCLAIMER = (
    "Research software. No regulatory clearance. Not for clinical use. This record states what was "
    "checked on one machine; it is no conformity assessment."
)
JSON_NAME, PAGE_NAME = "verification.json", "verification.html"
_TEMPLATE = Path(__file__).with_name("verification.html")
# a sign beside the word, so that no verdict is told by colour alone
_SIGNS = {"pass": "✓", "fail": "✗", "skipped": "–"}


def record(report: VerificationReport, manifest: Path | None = None) -> dict[str, Any]:
    """The whole record as a JSON object.

    Args:
        report: of `verify` or `refusal`.
        manifest: the bundle's `manifest.json`; its hash stands for the whole bundle.
    """
    digest = sha256(manifest) if manifest is not None and manifest.is_file() else None
    return {
        "schema": SCHEMA,
        "disclaimer": DISCLAIMER,
        "manifest_sha256": digest,
        "environment": environment.describe(),
        **report.as_json(),
    }


def write_report(folder: Path, report: VerificationReport, manifest: Path | None = None) -> None:
    """Write `verification.json` and `verification.html`.

    Raises:
        UserError: the folder cannot be written.
    """
    values = record(report, manifest)
    text = page(report, values)
    write_json(folder / JSON_NAME, values)
    write_text_atomic(folder / PAGE_NAME, text)


def page(report: VerificationReport, values: dict[str, Any]) -> str:
    """The page as a string; everything that comes from a bundle is escaped."""
    count = {name: sum(check.verdict == name for check in report.checks) for name in _SIGNS}
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        bundle=escape(report.bundle),
        verdict="✓ every check that was made passed" if report.passed else "✗ failed",
        verdict_class="pass" if report.passed else "fail",
        counts=f"passed: {count['pass']}, failed: {count['fail']}, not made: {count['skipped']}",
        disclaimer=escape(DISCLAIMER),
        checks="\n".join(_row(check) for check in report.checks),
        files="\n".join(_row(check) for check in report.files),
        facts="\n".join(
            f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in _facts(values)
        ),
    )


def _row(check: Check) -> str:
    verdict = f"{_SIGNS[check.verdict]} {check.verdict}"
    return (
        f'<tr><th scope="row">{escape(check.what)}</th><td>{escape(check.expected)}</td>'
        f'<td>{escape(check.observed)}</td><td class="{check.verdict}">{verdict}</td></tr>'
    )


def _facts(values: dict[str, Any]) -> list[tuple[str, str]]:
    machine = values["environment"]
    features = [name for name, present in machine["cpu_features"].items() if present]
    facts = [
        ("when", machine["created"]),
        ("kdas-edge", machine["code_version"]),
        ("manifest SHA-256", values["manifest_sha256"] or "no manifest"),
        ("processor", f"{machine['cpu']}, {machine['cpus_usable']} CPUs usable"),
        ("features", ", ".join(features) or "none, or not told"),
        ("system", f"{machine['system']} {machine['machine']}, Python {machine['python']}"),
        ("packages", ", ".join(f"{name} {text}" for name, text in machine["packages"].items())),
    ]
    for target, effective in values["targets"].items():
        told = "; ".join(f"{name}: {value}" for name, value in effective.items())
        facts.append((target, told))
    return facts
