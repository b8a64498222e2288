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
    from kdas_edge.console import table
    from kdas_edge.doctor.diagnosis import examine
    from kdas_edge.files import write_json

    result = examine()
    if json is not None:
        write_json(json, result)
    table(
        "kdas-edge doctor",
        ["area", "what", "found", "verdict", "advice"],
        [[str(value) for value in finding.values()] for finding in result["findings"]],
    )
