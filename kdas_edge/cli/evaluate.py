"""`kdas-edge eval`: accuracy of a model, or of a folder of maps, on a data set."""

from pathlib import Path
from typing import Annotated

import typer

from kdas_edge.cli.options import (
    CsvOption,
    JsonOption,
    LimitOption,
    MaskValuesOption,
    OverwriteOption,
    ProtocolOption,
    SetsOption,
)


def evaluate(
    data: Annotated[
        Path,
        typer.Option("--data", help="PraNet layout, or a folder with images/ and masks/."),
    ],
    model: Annotated[
        Path | None,
        typer.Argument(
            help="Bundle, run directory or .safetensors checkpoint. Default: the shipped student.",
            metavar="[MODEL]",
        ),
    ] = None,
    maps: Annotated[
        Path | None,
        typer.Option("--maps", help="Score this folder of 8-bit probability maps instead."),
    ] = None,
    protocol: ProtocolOption = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            help="Where to run, runtime:device[:option=value]. "
            "Default: openvino:CPU for a bundle, torch:cpu for a checkpoint. "
            "torch:cpu:tta=4 averages a teacher over mirror images.",
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision", help="fp32, fp16, int8 or int8_weights. Default: int8 if there."
        ),
    ] = None,
    sets: SetsOption = None,
    mask_values: MaskValuesOption = None,
    limit: LimitOption = None,
    maps_out: Annotated[
        Path | None, typer.Option("--maps-out", help="Write the probability maps here.")
    ] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = None,
    csv: CsvOption = None,
) -> None:
    """Measure accuracy per data set, with 95 % intervals.

    Protocol `paper` is PraNet's evaluation, for comparison with published tables; `deploy` is what
    the device does, with a fixed threshold and polyp-free frames counted.

    \b
    Examples:
      kdas-edge eval mybundle --data DATA
      kdas-edge eval mybundle --data DATA --precision fp32 --target onnxruntime:CPU
      kdas-edge eval runs/student --data DATA --protocol paper --maps-out maps
      kdas-edge eval mybundle --data DATA --csv images.csv
      kdas-edge eval --maps maps/Kvasir --data DATA/TestDataset/Kvasir --json scores.json
    """
    from kdas_edge.bench import evaluation
    from kdas_edge.bench.image_csv import write_image_csv
    from kdas_edge.bench.models import open_model
    from kdas_edge.bench.results import write_result
    from kdas_edge.bundle.shipped import or_shipped
    from kdas_edge.console import print_table
    from kdas_edge.errors import UserError
    from kdas_edge.files import check_output_directory
    from kdas_edge.report.accuracy_tables import accuracy_table, size_table
    from kdas_edge.runtime.targets import parse_target

    protocols = evaluation.choose_protocols(protocol)
    if model is not None and maps is not None:
        raise UserError("name either a MODEL or --maps DIR, not both; see kdas-edge eval --help")
    if maps is not None:
        results = evaluation.evaluate_map_folder(maps, data, protocols)
    else:
        if maps_out is not None:
            check_output_directory(maps_out, overwrite)
        bundle = open_model(or_shipped(model))
        where = parse_target(target or evaluation.default_target(bundle))
        results = evaluation.evaluate_model(
            bundle,
            evaluation.choose_sets(data, sets.split(",") if sets else None, mask_values),
            protocols,
            where,
            evaluation.choose_precision(bundle, where, precision),
            limit,
            maps_out,
            overwrite,
        )
    if json is not None:
        write_result(json, results)
    if csv is not None:
        write_image_csv(csv, results.accuracy)
    heading = results.name
    if results.model is not None:
        heading += f" {results.precision} on {results.target}"
    tables = [accuracy_table(results.accuracy, name, heading) for name in protocols]
    for table in (*tables, size_table(results.accuracy, heading)):
        if table is not None:
            print_table(table)
