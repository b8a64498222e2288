"""`kdas-edge bench`: latency and accuracy of models on targets, beside the teacher."""

from pathlib import Path
from typing import Annotated

import typer

from kdas_edge.cli.options import CsvOption, JsonOption, LimitOption, ProtocolOption, SetsOption


def bench(
    models: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Bundles, run directories or checkpoints. Default: the shipped student.",
            metavar="[MODEL...]",
        ),
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option("--teacher", help="The model whose fp32 row ratios and differences refer to."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="PraNet layout, or a folder with images/ and masks/. "
            "Without it only latency is measured, on noise.",
        ),
    ] = None,
    targets: Annotated[
        str,
        typer.Option(
            "--targets",
            help="Where to run: runtime:device[:option=value], commas between. "
            "Options: threads, streams, hint, precision, batch. `auto`: all that doctor finds.",
        ),
    ] = "openvino:CPU:threads=1",
    accuracy_target: Annotated[
        str | None,
        typer.Option(
            "--accuracy-target",
            help="Compute accuracy on this one target and share it among the rows. "
            "Default: once for each runtime.",
        ),
    ] = None,
    precisions: Annotated[
        str | None,
        typer.Option("--precisions", help="Only these, commas between. Default: all there are."),
    ] = None,
    iterations: Annotated[
        int, typer.Option("--iterations", min=1, help="Timed inferences of each row.")
    ] = 100,
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds",
            min=0.0,
            help="Stop timing a target after this time (and 10 inferences of each row).",
        ),
    ] = 60.0,
    warmup: Annotated[
        int,
        typer.Option("--warmup", min=0, help="Untimed inferences of each row, in any case so many"),
    ] = 3,
    warmup_limit: Annotated[
        int,
        typer.Option(
            "--warmup-limit",
            min=0,
            help="… and more until the medians settle, but at most so many. "
            "With --warmup-limit 3 it is exactly three.",
        ),
    ] = 50,
    warmup_change: Annotated[
        float,
        typer.Option(
            "--warmup-change",
            min=0.0,
            help="Settled: the median changes by at most so many per cent.",
        ),
    ] = 5.0,
    end_to_end: Annotated[
        bool,
        typer.Option("--end-to-end/--no-end-to-end", help="Also time frame in, mask out."),
    ] = True,
    startup: Annotated[
        bool,
        typer.Option(
            "--startup/--no-startup",
            help="Time to load and memory of each row, in a process of its own.",
        ),
    ] = True,
    minutes: Annotated[
        float,
        typer.Option(
            "--minutes", min=0.0, help="Afterwards run each row so long: does it stay fast?"
        ),
    ] = 0.0,
    throughput: Annotated[
        bool,
        typer.Option(
            "--throughput", help="Also frames a second with many requests in flight, apart."
        ),
    ] = False,
    peer: Annotated[
        list[Path] | None,
        typer.Option("--peer", help="A model from elsewhere (.onnx or .xml); repeatable."),
    ] = None,
    peer_config: Annotated[
        list[Path] | None,
        typer.Option(
            "--peer-config", help="YAML of a peer: how it is fed and read; one for each --peer."
        ),
    ] = None,
    limit: LimitOption = None,
    sets: SetsOption = None,
    protocol: ProtocolOption = None,
    robustness: Annotated[
        bool,
        typer.Option(
            "--robustness",
            help="Also Dice on corrupted images: blur, glare, smoke, noise and more.",
        ),
    ] = False,
    corruptions: Annotated[
        str | None,
        typer.Option("--corruptions", help="Only these, commas between; implies --robustness."),
    ] = None,
    robustness_limit: Annotated[
        int,
        typer.Option("--robustness-limit", min=1, help="Images of each set for that."),
    ] = 40,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Tell where the time goes, by layer type (CPU or GPU)."),
    ] = False,
    profile_top: Annotated[
        int | None,
        typer.Option(
            "--profile-top", min=1, help="Also the N slowest layers of each row; implies --profile."
        ),
    ] = None,
    json: JsonOption = None,
    csv: CsvOption = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Write the page here, pareto.png and pareto.svg beside it."),
    ] = None,
    overlays: Annotated[
        bool,
        typer.Option(
            "--overlays/--no-overlays",
            help="Show images of the data on the page; leave them out of pages you publish.",
        ),
    ] = True,
) -> None:
    """Measure latency and accuracy, beside the teacher.

    One row per model × precision × target. A row that fails says why and the table goes on. The
    exit code is 2 if an argument is wrong or every row failed.

    \b
    Examples:
      kdas-edge bench
      kdas-edge bench student --teacher teacher --data DATA --json out.json --html page.html
      kdas-edge bench student --teacher teacher --data DATA
          --targets openvino:CPU:threads=1,onnxruntime:CPU:threads=1,torch:cpu
      kdas-edge bench student --targets openvino:CPU --seconds 10
      kdas-edge bench student --targets auto --minutes 20 --throughput
      kdas-edge bench student --data DATA --peer unet.onnx --peer-config unet.yaml
      kdas-edge bench student --teacher teacher --data DATA --robustness --csv images.csv
      kdas-edge bench student --profile-top 15
    """
    from kdas_edge.bench import harness
    from kdas_edge.bench.evaluation import choose_protocols, choose_sets
    from kdas_edge.bench.image_csv import write_image_csv
    from kdas_edge.bench.models import PRECISIONS, open_model
    from kdas_edge.bench.peers import open_peers
    from kdas_edge.bench.results import write_result
    from kdas_edge.bench.robustness import choose_corruptions
    from kdas_edge.bench.targets import choose_targets
    from kdas_edge.bundle.shipped import or_shipped
    from kdas_edge.console import info, print_table
    from kdas_edge.errors import UserError
    from kdas_edge.files import check_output_file
    from kdas_edge.latency import Warmup
    from kdas_edge.report.measurement_tables import measurement_tables
    from kdas_edge.report.notes import failures, notes
    from kdas_edge.report.profile_tables import profile_summaries, profile_tables
    from kdas_edge.report.results_table import results_table
    from kdas_edge.report.robustness_table import robustness_tables
    from kdas_edge.runtime.targets import parse_target

    protocols = choose_protocols(protocol)
    if data is None and (csv is not None or robustness or corruptions):
        raise UserError("--csv and --robustness are about images; name a data set with --data")
    wanted = tuple(precisions.split(",")) if precisions else None
    for name in wanted or ():
        if name not in PRECISIONS:
            raise UserError(f"--precisions {name!r}: choose among {', '.join(PRECISIONS)}")
    shared = parse_target(accuracy_target) if accuracy_target else None
    for output in (json, csv, html):
        if output is not None:
            check_output_file(output)
    if html is not None:
        from kdas_edge.report import check_installed

        check_installed(html)
    settings = harness.Settings(
        iterations=iterations,
        seconds=seconds,
        warmup=Warmup(warmup, max(warmup, warmup_limit), warmup_change / 100),
        limit=limit,
        protocols=protocols,
        precisions=wanted,
        profile=profile or profile_top is not None,
        end_to_end=end_to_end,
        startup=startup,
        minutes=minutes,
        throughput=throughput,
        robustness=choose_corruptions(corruptions) if robustness or corruptions else (),
        robustness_limit=robustness_limit,
    )
    chosen = choose_sets(data, sets.split(",") if sets else None) if data is not None else {}
    bundles = [open_model(path) for path in models or [or_shipped(None)]]
    reference = open_model(teacher) if teacher is not None else None
    peers = open_peers(peer or [], peer_config or [])
    every = [*([reference] if reference is not None else []), *bundles, *peers]
    parsed = choose_targets(targets, every)
    results = harness.run(bundles, reference, parsed, chosen, settings, shared, peers)
    # before anything is shown: a pipe that is closed early must not cost the measurement
    if json is not None:
        write_result(json, results)
    if csv is not None:
        write_image_csv(csv, results.accuracy)
    print_table(results_table(results))
    for line in failures(results):
        print(line)
    for table in measurement_tables(results):
        print_table(table)
    for line in notes(results):
        print(line)
    for table in robustness_tables(results.robustness):
        print_table(table)
    for table in profile_tables(results, profile_top or 0):
        print_table(table)
    for line in profile_summaries(results):
        print(line)
    if json is not None:
        info(f"results: {json}")
    if html is not None:
        from kdas_edge.report import write_page
        from kdas_edge.report.gallery import make_gallery

        opened = [*([reference] if reference is not None else []), *bundles]
        cases = make_gallery(results, opened, chosen) if overlays and chosen else []
        write_page(html, results, cases)
        info(f"page: {html}")
    elif json is not None:
        info(f"next: kdas-edge report {json} --out report.html")
