"""`kdas-edge doctor`: what this machine can do."""

from kdas_edge.cli.options import JsonOption


def doctor(
    json: JsonOption = None,
) -> None:
    """Look at this machine and its runtimes, with advice.

    Processor, runtimes, packages, compilers and settings, one line each.

    Settings are what changes a latency: clock, cores, quotas, pinned threads, load, model cache.

    For every device found, the precision that suits it, and why (kdas-edge export --precision
    writes it, kdas-edge bench measures it).

    The exit code is 0 whatever is found: which verbs you need, only you know.

    \b
    Examples:
      kdas-edge doctor
      kdas-edge doctor --json doctor.json
    """
    from kdas_edge.console import print_table
    from kdas_edge.doctor.diagnosis import examine
    from kdas_edge.files import write_json
    from kdas_edge.table import Cell, Column, build

    result = examine()
    if json is not None:
        write_json(json, result.as_json())
    print_table(
        build(
            "kdas-edge doctor",
            [
                (Column("area", rank=1), lambda finding: Cell(finding.area)),
                (Column("what"), lambda finding: Cell(finding.what)),
                (Column("found"), lambda finding: Cell(finding.found)),
                (Column("verdict"), lambda finding: Cell(finding.verdict)),
                (Column("advice"), lambda finding: Cell(finding.advice)),
            ],
            result.findings,
        )
    )
