"""One video from its source to its record: what `kdas-edge predict` does with what moves."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kdas_edge.console import info
from kdas_edge.data.layout import list_images
from kdas_edge.errors import UserError
from kdas_edge.files import check_output_directory, check_output_file, lock
from kdas_edge.overlay import Style
from kdas_edge.runtime.field_of_view import RoiChoice
from kdas_edge.runtime.segmenter import Segmenter
from kdas_edge.video.live import ATTEMPTS, LiveReader
from kdas_edge.video.outputs import OutputOptions, Outputs
from kdas_edge.video.pipeline import Outcome, VideoJob, run_video
from kdas_edge.video.readers import FileReader, FolderReader, Reader
from kdas_edge.video.sources import InputSource
from kdas_edge.video.stabiliser import StabilityOptions
from kdas_edge.video.window import Window


@dataclass(frozen=True)
class VideoOptions:
    """Everything that a person may choose about a video.

    Attributes:
        out: folder of what has no path of its own.
        overwrite: replace what exists.
        frames: write a mask and an overlay per frame.
        record: MP4 file of the overlays.
        jsonl: one line of JSON per frame.
        json: the figures of the whole run.
        show: open a window.
        style: of the overlays.
        realtime: play a file at its own pace, dropping late frames.
        fps: frame rate, where the source tells none or a wrong one.
        stability: what steadies the masks.
        budget_ms: longest time of a frame.
        reconnect: attempts after a live source broke off.
        limit: frames after which to stop.
    """

    out: Path = Path("predictions")
    overwrite: bool = False
    frames: bool = False
    record: Path | None = None
    jsonl: Path | None = None
    json: Path | None = None
    show: bool = False
    style: Style = "contour"
    realtime: bool = False
    fps: float | None = None
    stability: StabilityOptions = field(default_factory=StabilityOptions)
    budget_ms: float | None = None
    reconnect: int = ATTEMPTS
    limit: int | None = None

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("fps", self.fps, 0.1, 1000),
            ("budget-ms", self.budget_ms, 0.001, 1e6),
            ("limit", self.limit, 1, 1e12),
            ("reconnect", self.reconnect, 0, 1e6),
        ):
            if value is not None and not low <= value <= high:
                raise UserError(f"--{name} {value:g} is not in {low:g}…{high:g}")


def is_video(source: InputSource, options: VideoOptions) -> bool:
    """Whether a source is processed as a video: everything but images, unless they have a rate.

    Raises:
        UserError: images without an order in time, and an option that needs one.
    """
    folder = source.kind == "images" and Path(source.address).is_dir()
    if source.kind != "images" or (folder and options.fps is not None):
        return True
    used = {
        "--record": options.record is not None,
        "--frames": options.frames,
        "--show": options.show,
        "--realtime": options.realtime,
        "--fps": options.fps is not None,
        "--smooth": bool(options.stability.smooth),
        "--persist": options.stability.persist is not None,
        "--hysteresis": options.stability.hysteresis is not None,
        "--budget-ms": options.budget_ms is not None,
        "--limit": options.limit is not None,
    }
    for name, given in used.items():
        if given:
            what = "a folder of images: add --fps 25" if folder else "one image: leave it out"
            raise UserError(f"{name} needs frames in time, and {source.address} is {what}")
    return False


def predict_video(
    source: InputSource,
    options: VideoOptions,
    segmenter: Segmenter,
    teacher: Segmenter | None = None,
) -> tuple[Outcome, dict[str, Any]]:
    """Segment a video, a folder of frames in time, a camera or a stream; say what was done.

    Returns:
        The outcome, and its figures for `options.json`.

    Raises:
        UserError: before anything is read: the source, an option or an output is wrong, or another
            process writes one.
    """
    options.stability.check(segmenter.bundle.manifest.threshold)
    options = _with_default_outputs(source, options)
    if options.frames:
        check_output_directory(options.out, options.overwrite, replaces=False)
    if options.json is not None:
        check_output_file(options.json)
    with contextlib.ExitStack() as stack:
        # one lock a recording: several processes may share the folder
        for path in (options.record, options.jsonl, options.out if options.frames else None):
            if path is not None:
                stack.enter_context(lock(path))
        return _predict(source, options, segmenter, teacher)


def _predict(
    source: InputSource, options: VideoOptions, segmenter: Segmenter, teacher: Segmenter | None
) -> tuple[Outcome, dict[str, Any]]:
    """Segment with outputs that are checked and locked."""
    window = Window(f"kdas-edge: {source.name}") if options.show else None
    reader = open_reader(source, options)
    try:
        delays = _say_delays(options.stability, segmenter.bundle.manifest.threshold, reader)
        outputs = Outputs(
            OutputOptions(
                frames=options.out if options.frames else None,
                record=options.record,
                jsonl=options.jsonl,
                style=options.style,
                labels=_labels(segmenter, teacher),
                show=options.show,
                overwrite=options.overwrite,
            ),
            reader.fps,
        )
        job = VideoJob(
            segmenter, teacher, options.stability, options.budget_ms, options.limit, window
        )
    except UserError:
        reader.close()
        raise
    outcome = run_video(reader, job, outputs)
    if window is not None:
        window.close()
    record = {
        "source": source.name,
        "kind": source.kind,
        "live": reader.live,
        "fps": round(reader.fps, 3),
        "expected_frames": reader.expected,
        **outcome.as_json(),
        "failures": segmenter.failures,
        "reconnected": reader.reconnected if isinstance(reader, LiveReader) else 0,
        "stability": {
            "smooth": options.stability.smooth,
            "persist": options.stability.persist,
            "hysteresis": options.stability.hysteresis,
            "delays": delays,
        },
        "written": outputs.written,
    }
    if options.budget_ms is not None:
        record["budget"] = _judge_budget(options.budget_ms, outcome, reader.live)
    _say_outcome(outcome, record)
    return outcome, record


def parse_roi(text: str | None) -> RoiChoice:
    """Read `auto` or `x,y,width,height`.

    Raises:
        UserError: another form.
    """
    if text is None or text == "auto":
        return text
    numbers = text.split(",")
    if len(numbers) != 4 or not all(one.isascii() and one.isdigit() for one in numbers):
        raise UserError(f"--roi {text!r} is neither auto nor x,y,width,height; try 0,0,640,480")
    return [int(one) for one in numbers]


def open_reader(source: InputSource, options: VideoOptions) -> Reader:
    """Open the source.

    Raises:
        UserError: it cannot be opened, or is a folder without a frame rate.
    """
    if source.live:
        return LiveReader(source, options.fps, options.reconnect)
    path = Path(source.address)
    if source.kind == "video":
        return FileReader(path, options.fps, options.realtime)
    if options.fps is None:
        raise UserError(f"{path} is no video; a folder of frames becomes one with --fps 25")
    return FolderReader(list_images(path), source.name, options.fps, options.realtime)


def _with_default_outputs(source: InputSource, options: VideoOptions) -> VideoOptions:
    """A run that writes nothing at all would be of no use: then a recording and the lines."""
    if options.frames or options.show:
        return options
    if options.record is not None or options.jsonl is not None or options.json is not None:
        return options
    check_output_directory(options.out, options.overwrite, replaces=False)
    return replace(
        options,
        record=options.out / f"{source.stem}.mp4",
        jsonl=options.out / f"{source.stem}.jsonl",
    )


def _labels(segmenter: Segmenter, teacher: Segmenter | None) -> Sequence[str]:
    return [f"{one.bundle.name} {one.precision}" for one in (segmenter, teacher) if one is not None]


def _say_delays(
    stability: StabilityOptions, threshold: float, reader: Reader
) -> dict[str, dict[str, float]]:
    delays = stability.delays(threshold, reader.fps)
    for name, ms in delays.items():
        info(
            f"--{name} adds {ms['appear_ms']:g} ms until a polyp appears and "
            f"{ms['disappear_ms']:g} ms until it disappears, at {reader.fps:g} frames a second"
        )
    return delays


def _judge_budget(budget: float, outcome: Outcome, live: bool) -> dict[str, Any]:
    frames, late = outcome.statistics.frames, outcome.statistics.late
    p99 = outcome.statistics.frame().get("p99")
    met = p99 is not None and p99 <= budget
    what = "from the frame in memory to its overlay" if live else "a frame, reading not counted"
    if p99 is not None and not met:
        info(
            f"warning: p99 {p99:.1f} ms ({what}) misses the budget of {budget:g} ms; "
            f"{late} of {frames} frames were late"
        )
    return {"ms": budget, "of": what, "p99": p99, "met": met, "late": late}


def _say_outcome(outcome: Outcome, record: dict[str, Any]) -> None:
    frames = outcome.statistics.frames
    rate = record["frames_per_second"] or 0.0
    line = f"{frames} frames in {outcome.seconds:.1f} s ({rate:.1f} a second)"
    if record["live"]:
        line += f", {outcome.dropped} dropped"
    if outcome.ended != "end":
        line += f", ended: {outcome.ended}"
    info(line)
    for kind, path in record["written"].items():
        info(f"{kind}: {path}")
