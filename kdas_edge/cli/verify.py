"""`kdas-edge verify`: hashes, metadata and golden vectors of a bundle."""

from pathlib import Path
from typing import Annotated

import typer


def verify(
    bundle: Annotated[Path, typer.Argument(help="Directory of the bundle.", show_default=False)],
    targets: Annotated[
        str | None,
        typer.Option(
            "--targets",
            help="Where to run the golden vectors, comma-separated; by default the CPU of every "
            "runtime that is installed.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", help="Write the report here.", show_default=False)
    ] = None,
) -> None:
    """Check that a bundle is intact and gives the results it gave where it was made.

    Compares the hash of every file, the metadata inside the models, and on each runtime the
    probabilities of the golden frames. Exit code 0: all agree; 2: the bundle is damaged; 3: a
    result differs by more than the tolerance.

    Examples:

        kdas-edge verify mybundle

        kdas-edge verify mybundle --targets openvino:CPU,openvino:GPU --json verify.json
    """
    from kdas_edge.console import table
    from kdas_edge.errors import GateError
    from kdas_edge.evidence.verify import verify as verify_bundle
    from kdas_edge.files import write_json
    from kdas_edge.runtime.targets import parse_targets

    report = verify_bundle(bundle, parse_targets(targets) if targets is not None else None)
    table(
        f"Verification of {report.bundle}",
        ["check", "expected", "observed", "verdict"],
        [[check.what, check.expected, check.observed, check.verdict] for check in report.checks],
    )
    if json is not None:
        write_json(json, report.as_json())
    if not report.passed:
        first = report.failures[0]
        raise GateError(
            f"{len(report.failures)} of {len(report.checks)} checks failed, first {first.what}: "
            f"{first.observed}, expected {first.expected}; export the bundle again, or do not use "
            "it on this machine"
        )
