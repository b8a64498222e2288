"""`kdas-edge calibrate`: the frames that set the ranges of int8."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdas_edge.cli.options import JsonOption, OverwriteOption

if TYPE_CHECKING:
    from kdas_edge.quantize.calibration.manifest import CalibrationManifest


def calibrate(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of images, data roots (their TrainDataset), video files.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Folder to make, or a JSON file with --manifest-only.")
    ],
    count: Annotated[int, typer.Option("--count", help="Frames to choose.")] = 300,
    seed: Annotated[int, typer.Option("--seed", help="Other seeds give other frames.")] = 0,
    method: Annotated[
        str, typer.Option("--method", help="kcenter, stratified or random.")
    ] = "kcenter",
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Data root whose test images must not be among the frames.",
        ),
    ] = None,
    student: Annotated[
        Path | None,
        typer.Option(
            "--student",
            help="Float run that finds the polyps of frames without mask.",
        ),
    ] = None,
    exclude_test: Annotated[
        bool,
        typer.Option("--exclude-test", help="Leave frames that show a test image out."),
    ] = False,
    stride: Annotated[
        int, typer.Option("--stride", help="Look at every n-th frame of a video.")
    ] = 25,
    most_per_video: Annotated[
        int, typer.Option("--most-per-video", help="Longer videos get a wider stride.")
    ] = 1000,
    manifest_only: Annotated[
        bool,
        typer.Option("--manifest-only", help="Write the JSON alone; for data roots."),
    ] = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = None,
) -> None:
    """Choose the frames that set the ranges of int8.

    They cover what a device will see: brightness, contrast, sharpness, highlights, colour, and the
    size of the polyp. At least a tenth of the frames is polyp-free where there are as many. A frame
    that shows a test image, or nearly so, is refused; in a training set it is left out.

    \b
    Examples:
      kdas-edge calibrate DATA --out calibration/mine
      kdas-edge calibrate recordings/ tuesday.mp4 --data DATA --student runs/student
          --out calibration/mine --count 200
      kdas-edge calibrate DATA --manifest-only --out calibration/mine.json
      kdas-edge quantize --student runs/student --data DATA calibration.source=calibration/mine
    """
    from kdas_edge.console import info
    from kdas_edge.files import write_json
    from kdas_edge.quantize.calibration.make import Request, make_calibration_set

    request = Request(
        sources=tuple(sources),
        count=count,
        seed=seed,
        method=method,
        data=data,
        student=student,
        exclude_test=exclude_test,
        stride=stride,
        most_per_video=most_per_video,
    )
    manifest = make_calibration_set(request, out, manifest_only, overwrite)
    if json is not None:
        write_json(
            json,
            {"out": str(out), **manifest.model_dump(mode="json", exclude={"frames", "left_out"})},
        )
    _show(manifest, out)
    info(f"next: kdas-edge quantize --student RUN --data DATA calibration.source={out}")


def _show(manifest: "CalibrationManifest", out: Path) -> None:
    from kdas_edge.console import table

    rows = []
    for name, found in manifest.coverage.items():
        if found is None:
            rows.append([name, "unknown", "", "", "", "", ""])
            continue
        cells = [name]
        for who in ("candidates", "chosen", "random"):
            part = found[who]
            cells += (
                ["", ""]
                if part is None
                else [
                    " / ".join(f"{part[key]:.3g}" for key in ("min", "median", "max")),
                    str(part["tenths"]),
                ]
            )
        rows.append(cells)
    chosen = manifest.counts["chosen"]
    headings = ["feature"]
    for who in ("all candidates", f"{chosen} chosen", f"{chosen} random"):
        headings += [f"{who}: min / median / max", "tenths"]
    table(
        f"{out}: how far the frames reach ({manifest.method}, seed {manifest.seed})", headings, rows
    )
    for key, number in manifest.counts.items():
        print(f"{key}: {number}")
    for who, far in manifest.distance.items():
        print(
            f"from a candidate to the nearest {who} frame: {far['mean']:.2f} on average, "
            f"{far['largest']:.2f} at most (standard deviations of the features)"
        )
    for source in manifest.sources:
        if source.stride is not None:
            print(f"{source.name}: {source.candidates} candidates, one in {source.stride} frames")
