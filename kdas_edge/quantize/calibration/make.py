"""Calibration sets from training images, folders and videos, as `calibrate` makes them.

DIR/ has
  manifest.json   which frames, why these, their hashes and features, what was left out
  frames/         copies of the chosen images; the frames of videos as PNG
  overview.jpg    all of them from dark to bright
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdas_edge.console import info
from kdas_edge.data.duplicates import NEAR_DUPLICATE
from kdas_edge.data.features import LARGE_ABOVE, MEANING, SMALL_BELOW, STRATA, stratum
from kdas_edge.data.frames import MOST_PER_VIDEO, STRIDE, FrameSource, find_sources
from kdas_edge.data.heldout import HeldOut, has_tests, read_test_images
from kdas_edge.errors import UserError
from kdas_edge.files import (
    check_output_directory,
    real_path,
    sha256,
    staged_directory,
    write_json,
)
from kdas_edge.quantize.calibration.candidates import Candidate, LeftOut, choose, gather, screen
from kdas_edge.quantize.calibration.coverage import compare_with_random
from kdas_edge.quantize.calibration.manifest import (
    MANIFEST,
    SCHEMA,
    CalibrationManifest,
    FrameRecord,
    LeftOutRecord,
    SourceRecord,
)
from kdas_edge.quantize.calibration.presence import predict_share
from kdas_edge.quantize.calibration.selection import LEAST_SHARE, METHODS, Method
from kdas_edge.quantize.calibration.set_writer import path_of, record, write_frames

COUNT = 300


@dataclass(frozen=True)
class Request:
    """Options of a calibration set.

    Attributes:
        sources: folders of images, data roots in the PraNet layout, video files.
        count: frames wanted.
        seed: of the choice.
        method: see `selection.select`.
        data: a data root whose test images must not be among the frames; the data roots among the
            sources are compared with anyway.
        student: a run or checkpoint that finds the polyps of frames without mask.
        exclude_test: leave out frames that show a test image instead of refusing them.
        stride: of video frames.
        most_per_video: largest number of candidates from one video.
    """

    sources: tuple[Path, ...]
    count: int = COUNT
    seed: int = 0
    method: str = "kcenter"
    data: Path | None = None
    student: Path | None = None
    exclude_test: bool = False
    stride: int = STRIDE
    most_per_video: int = MOST_PER_VIDEO


def make_calibration_set(
    request: Request, out: Path, manifest_only: bool = False, overwrite: bool = False
) -> CalibrationManifest:
    """Choose frames and write them.

    Args:
        request: which, from where, how many.
        out: the folder to make; with `manifest_only` the JSON file.
        manifest_only: write no frames; possible where all are training images of a data root.
        overwrite: replace what exists.

    Raises:
        UserError: wrong arguments, no frames, unreadable ones, test images among them, or `out`
            exists. Nothing is written then.
    """
    method = _check(request, out, manifest_only, overwrite)
    sources = [source for path in request.sources for source in find_sources(path)]
    if manifest_only and any(source.kind != "training" for source in sources):
        raise UserError(
            "--manifest-only needs data roots in the PraNet layout as sources: other frames are "
            "not found again by a path; leave it out"
        )
    predict = None if request.student is None else predict_share(request.student)
    tests = _test_images(request, sources)
    candidates, strides = gather(sources, request.stride, request.most_per_video, predict)
    left_out = screen([one.name for one in candidates], [one.look for one in candidates], tests)
    if not request.exclude_test:
        refuse_test_images(candidates, sources, left_out)
    if len(tests) == 0:
        info("not compared with test images: none are known; --data DATA names the data root")
    _say_what_was_left_out(left_out)
    eligible = [one for index, one in enumerate(candidates) if index not in left_out]
    if not eligible:
        raise UserError(
            f"all {len(candidates)} frames show test images; name frames of other recordings"
        )
    if len(eligible) < request.count:
        info(f"{len(eligible)} frames are fewer than --count {request.count}: all are used")
    if all(one.look.polyp is None for one in eligible):
        info(
            "no masks: polyp sizes are unknown and not part of the choice; --student RUN finds them"
        )
    looks = [one.look for one in eligible]
    indices = choose(looks, request.count, method, request.seed)
    shares = {
        "requested": request.count,
        "counts": _counts(candidates, eligible, indices, left_out),
        "test_images_compared": len(tests),
        "left_out": [
            LeftOutRecord(
                name=candidates[index].name,
                source=candidates[index].source,
                path=path_of(candidates[index], sources),
                video_frame=candidates[index].video_frame,
                reason=reason.reason,
            )
            for index, reason in left_out.items()
        ],
        "sources": [
            SourceRecord(
                kind=source.kind,
                name=source.name,
                candidates=sum(one.source == number for one in candidates),
                stride=stride,
            )
            for number, (source, stride) in enumerate(zip(sources, strides, strict=True))
        ],
        **compare_with_random(looks, indices, request.seed),
    }

    def manifest(frames: list[FrameRecord]) -> CalibrationManifest:
        return CalibrationManifest(
            schema=SCHEMA,
            method=method,
            seed=request.seed,
            rules={
                "least_share": LEAST_SHARE,
                "near_duplicate": NEAR_DUPLICATE,
                "small_below": SMALL_BELOW,
                "large_above": LARGE_ABOVE,
            },
            features=MEANING,
            student=None if request.student is None else real_path(request.student).name,
            frames=frames,
            **shares,
        )

    chosen = [eligible[index] for index in indices]
    if manifest_only:
        written = manifest([record(one, None, sha256(one.file), sources) for one in chosen])
        write_json(out, written.as_json())
        return written
    with staged_directory(out, overwrite) as staging:
        written = manifest(write_frames(chosen, sources, staging))
        write_json(staging / MANIFEST, written.as_json())
    return written


def refuse_test_images(
    candidates: Sequence[Candidate], sources: Sequence[FrameSource], left_out: dict[int, LeftOut]
) -> None:
    """Refuse recordings that hold a test image; training sets are known to, and are screened.

    Raises:
        UserError: naming the first such frame and what it shows.
    """
    shown = [
        index
        for index, one in left_out.items()
        if one.held_out and sources[candidates[index].source].kind != "training"
    ]
    if not shown:
        return
    first = candidates[shown[0]]
    frame = "" if first.video_frame is None else f", frame {first.video_frame},"
    more = f" (and {len(shown) - 1} more frames)" if len(shown) > 1 else ""
    raise UserError(
        f"{first.file}{frame} is {left_out[shown[0]].reason}, a test image{more}; leave such "
        "frames out with `kdas-edge calibrate … --exclude-test`"
    )


def _check(request: Request, out: Path, manifest_only: bool, overwrite: bool) -> Method:
    """Find what can be known to be wrong before anything is read."""
    for name, value in (
        ("--count", request.count),
        ("--stride", request.stride),
        ("--most-per-video", request.most_per_video),
    ):
        if value < 1:
            raise UserError(f"{name} {value} is below 1; give a whole number from 1")
    if request.seed < 0:
        raise UserError(f"--seed {request.seed} is below 0; give a whole number from 0")
    known = {method: method for method in METHODS}
    if request.method not in known:
        raise UserError(f"--method {request.method!r} is unknown; choose {', '.join(METHODS)}")
    if manifest_only:
        if out.suffix != ".json" or out.is_dir():
            raise UserError(f"--manifest-only writes one file: {out} does not end in .json")
        if out.exists() and not overwrite:
            raise UserError(f"{out} exists; add --overwrite or choose another file")
    else:
        check_output_directory(out, overwrite)
    return known[request.method]


def _test_images(request: Request, sources: Sequence[FrameSource]) -> HeldOut:
    roots = {} if request.data is None else {real_path(request.data): request.data}
    for source in sources:
        if source.kind == "training" and has_tests(source.path):
            roots.setdefault(real_path(source.path), source.path)
    tests = HeldOut()
    for root in roots.values():
        tests = tests + read_test_images(root)
    return tests


def _say_what_was_left_out(left_out: dict[int, LeftOut]) -> None:
    held_out = sum(one.held_out for one in left_out.values())
    if held_out:
        info(f"{held_out} frames show a test image or nearly so: left out")
    if len(left_out) > held_out:
        info(f"{len(left_out) - held_out} frames repeat another: left out")


def _counts(
    candidates: Sequence[Candidate],
    eligible: Sequence[Candidate],
    indices: Sequence[int],
    left_out: dict[int, LeftOut],
) -> dict[str, int]:
    chosen = Counter(stratum(eligible[index].look.polyp) for index in indices)
    held_out = sum(one.held_out for one in left_out.values())
    return {
        "candidates": len(candidates),
        "left out: shows a test image": held_out,
        "left out: repeats another": len(left_out) - held_out,
        "chosen": len(indices),
        **{f"chosen: {name}": chosen[name] for name in STRATA if chosen[name]},
    }
