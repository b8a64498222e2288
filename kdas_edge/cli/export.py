"""`kdas-edge export`: a run becomes a bundle."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kdas_edge.bundle.manifest import Precision, Preset
    from kdas_edge.export.rows import Row


def export(
    run: Annotated[
        Path,
        typer.Argument(
            help="Quantised run, float run or checkpoint. A quantised run carries its float "
            "student, so that the bundle gets both precisions.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The bundle's folder.", show_default=False)
    ],
    int8: Annotated[
        Path | None,
        typer.Option("--int8", help="Quantised run, if RUN is the float one.", show_default=False),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            help="Precisions to write, of fp32, fp16, int8 and int8_weights. Default: fp32, and "
            "int8 where there is a quantised run.",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[
        str, typer.Option("--preset", help="Inputs to write, of core and camera.")
    ] = "core,camera",
    golden: Annotated[
        Path | None,
        typer.Option(
            "--golden",
            help="Folder of images to store as golden frames; synthetic scenes by default.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Images for the comparison with torch; they are not stored.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Use at most so many images of --data.")
    ] = 16,
    name: Annotated[
        str | None, typer.Option("--name", help="The bundle's name; its folder's by default.")
    ] = None,
    torch: Annotated[
        bool, typer.Option("--torch/--no-torch", help="Store the float checkpoint too.")
    ] = True,
    timing: Annotated[
        bool,
        typer.Option("--timing/--no-timing", help="Time int8 against fp32 in each runtime."),
    ] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing bundle.")
    ] = False,
    json: Annotated[
        Path | None, typer.Option("--json", help="Write the table here.", show_default=False)
    ] = None,
) -> None:
    """Write a bundle: OpenVINO IR and ONNX at each precision, manifest with hashes, golden frames.

    Every file is run here and compared with the torch model it was made of: fp32 within 1e-4 in
    probability, fp16 and int8 masks within 0.5 % of pixels. Exit code 3: one is not; the bundle
    is kept. Where int8 is not faster than fp32, the last lines say so, and why.

    fp16 halves the size and suits GPUs, Arm and NPUs; int8_weights quarters it and computes in
    float, without calibration.

    Examples:

        kdas-edge export runs/student_int8 --out bundles/student --data DATA

        kdas-edge export runs/student --int8 runs/student_int8 --out bundles/student --overwrite

        kdas-edge export runs/student --out bundles/small --precision fp16,int8_weights

        kdas-edge export runs/teacher --out bundles/teacher --preset core --no-torch
    """
    from kdas_edge.console import table
    from kdas_edge.data.layout import list_images
    from kdas_edge.export.rows import raise_for_failures
    from kdas_edge.export.writer import export_bundle
    from kdas_edge.files import write_json

    report = export_bundle(
        out,
        run,
        int8,
        _presets(preset),
        list_images(golden) if golden else None,
        _frames(data, limit) if data else (),
        name,
        overwrite,
        torch,
        precisions=_precisions(precision) if precision is not None else None,
        timing=timing,
    )
    rows: list[list[object]] = []
    for row in report.rows:
        found = row.agreement
        rows.append(
            [
                row.path,
                row.precision,
                row.format,
                f"{row.bytes / 1e6:.2f}",
                _format_versions(row),
                f"{found.probability:.1e}" if found else "",
                f"{100 * found.disagreement:.4f}" if found else "",
                f"{100 * found.worst:.4f}" if found else "",
                row.status if not row.reason else f"{row.status}: {row.reason}",
            ]
        )
    frames = next((row.agreement.frames for row in report.rows if row.agreement), 0)
    table(
        f"{report.path} (agreement with torch on {frames} frames)",
        [
            "file",
            "precision",
            "format",
            "MB",
            "IR, opset",
            "largest Δ probability",
            "mask pixels that differ, %",
            "worst frame, %",
            "status",
        ],
        rows,
    )
    for kind, change in report.changes.items():
        print(f"{kind}: {change.disagreement:.2%} of mask pixels differ from fp32, in torch")
    for speed in report.speeds:
        print(speed.line())
    if json is not None:
        write_json(json, report.as_json())
    raise_for_failures(report)
    print(f"next: kdas-edge verify {out}")
    print(f"      kdas-edge bench {out} --data {data or 'DATA'}")


def _format_versions(row: "Row") -> str:
    """Version of the file format and operator set, e.g. `11, 13`."""
    found = (row.versions.ir_version, row.versions.opset)
    return ", ".join(str(number) for number in found if number is not None)


def _precisions(text: str) -> "list[Precision]":
    from kdas_edge.bundle.manifest import PRECISIONS
    from kdas_edge.errors import UserError

    chosen = [word.strip() for word in text.split(",") if word.strip()]
    for word in chosen:
        if word not in PRECISIONS:
            raise UserError(f"--precision {word!r} is unknown; known: {', '.join(PRECISIONS)}")
    if not chosen:
        raise UserError("--precision names nothing; for example --precision fp32,fp16")
    return [precision for precision in PRECISIONS if precision in chosen]


def _presets(text: str) -> "list[Preset]":
    from kdas_edge.errors import UserError
    from kdas_edge.bundle.manifest import PRESETS

    chosen = [word.strip() for word in text.split(",") if word.strip()]
    for word in chosen:
        if word not in PRESETS:
            raise UserError(f"--preset {word!r} is unknown; known: {', '.join(PRESETS)}")
    if not chosen:
        raise UserError("--preset names nothing; for example --preset core,camera")
    return [preset for preset in PRESETS if preset in chosen]


def _frames(root: Path, limit: int) -> list[Path]:
    """Images of a data set or of a plain folder, spread evenly over all of them."""
    from kdas_edge.data.layout import find_sets, list_images

    if (root / "images").is_dir() or (root / "TestDataset").is_dir():
        sets = find_sets(root)
        files = [pair.image for found in sets.values() for pair in found.pairs]
    else:
        files = list_images(root)
    count = min(limit, len(files))
    return [files[index * len(files) // count] for index in range(count)]
