"""`kdas-edge export`: a run becomes a bundle, a bundle a server's model repository."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from kdas_edge.cli.options import JsonOption, OverwriteOption

if TYPE_CHECKING:
    from kdas_edge.bundle.manifest import Precision, Preset
    from kdas_edge.export.export_report import ExportedFile
    from kdas_edge.export.serving.repository import Layout

_Word = TypeVar("_Word", bound=str)


def export(
    run: Annotated[
        Path,
        typer.Argument(
            help="Quantised run, float run or checkpoint. A quantised run carries its float "
            "student, so that the bundle gets both precisions. With --layout also a bundle.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="The bundle's folder; the repository's, where RUN is a bundle.",
        ),
    ],
    int8: Annotated[
        Path | None,
        typer.Option("--int8", help="Quantised run, if RUN is the float one."),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            help="Precisions to write, of fp32, fp16, int8 and int8_weights. Default: fp32, and "
            "int8 where there is a quantised run.",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            help="Inputs to write, of core, camera and holoscan. Default: core,camera; all that "
            "it has, where RUN is a bundle.",
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            "--layout",
            help="Write a model repository, too: for OpenVINO Model Server (ovms) or triton, "
            "beside the bundle, with the layout behind its name.",
        ),
    ] = None,
    golden: Annotated[
        Path | None,
        typer.Option(
            "--golden",
            help="Folder of images to store as golden frames; synthetic scenes by default.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Images for the comparison with torch; they are not stored.",
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
    without: Annotated[
        str | None,
        typer.Option(
            "--without",
            help="Model files to leave out, for a smaller bundle: fp32/camera.onnx,fp32/camera.xml",
        ),
    ] = None,
    half_weights: Annotated[
        bool,
        typer.Option(
            "--half-weights/--full-weights",
            help="Round fp32's weights to 16 bits, for files of half the size; fp32 arithmetic "
            "as before.",
        ),
    ] = False,
    timing: Annotated[
        bool,
        typer.Option("--timing/--no-timing", help="Time int8 against fp32 in each runtime."),
    ] = True,
    overwrite: OverwriteOption = False,
    json: JsonOption = None,
) -> None:
    """Write a bundle: OpenVINO IR, ONNX, manifest and proof.

    At each precision, with hashes and golden frames.

    Every file is run here and compared with the torch model it was made of: fp32 within 1e-4 in
    probability, fp16 and int8 masks within 0.5 % of pixels. Exit code 3: one is not; the bundle
    is kept. Where int8 is not faster than fp32, the last lines say so, and why.

    fp16 halves the size and suits GPUs, Arm and NPUs; int8_weights quarters it and computes in
    float, without calibration.

    \b
    Examples:
      kdas-edge export runs/student_int8 --out bundles/student --data DATA
      kdas-edge export runs/student --int8 runs/student_int8 --out bundles/student --overwrite
      kdas-edge export runs/student --out bundles/small --precision fp16,int8_weights
      kdas-edge export runs/teacher --out bundles/teacher --preset core --no-torch
      kdas-edge export runs/student --out bundles/student --preset core,camera,holoscan
      kdas-edge export bundles/student --out models --layout ovms
    """
    from kdas_edge.bundle.manifest import PRECISIONS, PRESETS
    from kdas_edge.export.serving.repository import is_bundle

    presets = _chosen(preset, PRESETS, "--preset") if preset is not None else None
    precisions = _chosen(precision, PRECISIONS, "--precision") if precision is not None else None
    served = _layout(layout) if layout is not None else None
    if is_bundle(run):
        _serve_bundle(run, out, served, presets, precisions, overwrite)
        return
    from kdas_edge.console import table
    from kdas_edge.data.layout import list_images
    from kdas_edge.export.export_report import raise_for_failures
    from kdas_edge.export.presets import DEFAULT_PRESETS
    from kdas_edge.export.writer import export_bundle
    from kdas_edge.files import check_output_directory, write_json
    from kdas_edge.table import Cell, number

    repository = out.with_name(f"{out.name}-{served}")
    if served is not None:
        check_output_directory(repository, overwrite)
    report = export_bundle(
        out,
        run,
        int8,
        DEFAULT_PRESETS if presets is None else presets,
        list_images(golden) if golden else None,
        _frames(data, limit) if data else (),
        name,
        overwrite,
        torch,
        precisions=precisions,
        timing=timing,
        without=[path.strip() for path in without.split(",")] if without else (),
        half_weights=half_weights,
    )
    if json is not None:
        write_json(json, report.as_json())
    rows: list[list[object]] = []
    for row in report.rows:
        found = row.agreement
        rows.append(
            [
                row.path,
                row.precision,
                row.format,
                number(row.bytes / 1e6),
                _format_versions(row),
                Cell(f"{found.probability:.1e}", found.probability) if found else "",
                number(100 * found.disagreement, 4) if found else "",
                number(100 * found.worst, 4) if found else "",
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
    raise_for_failures(report)
    if served is not None:
        _serve_bundle(out, repository, served, None, None, overwrite)
    print(f"next: kdas-edge verify {out}")
    print(f"      kdas-edge bench {out} --data {data or 'DATA'}")


def _serve_bundle(
    bundle: Path,
    out: Path,
    layout: "Layout | None",
    presets: "list[Preset] | None",
    precisions: "list[Precision] | None",
    overwrite: bool,
) -> None:
    """Write a bundle's models as a repository and say what it serves."""
    from kdas_edge.bundle.reader import open_bundle
    from kdas_edge.console import table
    from kdas_edge.errors import UserError
    from kdas_edge.export.serving.repository import LAYOUTS, write_repository

    if layout is None:
        raise UserError(
            f"{bundle} is a bundle already; name a run, or add --layout {' or '.join(LAYOUTS)} "
            "for a server's model repository"
        )
    served = write_repository(open_bundle(bundle), out, layout, presets, precisions, overwrite)
    table(
        f"{out} ({layout})",
        ["model", "input", "shape", "type", "layout"],
        [
            [entry.name, c.name, "×".join("any" if n < 0 else str(n) for n in c.shape), c.dtype,
             c.layout]
            for entry in served
            for c in [entry.contract]
        ],
    )  # fmt: skip
    print(f"next: {out}/README.md starts the server, {out}/client.py sends it a frame")


def _format_versions(row: "ExportedFile") -> str:
    """Version of the file format and operator set, e.g. `11, 13`."""
    found = (row.versions.ir_version, row.versions.opset)
    return ", ".join(str(number) for number in found if number is not None)


def _chosen(text: str, known: Sequence[_Word], option: str) -> list[_Word]:
    """The words of a list with commas, in the order of `known`."""
    from kdas_edge.errors import UserError

    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word not in known:
            raise UserError(f"{option} {word!r} is unknown; known: {', '.join(known)}")
    if not words:
        raise UserError(f"{option} names nothing; for example {option} {','.join(known[:2])}")
    return [word for word in known if word in words]


def _layout(text: str) -> "Layout":
    from kdas_edge.errors import UserError
    from kdas_edge.export.serving.repository import LAYOUTS

    for layout in LAYOUTS:
        if text == layout:
            return layout
    raise UserError(f"--layout {text!r} is unknown; known: {', '.join(LAYOUTS)}")


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
