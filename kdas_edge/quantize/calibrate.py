"""Making a calibration set from training images, folders and videos: what `calibrate` does.

DIR/ has
  manifest.json   which frames, why these, their hashes and features, what was left out
  frames/         copies of the chosen images; the frames of videos as PNG
  overview.jpg    all of them from dark to bright
"""

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from kdas_edge.console import info, progress
from kdas_edge.data.duplicates import NEAR_DUPLICATE
from kdas_edge.data.features import FEATURES, LARGE_ABOVE, MEANING, SMALL_BELOW, STRATA, stratum
from kdas_edge.data.frames import MOST_PER_VIDEO, STRIDE, Source, find_sources, read_video_frames
from kdas_edge.data.heldout import HeldOut, has_tests, read_test_images
from kdas_edge.data.layout import read_image, resize_image
from kdas_edge.distill.engine import normalise
from kdas_edge.errors import UserError
from kdas_edge.files import (
    check_output_directory,
    sha256,
    staged_directory,
    write_bytes_atomic,
    write_json,
)
from kdas_edge.models.checkpoints import load_network
from kdas_edge.quantize.candidates import Candidate, LeftOut, PredictShare, choose, gather, screen
from kdas_edge.quantize.coverage import compare_with_random
from kdas_edge.quantize.manifest import (
    FRAMES,
    MANIFEST,
    SCHEMA,
    FrameRecord,
    LeftOutRecord,
    Manifest,
    SourceRecord,
)
from kdas_edge.quantize.overview import contact_sheet, tile
from kdas_edge.quantize.selection import LEAST_SHARE, METHODS, Method

OVERVIEW = "overview.jpg"
COUNT = 300


@dataclass(frozen=True)
class Request:
    """What a person asks for.

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
) -> Manifest:
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
                path=_path_of(candidates[index], sources),
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

    def manifest(frames: list[FrameRecord]) -> Manifest:
        return Manifest(
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
            student=None if request.student is None else request.student.resolve().name,
            frames=frames,
            **shares,
        )

    chosen = [eligible[index] for index in indices]
    if manifest_only:
        written = manifest([_record(one, None, sha256(one.file), sources) for one in chosen])
        write_json(out, written.as_json())
        return written
    with staged_directory(out, overwrite) as staging:
        (staging / FRAMES).mkdir()
        frames, tiles = [], []
        with progress(len(chosen), "writing frames") as advance:
            for one, name, digest, image in _copies(chosen, staging / FRAMES):
                frames.append(_record(one, f"{FRAMES}/{name}", digest, sources))
                tiles.append((one.look.appearance[0], tile(image, one.look.polyp)))
                advance()
        tiles.sort(key=lambda pair: pair[0])
        write_bytes_atomic(staging / OVERVIEW, contact_sheet(picture for _, picture in tiles))
        written = manifest(frames)
        write_json(staging / MANIFEST, written.as_json())
    return written


def predict_share(run: Path) -> PredictShare:
    """Return a function that lets a float network find the polyps of a frame.

    Args:
        run: a run or checkpoint; polyp is where σ(z₁ + z₂) is above 0.5.

    Raises:
        UserError: see `load_network`.
    """
    network, architecture = load_network(run)
    size = architecture.size

    @torch.inference_mode()
    def predict(image: NDArray[np.uint8]) -> float:
        small = np.ascontiguousarray(resize_image(image, size, size).transpose(2, 0, 1))
        z1, z2 = network(normalise(torch.from_numpy(small)[None].float() / 255, architecture))
        return round(float((torch.sigmoid(z1 + z2) > 0.5).float().mean()), 6)

    return predict


def refuse_test_images(
    candidates: Sequence[Candidate], sources: Sequence[Source], left_out: dict[int, LeftOut]
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


def _test_images(request: Request, sources: Sequence[Source]) -> HeldOut:
    roots = {} if request.data is None else {request.data.resolve(): request.data}
    for source in sources:
        if source.kind == "training" and has_tests(source.path):
            roots.setdefault(source.path.resolve(), source.path)
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


def _path_of(candidate: Candidate, sources: Sequence[Source]) -> str:
    return sources[candidate.source].relative(candidate.file)


def _record(
    candidate: Candidate, file: str | None, digest: str, sources: Sequence[Source]
) -> FrameRecord:
    look = candidate.look
    masked = any(
        pair.image == candidate.file and pair.mask is not None
        for pair in sources[candidate.source].pairs
    )
    return FrameRecord(
        name=candidate.name,
        file=file,
        sha256=digest,
        pixels=look.digest,
        source=candidate.source,
        path=_path_of(candidate, sources),
        video_frame=candidate.video_frame,
        features={**dict(zip(FEATURES[:-1], look.appearance, strict=True)), "polyp": look.polyp},
        polyp_from=None if look.polyp is None else "mask" if masked else "student",
    )


def _copies(
    chosen: Sequence[Candidate], folder: Path
) -> Iterator[tuple[Candidate, str, str, NDArray[np.uint8]]]:
    """Copy the chosen frames into a folder; yields each with its file name, hash and pixels."""
    videos: dict[Path, Iterator[tuple[int, NDArray[np.uint8]]]] = {}
    for number, one in enumerate(chosen):
        name = f"{number:04d}_{one.name}"
        if one.video_frame is None:
            name += one.file.suffix.lower()
            shutil.copyfile(one.file, folder / name)
            image = read_image(folder / name)
        else:
            if one.file not in videos:
                wanted = [c.video_frame for c in chosen if c.file == one.file]
                videos[one.file] = read_video_frames(one.file, [n for n in wanted if n is not None])
            _, image = next(videos[one.file])
            name += ".png"
            _, encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            (folder / name).write_bytes(encoded.tobytes())
        yield one, name, hashlib.sha256((folder / name).read_bytes()).hexdigest(), image
