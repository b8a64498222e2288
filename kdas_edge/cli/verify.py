"""`kdas-edge verify`: hashes, metadata, golden vectors and a second export of a bundle."""

from pathlib import Path
from typing import Annotated

import typer

from kdas_edge.cli.options import JsonOption


def verify(
    bundle: Annotated[
        Path | None,
        typer.Argument(
            help="Directory of the bundle. Default: the shipped student.", show_default=False
        ),
    ] = None,
    targets: Annotated[
        str | None,
        typer.Option(
            "--targets",
            help="Where to run the golden vectors, comma-separated; by default the CPU of every "
            "runtime that is installed.",
        ),
    ] = None,
    export: Annotated[
        bool,
        typer.Option(
            "--export/--no-export",
            help="Export the bundle's checkpoint twice more and compare the files; needs "
            "kdas-edge[train].",
        ),
    ] = True,
    int8: Annotated[
        Path | None,
        typer.Option(
            "--int8",
            help="Quantised run behind the int8 files, to export those again, too.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            help="Folder for verification.json and verification.html.",
        ),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Check that a bundle is intact and reproduces its results.

    Compares the hash of every file, the metadata inside the models with the manifest and with each
    other, and on each runtime the probabilities of the golden frames; exports the bundle's
    checkpoint twice to see that the same files come out. What cannot be checked here is listed,
    with the reason. Exit code 0: all agree; 2: the bundle is damaged; 3: a result differs by more
    than the tolerance.

    \b
    Examples:
      kdas-edge verify mybundle
      kdas-edge verify mybundle --report evidence
      kdas-edge verify mybundle --targets openvino:CPU,openvino:GPU --json verify.json
      kdas-edge verify mybundle --int8 runs/student_int8 --report evidence
    """
    from kdas_edge.bundle.manifest import FILE_NAME
    from kdas_edge.bundle.shipped import or_shipped
    from kdas_edge.console import info, table
    from kdas_edge.errors import GateError, UserError
    from kdas_edge.evidence.report import PAGE_NAME, write_report
    from kdas_edge.evidence.verify import refusal
    from kdas_edge.evidence.verify import verify as verify_bundle
    from kdas_edge.files import write_json
    from kdas_edge.runtime.targets import parse_targets

    chosen = parse_targets(targets) if targets is not None else None
    bundle = or_shipped(bundle)
    manifest = bundle / FILE_NAME
    try:
        found = verify_bundle(bundle, chosen, exports=export, quantized_run=int8)
    except UserError:
        # a damaged bundle, unlike a mistyped option, deserves a record
        refused = refusal(bundle) if report is not None else None
        if report is not None and refused is not None:
            write_report(report, refused, manifest)
        raise
    if json is not None:
        write_json(json, found.as_json())
    table(
        f"Verification of {found.bundle}",
        ["check", "expected", "observed", "verdict"],
        [[check.what, check.expected, check.observed, check.verdict] for check in found.checks],
    )
    if report is not None:
        write_report(report, found, manifest)
        info(f"report: {report / PAGE_NAME}")
    if not found.passed:
        first = found.failures[0]
        raise GateError(
            f"{len(found.failures)} of {len(found.checks)} checks failed, first {first.what}: "
            f"{first.observed}, expected {first.expected}; export the bundle again, or do not use "
            "it on this machine"
        )
