"""`kdas-edge predict`: masks and overlays for images, videos, cameras and network streams."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdas_edge.cli.options import (
    BundleOption,
    JsonOption,
    OverwriteOption,
    PrecisionOption,
    PresetOption,
    TargetOption,
)

if TYPE_CHECKING:
    from kdas_edge.runtime.images import FoundImages, ImageOptions
    from kdas_edge.runtime.segmenter import Segmenter
    from kdas_edge.video.session import VideoOptions
    from kdas_edge.video.sources import InputSource

VIDEO = "Video, cameras, streams"
STABILITY = "Stability over time"
MOST_SKIPPED = 12


def predict(
    source: Annotated[
        str,
        typer.Argument(
            help="An image, a folder of images, a video file, camera:0, or an rtsp:// or http:// "
            "address.",
        ),
    ],
    bundle: BundleOption = None,
    target: TargetOption = "openvino:CPU",
    precision: PrecisionOption = None,
    preset: PresetOption = None,
    roi: Annotated[
        str | None,
        typer.Option(
            "--roi",
            help="Look at this part only: x,y,width,height, or auto: the picture within a black "
            "border.",
        ),
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(
            "--teacher", help="A second bundle, shown beside the first.", show_default=False
        ),
    ] = None,
    fill: Annotated[
        bool, typer.Option("--fill", help="Tint the polyp, too, not only its contour.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", help="Folder of the results.")] = Path(
        "predictions"
    ),
    overwrite: OverwriteOption = False,
    json: JsonOption = None,
    jsonl: Annotated[
        Path | None,
        typer.Option(
            "--jsonl",
            help="One line of JSON per frame: boxes, areas, milliseconds.",
        ),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(
            "--record",
            help="MP4 file of the overlays.",
            rich_help_panel=VIDEO,
        ),
    ] = None,
    frames: Annotated[
        bool,
        typer.Option(
            "--frames", help="A mask and an overlay (PNG) per frame.", rich_help_panel=VIDEO
        ),
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="A live window; q closes it.", rich_help_panel=VIDEO)
    ] = False,
    realtime: Annotated[
        bool,
        typer.Option(
            "--realtime",
            help="Play a file at its own pace and drop late frames, as a camera would.",
            rich_help_panel=VIDEO,
        ),
    ] = False,
    fps: Annotated[
        float | None,
        typer.Option(
            "--fps",
            help="Frames a second of a source that does not tell; makes a folder a video.",
            rich_help_panel=VIDEO,
        ),
    ] = None,
    budget_ms: Annotated[
        float | None,
        typer.Option(
            "--budget-ms",
            help="Warn when p99 of the time of a frame exceeds this.",
            rich_help_panel=VIDEO,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", help="Stop after so many frames.", rich_help_panel=VIDEO),
    ] = None,
    reconnect: Annotated[
        int,
        typer.Option(
            "--reconnect",
            help="Attempts, with growing pauses, after a camera or stream broke off.",
            rich_help_panel=VIDEO,
        ),
    ] = 8,
    smooth: Annotated[
        float,
        typer.Option(
            "--smooth",
            help="Average of the probability: the weight of the past, 0 to 0.99; dropped at cuts.",
            rich_help_panel=STABILITY,
        ),
    ] = 0.0,
    persist: Annotated[
        str | None,
        typer.Option(
            "--persist",
            help="k/n: show a region once it was there in k of the last n frames.",
            rich_help_panel=STABILITY,
        ),
    ] = None,
    hysteresis: Annotated[
        float | None,
        typer.Option(
            "--hysteresis",
            help="A second, low threshold: what is marked stays marked above it.",
            rich_help_panel=STABILITY,
        ),
    ] = None,
) -> None:
    """Segment images, a video or a camera.

    Masks, overlays (contour), boxes, and how long it took.

    Of images: a mask and an overlay (PNG) each. Of a video, camera or stream: an MP4 of the
    overlays and a line of JSON per frame, or what --record, --jsonl, --frames, --json and --show
    name. Every frame of a file is processed; from a camera or stream the newest frame wins and
    what is dropped is counted. Ctrl-C ends a video with everything up to there.

    What can be read is processed: an image that cannot be read is reported as FAILED, a truncated
    video up to its last frame; the exit code is then 2.

    \b
    Examples:
      kdas-edge predict frame.png --bundle mybundle
      kdas-edge predict frames/ --bundle mybundle --out results --json results.json
      kdas-edge predict frames/ --bundle mybundle --target onnxruntime:CPU:threads=1
      kdas-edge predict video.mp4 --bundle mybundle --teacher teacherbundle --record both.mp4
      kdas-edge predict camera:0 --bundle mybundle --jsonl seen.jsonl --budget-ms 33
      kdas-edge predict video.mp4 --bundle mybundle --smooth 0.6 --hysteresis 0.3 --persist 3/5
    """
    import contextlib

    from kdas_edge.console import info
    from kdas_edge.files import check_output_directory
    from kdas_edge.runtime.images import ImageOptions, find_images
    from kdas_edge.runtime.segmenter import Segmenter
    from kdas_edge.runtime.targets import parse_targets
    from kdas_edge.video.session import VideoOptions, is_video, parse_roi
    from kdas_edge.video.sources import parse_source
    from kdas_edge.video.stabiliser import StabilityOptions, parse_persist

    where = parse_source(source)
    options = VideoOptions(
        out=out,
        overwrite=overwrite,
        frames=frames,
        record=record,
        jsonl=jsonl,
        json=json,
        show=show,
        style="fill" if fill else "contour",
        realtime=realtime,
        fps=fps,
        stability=StabilityOptions(smooth, parse_persist(persist) if persist else None, hysteresis),
        budget_ms=budget_ms,
        reconnect=reconnect,
        limit=limit,
    )
    targets, region, images = parse_targets(target), parse_roi(roi), None
    if not is_video(where, options):
        images = find_images(Path(source))
        check_output_directory(out, overwrite, replaces=False)
    with contextlib.ExitStack() as stack:
        segmenter = stack.enter_context(
            Segmenter.load(bundle, targets, precision, preset, roi=region)
        )
        reference = None
        if teacher is not None:
            reference = stack.enter_context(
                Segmenter.load(teacher, targets, None, preset, roi=region)
            )
        model = {
            "bundle": segmenter.bundle.name,
            "target": str(segmenter.target),
            "precision": segmenter.precision,
            "preset": segmenter.preset,
            "effective": segmenter.backend.effective,
            "teacher": reference.bundle.name if reference is not None else None,
        }
        effective = segmenter.backend.effective
        for failure in segmenter.failures:
            info(f"{failure}; next target")
        settings = ", ".join(f"{key} {value}" for key, value in effective.items())
        info(
            f"{segmenter.bundle.name} {segmenter.precision} {segmenter.preset} on "
            f"{segmenter.target}: {settings}"
        )
        if images is not None:
            written = ImageOptions(out, overwrite, jsonl, json, options.style)
            _images(images, segmenter, reference, written, model)
        else:
            _video(where, segmenter, reference, options, model)


def _images(
    images: "FoundImages",
    segmenter: "Segmenter",
    teacher: "Segmenter | None",
    options: "ImageOptions",
    model: dict[str, Any],
) -> None:
    from kdas_edge.console import info
    from kdas_edge.errors import UserError
    from kdas_edge.files import lock, write_json
    from kdas_edge.image_files import SUFFIXES
    from kdas_edge.runtime.images import ImageResult, segment_files, stage_percentiles
    from kdas_edge.video.outputs import LineFile

    lines = LineFile(options.jsonl, options.overwrite) if options.jsonl is not None else None
    rows: list[ImageResult] = []
    print(f"{'image':40} {'polyp %':>8} {'components':>10} {'ms':>8}")
    try:
        with lock(options.out):
            for row in segment_files(
                segmenter, images.files, options.out, options.style, teacher, images.results
            ):
                rows.append(row)
                if lines is not None:
                    lines.add({"index": len(rows) - 1, **row.as_json()})
                if row.error is not None:
                    print(f"{row.name:40} FAILED: {row.error}", flush=True)
                    continue
                print(
                    f"{row.name:40} {100 * row.polyp_fraction:8.2f} {row.components:10d} "
                    f"{sum(row.milliseconds.values()):8.1f}",
                    flush=True,
                )
    finally:  # a full disk or a signal: what is done is told
        stages = stage_percentiles(rows)
        if options.json is not None:
            seen = {"images": [row.as_json() for row in rows], "skipped": images.skipped}
            write_json(options.json, {**model, "milliseconds": stages, **seen})
        if stages:
            _stage_table("Milliseconds per image, files not counted", stages)
            info(f"masks and overlays are in {options.out}")
        if images.skipped:
            more = len(images.skipped) - MOST_SKIPPED
            info(
                f"skipped: {', '.join(images.skipped[:MOST_SKIPPED])}"
                f"{f' and {more} more' if more > 0 else ''}; of a folder {', '.join(SUFFIXES)} "
                "are read, name another file or a sub-folder by itself"
            )
    failed = [row for row in rows if row.error is not None]
    if failed:
        raise UserError(
            f"{len(failed)} of {len(rows)} images could not be read, first: {failed[0].error}"
        )


def _video(
    source: "InputSource",
    segmenter: "Segmenter",
    teacher: "Segmenter | None",
    options: "VideoOptions",
    model: dict[str, Any],
) -> None:
    from kdas_edge.errors import UserError
    from kdas_edge.files import write_json
    from kdas_edge.video.session import predict_video

    outcome, record = predict_video(source, options, segmenter, teacher)
    stages = dict(record["milliseconds"])
    if record["latency_ms"]:
        stages["latency"] = record["latency_ms"]
    if options.json is not None:
        write_json(options.json, {**model, **record})
    if outcome.statistics.frames:
        _stage_table("Milliseconds per frame", stages)
    if outcome.error is not None:
        raise outcome.error
    if outcome.notes:
        raise UserError("; ".join(outcome.notes))
    # a camera has no other end than this one
    if outcome.ended == "interrupted" and not source.live:
        raise KeyboardInterrupt


def _stage_table(title: str, stages: dict[str, dict[str, float]]) -> None:
    from kdas_edge.console import table
    from kdas_edge.table import number

    names = list(next(iter(stages.values())))
    rows = [
        [stage, *(number(values[name], 2) for name in names)] for stage, values in stages.items()
    ]
    table(title, ["stage", *names], rows)
