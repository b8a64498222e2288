"""`kdas-edge data`: look a data set over, draw a synthetic one, make a compact copy, spoil one."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kdas_edge.data.check import Report

app = typer.Typer(
    help="Check, draw and prepare data sets.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

Json = Annotated[Path | None, typer.Option("--json", help="Write the result to this file.")]
MaskValuesOption = Annotated[
    str | None,
    typer.Option(
        "--mask-values",
        help="Values of the masks that are polyp, such as 1,2 or 128-255 or #ff0000.",
        show_default=False,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output folder.")]
# how many files a finding, and how many findings a kind, are spelled out on the terminal
_SHOWN = 3


@app.command()
def check(
    root: Annotated[Path, typer.Argument(help="PraNet layout, or a folder with images/ + masks/.")],
    json: Json = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings as well.")] = False,
    mask_values: MaskValuesOption = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            "--group-by",
            help="Tell groups (patients, videos) of which two sets hold images: folder:N, a "
            "regular expression on file names, or FILE.csv[:COLUMN].",
            show_default=False,
        ),
    ] = None,
) -> None:
    """List everything wrong or remarkable in a data set.

    Nothing on disk is changed.
    Errors (exit code 2) are what stops a training: files without partner, unreadable files, sizes
    that differ, masks that are full or whose values are not clear. In a mask black is background;
    one other value, labels 1, 2, 3 … and colours are polyp, unless --mask-values says otherwise.
    Warnings are empty masks, identical and near-identical images, and test images with a near
    duplicate in the training set.

    \b
    Examples:
      kdas-edge data check data/pranet
      kdas-edge data check data/my-hospital --strict --json check.json
      kdas-edge data check data/my-hospital --group-by 'patient_[0-9]+' --mask-values 1
    """
    from kdas_edge.data.check import check as check_data
    from kdas_edge.errors import UserError
    from kdas_edge.files import write_json

    report = check_data(root, mask_values=mask_values, group_by=group_by)
    if json is not None:
        write_json(json, report.as_json())
    _show(report)
    faults = report.errors + (report.warnings if strict else [])
    if faults:
        first = faults[0]
        more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
        where = "the table above" if json is None else str(json)
        raise UserError(
            f"{root}: {first.kind}: {', '.join(first.files[:_SHOWN])}{more}; "
            f"correct the files listed in {where}"
        )


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="Folder to make, in PraNet layout.")],
    train: Annotated[int, typer.Option(min=1, help="Training pairs.")] = 200,
    test: Annotated[int, typer.Option(min=0, help="Test pairs.")] = 40,
    size: Annotated[int, typer.Option(min=32, max=4096, help="Side in pixels.")] = 352,
    seed: Annotated[int, typer.Option(min=0, help="Other seeds give other scenes.")] = 0,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Draw endoscopic scenes with exact masks: data for a trial.

    A model trained on them has learnt nothing about patients.

    \b
    Examples:
      kdas-edge data synth data/synthetic
      kdas-edge data synth data/small --train 32 --test 8 --size 224 --seed 7
    """
    from kdas_edge.console import info
    from kdas_edge.data.synthetic import write_dataset
    from kdas_edge.files import read_json, write_json

    write_dataset(out, train, test, size, seed, overwrite=overwrite)
    if json is not None:
        write_json(json, {"root": str(out)} | read_json(out / "dataset.json"))
    info(f"{train} training and {test} test scenes of {size}×{size} pixels are in {out}")
    info(f"next: kdas-edge data check {out}")


