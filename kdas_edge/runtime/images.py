"""Segmenting image files: a mask and an overlay for each, and what was measured."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kdas_edge.data.layout import list_images
from kdas_edge.errors import UserError
from kdas_edge.image_files import read_image, write_png
from kdas_edge.metrics.overlap import dice as dice_of
from kdas_edge.overlay import PREDICTION, SECOND_PREDICTION, Style, draw_mask, side_by_side
from kdas_edge.runtime.segmenter import Segmenter

STAGES = ("preprocess", "inference", "postprocess")


@dataclass(frozen=True)
class ImageResult:
    """What was found in one image.

    Attributes:
        name: file name of the image.
        polyp_fraction: share of the frame's pixels marked as polyp, 0–1.
        components: number of separate marked regions.
        boxes: x, y, width, height of each in pixels, the largest region first.
        areas: their marked pixels.
        milliseconds: duration per stage; reading and writing files are not in it.
        teacher_dice: Dice of the mask with the teacher's, where there is a teacher.
        error: why the image could not be segmented, or None.
    """

    name: str
    polyp_fraction: float = 0.0
    components: int = 0
    boxes: list[tuple[int, int, int, int]] = field(default_factory=list)
    areas: list[int] = field(default_factory=list)
    milliseconds: dict[str, float] = field(default_factory=dict)
    teacher_dice: float | None = None
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """A JSON object with all attributes."""
        return asdict(self)


@dataclass(frozen=True)
class ImageOptions:
    """What is written about images.

    Attributes:
        out: folder of `masks/` and `overlays/`.
        overwrite: write into a folder that is not empty, replace files that exist.
        jsonl: file with one line of JSON per image; None: none.
        json: file with all figures; None: none.
        style: of the overlays.
    """

    out: Path
    overwrite: bool = False
    jsonl: Path | None = None
    json: Path | None = None
    style: Style = "contour"


@dataclass(frozen=True)
class FoundImages:
    """The images that a path means.

    Attributes:
        files: the images, sorted by name.
        results: by image the stem of its result files: its own, or its whole name where another
            image has the same stem.
        skipped: names of what else lies in the folder.
    """

    files: list[Path]
    results: dict[Path, str]
    skipped: list[str]


def find_images(source: Path) -> FoundImages:
    """The image file that `source` is, or those directly in the folder.

    Raises:
        UserError: it does not exist, or holds no image.
    """
    if not source.is_dir():
        if not source.exists():
            raise UserError(f"{source} does not exist; name an image or a folder of images")
        return FoundImages([source], {source: source.stem}, [])
    try:
        files = list_images(source)
    except UserError:
        folders = sorted(f"{path.name}/" for path in source.iterdir() if path.is_dir())
        if not folders:
            raise
        raise UserError(
            f"{source} holds no image itself; name one of its folders: {', '.join(folders[:8])}"
        ) from None
    stems = Counter(path.stem for path in files)
    results = {path: path.stem if stems[path.stem] == 1 else path.name for path in files}
    others = set(source.iterdir()) - set(files)
    skipped = [path.name + "/" * path.is_dir() for path in others if path.name[0] != "."]
    return FoundImages(files, results, sorted(skipped))


def segment_files(
    segmenter: Segmenter,
    files: Sequence[Path],
    out: Path,
    style: Style = "contour",
    teacher: Segmenter | None = None,
    results: Mapping[Path, str] | None = None,
) -> Iterator[ImageResult]:
    """Segment each file and write `out/masks/<stem>.png` and `out/overlays/<stem>.png`.

    A mask is a grey PNG of the frame's size, 255 where polyp; with a teacher the overlay shows its
    mask beside the other. A file that cannot be read gives a row with an error, and the next one
    follows.

    Args:
        segmenter: the model.
        files: image files.
        out: folder of the results.
        style: of the overlays.
        teacher: a second model, or None.
        results: another stem of the result files, by image; see `find_images`.

    Raises:
        UserError: `out` cannot be written.
    """
    side = segmenter.bundle.manifest.size
    # the first inference allocates memory; it would be the p99 of a short series
    segmenter.warm_up(side, side)
    for path in files:
        try:
            image = np.ascontiguousarray(read_image(path)[..., ::-1])
        except UserError as error:
            yield ImageResult(path.name, error=str(error))
            continue
        for one in (segmenter, teacher):
            if one is not None:
                one.forget_region()  # each image is a source of its own
        result = segmenter.segment(image)
        mask, name = result.mask, f"{(results or {}).get(path, path.stem)}.png"
        write_png(out / "masks" / name, mask.astype(np.uint8) * np.uint8(255))
        picture = draw_mask(image, mask, PREDICTION[::-1], style)
        dice = None
        if teacher is not None:
            other = teacher.segment(image).mask
            dice = dice_of(mask, other)
            picture = side_by_side(
                [picture, draw_mask(image, other, SECOND_PREDICTION[::-1], style)],
                [f"{one.bundle.name} {one.precision}" for one in (segmenter, teacher)],
            )
        write_png(out / "overlays" / name, picture)
        yield ImageResult(
            name=path.name,
            polyp_fraction=float(mask.mean()),
            components=len(result.components),
            boxes=list(result.boxes),
            areas=list(result.areas),
            milliseconds=result.milliseconds,
            teacher_dice=dice,
        )


def stage_percentiles(rows: Sequence[ImageResult]) -> dict[str, dict[str, float]]:
    """p50, p90 and p99 in ms of each stage and of `total`, over the rows without an error.

    Returns:
        `{}` if there is no such row.
    """
    good = [row.milliseconds for row in rows if row.error is None]
    if not good:
        return {}
    series = {stage: [times[stage] for times in good] for stage in STAGES}
    series["total"] = [sum(times.values()) for times in good]
    return {
        stage: {f"p{p}": float(np.percentile(values, p)) for p in (50, 90, 99)}
        for stage, values in series.items()
    }
