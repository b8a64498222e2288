"""`kdas-edge data`: check, import, draw, prepare and corrupt data sets."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdas_edge.cli.options import JsonOption, MaskValuesOption, OverwriteOption

if TYPE_CHECKING:
    from kdas_edge.data.check import Report
    from kdas_edge.data.importing import ImportReport

app = typer.Typer(
    help="Check, import, draw and prepare data sets.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

# how many files a finding, and how many findings a kind, are spelled out on the terminal
_SHOWN = 3


@app.command()
def check(
    root: Annotated[Path, typer.Argument(help="PraNet layout, or a folder with images/ + masks/.")],
    json: JsonOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings as well.")] = False,
    mask_values: MaskValuesOption = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            "--group-by",
            help="Tell groups (patients, videos) of which two sets hold images: folder:N, a "
            "regular expression on file names, or FILE.csv[:COLUMN].",
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
    from kdas_edge.data.import_layout import hint
    from kdas_edge.errors import UserError
    from kdas_edge.files import write_json

    try:
        report = check_data(root, mask_values=mask_values, group_by=group_by)
    except UserError as error:
        raise UserError(f"{error}{hint(root, 0)}") from None
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
            + hint(root, sum(one.pairs for one in report.sets.values()))
        )


@app.command(name="import")
def import_(
    source: Annotated[Path, typer.Argument(help="Folder of images and masks, in any layout.")],
    out: Annotated[Path, typer.Argument(help="Folder to make, in PraNet layout.")],
    images: Annotated[
        str | None,
        typer.Option("--images", help="Which files are images, such as 'patient_*/img/*.jpg'."),
    ] = None,
    masks: Annotated[
        str | None,
        typer.Option(
            "--masks",
            help="The mask of an image, such as '{stem}_mask.png' or 'Ground Truth/{stem}.*'; "
            "also {name}, {parent}, {group}, and {frame} of a video. Default: found out.",
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            "--group",
            help="Patient, examination or video: a folder's name such as 'patient_*', or a "
            "regular expression on the path whose first bracket is the group.",
        ),
    ] = None,
    polyp_free: Annotated[
        str | None,
        typer.Option("--polyp-free", help="Images without a polyp, which need no mask."),
    ] = None,
    coco: Annotated[
        str | None, typer.Option("--coco", help="COCO file with polygons or run lengths.")
    ] = None,
    categories: Annotated[
        str | None,
        typer.Option("--categories", help="Of the COCO file, commas between. Default: all."),
    ] = None,
    videos: Annotated[
        str | None,
        typer.Option("--videos", help="Videos of which some frames have masks, such as '*.mp4'."),
    ] = None,
    first_frame: Annotated[
        int, typer.Option("--first-frame", min=0, max=1, help="Number of a video's first frame.")
    ] = 0,
    layout: Annotated[
        Path | None,
        typer.Option("--layout", help="YAML file with these options as keys, instead of them."),
    ] = None,
    mask_values: MaskValuesOption = None,
    test: Annotated[
        float, typer.Option("--test", help="Share that becomes the test part, by whole groups.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Other seeds part off other groups.")] = 0,
    link: Annotated[bool, typer.Option("--link", help="Link to the images, do not copy.")] = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = None,
) -> None:
    """Take a folder in any layout into ours.

    Masks of any encoding become 1-bit PNG. Of equal pictures one is taken. `import.json` in the
    new folder tells where each pair came from and what was left out; `groups.csv` the groups.

    \b
    Examples:
      kdas-edge data import hospital data/hospital
      kdas-edge data import hospital data/hospital --images 'patient_*/img/*.jpg'
          --masks '{stem}_mask.png' --group 'patient_*' --test 0.2 --link
      kdas-edge data import export data/labelled --coco annotations.json --categories polyp
      kdas-edge data import films data/films --videos '*.mp4' --masks '{stem}_{frame}.png'
    """
    from kdas_edge.data.import_layout import Layout, read_layout
    from kdas_edge.data.importing import import_folder
    from kdas_edge.errors import UserError
    from kdas_edge.files import write_json

    options = Layout(
        images=images,
        masks=masks,
        group=group,
        polyp_free=polyp_free,
        coco=coco,
        categories=tuple(categories.split(",")) if categories else (),
        videos=videos,
        first_frame=first_frame,
        mask_values=mask_values,
    )
    if layout is not None and options != Layout():
        raise UserError(f"--layout {layout} and options of the layout: give one of the two")
    chosen = options if layout is None else read_layout(layout)
    report = import_folder(source, out, chosen, test, seed, link, overwrite)
    if json is not None:
        write_json(json, {"out": str(out), **report.as_json()})
    _show_import(report, out)


def _show_import(report: "ImportReport", out: Path) -> None:
    from kdas_edge.console import info, table

    rows = [
        ["pairs taken", len(report.taken)],
        ["of these without a polyp", report.polyp_free],
        ["of these in the test part", report.test],
        ["groups", report.groups],
        ["pictures left out", len(report.left)],
        ["files of other kinds", sum(report.other_files.values())],
    ]
    table(f"{out}: what was taken", ["", "number"], rows)
    reasons = Counter(one.reason for one in report.left)
    for one in report.left[:_SHOWN]:
        info(f"left out: {one.file}: {one.reason}")
    if len(report.left) > _SHOWN:
        info(f"… {len(report.left) - _SHOWN} more, {len(reasons)} reasons; {out}/import.json")
    grouped = " data.group_by=groups.csv" if report.groups else ""
    info(f"next: kdas-edge data check {out}")
    info(f"      kdas-edge train --recipe RECIPE --data {out}{grouped}")


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="Folder to make, in PraNet layout.")],
    train: Annotated[int, typer.Option(min=1, help="Training pairs.")] = 200,
    test: Annotated[int, typer.Option(min=0, help="Test pairs.")] = 40,
    size: Annotated[int, typer.Option(min=32, max=4096, help="Side in pixels.")] = 352,
    seed: Annotated[int, typer.Option(min=0, help="Other seeds give other scenes.")] = 0,
    overwrite: OverwriteOption = False,
    json: JsonOption = None,
) -> None:
    """Make synthetic endoscopic scenes with exact masks: data for a trial.

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
    overwrite: OverwriteOption = False,
    json: JsonOption = None,
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
    from kdas_edge.table import number

    prepared = prepare_data(root, out, size, quality, overwrite, mask_values=mask_values)
    if json is not None:
        write_json(json, {"root": str(out)} | record(root, size, quality, prepared))
    table(
        f"{out}: {size}×{size} pixels, JPEG quality {quality}",
        ["set", "images", "MB", "PSNR mean, dB", "PSNR worst, dB"],
        [
            [
                name,
                one.images,
                number(one.bytes / 1e6, 1),
                number(one.psnr_mean, 1),
                number(one.psnr_min, 1),
            ]
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
    seed: Annotated[int, typer.Option(min=0, help="Other seeds give other corruptions.")] = 0,
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