@app.command()
def prepare(
    root: Annotated[Path, typer.Argument(help="PraNet layout, or a folder with images/ + masks/.")],
    out: Annotated[Path, typer.Argument(help="Folder to make, in the same layout.")],
    size: Annotated[int, typer.Option(min=32, max=4096, help="Side in pixels.")] = 352,
    quality: Annotated[int, typer.Option(min=1, max=100, help="JPEG quality.")] = 90,
    mask_values: MaskValuesOption = None,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Make a compact copy at the training size.

    With the resize that trains.

    The copy is read by every verb like the original. `prepared.json` in it records the size, the
    quality, what JPEG cost in PSNR, and the hash of every original.

    \b
    Examples:
      kdas-edge data prepare data/pranet data/pranet-352
      kdas-edge data prepare data/pranet data/pranet-256 --size 256 --quality 95
    """
    from kdas_edge.console import info, table
    from kdas_edge.data.prepare import prepare as prepare_data
    from kdas_edge.data.prepare import record
    from kdas_edge.files import write_json

    prepared = prepare_data(root, out, size, quality, overwrite, mask_values=mask_values)
    if json is not None:
        write_json(json, {"root": str(out)} | record(root, size, quality, prepared))
    table(
        f"{out}: {size}×{size} pixels, JPEG quality {quality}",
        ["set", "images", "MB", "PSNR mean, dB", "PSNR worst, dB"],
        [
            [name, one.images, f"{one.bytes / 1e6:.1f}", f"{one.psnr_mean:.1f}", one.psnr_min]
            for name, one in prepared.items()
        ],
    )
    info(f"next: kdas-edge train --recipe RECIPE --data {out} data.size={size}")


@app.command()
def corrupt(
    image: Annotated[Path, typer.Argument(help="An image file.")],
    out: Annotated[Path, typer.Option("--out", help="Picture to write: .png, .jpg or .webp.")],
    corruptions: Annotated[
        str | None, typer.Option("--corruptions", help="Only these, commas between. Default: all.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Other seeds draw other accidents.")] = 0,
    width: Annotated[int, typer.Option(min=32, max=4096, help="Of one picture, in pixels.")] = 240,
) -> None:
    """Show what `bench --robustness` does to an image.

    Every corruption at three strengths.

    \b
    Examples:
      kdas-edge data corrupt frame.png --out sheet.jpg
      kdas-edge data corrupt frame.png --out sheet.png --corruptions smoke,bubbles --width 480
    """
    from kdas_edge.console import info
    from kdas_edge.data.contact_sheet import check_suffix, contact_sheet, write_sheet
    from kdas_edge.data.corruptions import CORRUPTIONS
    from kdas_edge.image_files import read_image

    check_suffix(out)
    names = corruptions.split(",") if corruptions else list(CORRUPTIONS)
    write_sheet(out, contact_sheet(read_image(image), names, image.stem, seed, width))
    info(f"{len(names)} corruptions at three strengths: {out}")


def _show(report: "Report") -> None:
    """Print the sets, then the findings by kind with a few examples each."""
    from kdas_edge.console import table

    table(
        f"{report.root}: the sets",
        ["set", "images", "good pairs", "polyp-free", "median polyp area", "smallest", "largest"],
        [
            [
                name,
                one.images,
                one.pairs,
                one.polyp_free,
                f"{one.polyp_area:.1%}",
                one.smallest,
                one.largest,
            ]
            for name, one in report.sets.items()
        ],
    )
    total = Counter((finding.set_name, finding.kind) for finding in report.findings)
    shown: Counter[tuple[str, str]] = Counter()
    rows: list[list[object]] = []
    for finding in report.errors + report.warnings:
        key = (finding.set_name, finding.kind)
        shown[key] += 1
        first = shown[key] == 1
        if shown[key] <= _SHOWN:
            level = "error" if finding.is_error else "warning"
            files = ", ".join(finding.files[:_SHOWN])
            more = len(finding.files) - _SHOWN
            files += f" and {more} more" if more > 0 else ""
            head = [level, *key, total[key]] if first else ["", "", "", ""]
            rows.append([*head, files, finding.detail])
        elif shown[key] == _SHOWN + 1:
            rest = f"… {total[key] - _SHOWN} more; --json FILE lists all"
            rows.append(["", "", "", "", rest, ""])
    if rows:
        table("findings", ["level", "set", "finding", "count", "files", "detail"], rows)
    else:
        print("nothing to report")
