"""`kdas-edge predict`: masks and overlays for an image or a folder of images."""

from pathlib import Path
from typing import Annotated

import typer


def predict(
    source: Annotated[
        Path, typer.Argument(help="An image, or a folder of images.", show_default=False)
    ],
    bundle: Annotated[
        Path, typer.Option("--bundle", "-b", help="Directory of the bundle.", show_default=False)
    ],
    target: Annotated[
        str, typer.Option("--target", help="runtime:device[:option=value…].")
    ] = "openvino:CPU",
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            help="fp32, fp16, int8 or int8_weights; by default int8 where the bundle has it for "
            "this runtime.",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[
        str, typer.Option("--preset", help="core, or camera: preprocessing inside the graph.")
    ] = "core",
    out: Annotated[Path, typer.Option("--out", help="Folder of the results.")] = Path(
        "predictions"
    ),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write into a folder that is not empty.")
    ] = False,
    json: Annotated[
        Path | None, typer.Option("--json", help="Write all numbers here.", show_default=False)
    ] = None,
) -> None:
    """Segment images: a mask (PNG) and an overlay (contour) for each, and how long it took.

    An image that cannot be read is reported as FAILED and the others are still segmented; the exit
    code is then 2.

    Examples:

        kdas-edge predict frame.png --bundle mybundle

        kdas-edge predict frames/ --bundle mybundle --out results --json results.json

        kdas-edge predict frames/ --bundle mybundle --target onnxruntime:CPU:threads=1
    """
    from kdas_edge.console import info, table
    from kdas_edge.errors import UserError
    from kdas_edge.files import check_output_directory, write_json
    from kdas_edge.runtime.images import find_sources, segment_files, stage_percentiles
    from kdas_edge.runtime.segmenter import Segmenter

    files = find_sources(source)
    check_output_directory(out, overwrite)
    rows = []
    with Segmenter.load(bundle, target, precision, preset) as segmenter:
        effective = segmenter.backend.effective
        settings = ", ".join(f"{key} {value}" for key, value in effective.items())
        info(f"{segmenter.bundle.name} {segmenter.precision} {preset} on {target}: {settings}")
        print(f"{'image':40} {'polyp %':>8} {'components':>10} {'ms':>8}")
        for row in segment_files(segmenter, files, out):
            rows.append(row)
            if row.error is not None:
                print(f"{row.name:40} FAILED: {row.error}", flush=True)
                continue
            print(
                f"{row.name:40} {100 * row.polyp_fraction:8.2f} {row.components:10d} "
                f"{sum(row.milliseconds.values()):8.1f}",
                flush=True,
            )
    stages = stage_percentiles(rows)
    if stages:
        table(
            "Milliseconds per image, files not counted",
            ["stage", "p50", "p90", "p99"],
            [[stage, *(f"{ms:.2f}" for ms in values.values())] for stage, values in stages.items()],
        )
        info(f"masks and overlays are in {out}")
    if json is not None:
        write_json(
            json,
            {
                "bundle": segmenter.bundle.name,
                "target": target,
                "precision": segmenter.precision,
                "preset": preset,
                "effective": effective,
                "milliseconds": stages,
                "images": [row.as_json() for row in rows],
            },
        )
    failed = [row for row in rows if row.error is not None]
    if failed:
        raise UserError(
            f"{len(failed)} of {len(rows)} images could not be read, first: {failed[0].error}"
        )
