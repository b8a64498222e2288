"""Segmenting image files: a mask and an overlay for each, and what was measured."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kdas_edge.data.layout import list_images
from kdas_edge.errors import UserError
from kdas_edge.image_files import read_image
from kdas_edge.metrics.overlap import dice as dice_of
from kdas_edge.overlay import PREDICTION, SECOND_PREDICTION, Style, draw_mask, side_by_side
from kdas_edge.runtime.segmenter import Segmenter
from kdas_edge.video.outputs import write_png

FOLDERS = ("masks", "overlays")
STAGES = ("preprocess", "inference", "postprocess")


@dataclass(frozen=True)
class ImageRow:
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


def find_sources(source: Path) -> list[Path]:
    """The image files that `source` means: itself, or those directly in the folder.

    Raises:
        UserError: it does not exist, holds no image, or two images would have one result file.
    """
    if not source.is_dir():
        if not source.exists():
            raise UserError(f"{source} does not exist; name an image or a folder of images")
        return [source]
    files = list_images(source)
    stems: dict[str, Path] = {}
    for path in files:
        if path.stem in stems:
            raise UserError(
                f"{stems[path.stem].name!r} and {path.name!r} in {source} would both become "
                f"{path.stem}.png; rename one"
            )
        stems[path.stem] = path
    return files


def check_apart(source: Path, out: Path) -> None:
    """Refuse to write results where the images lie.

    Raises:
        UserError: `source` is, or lies in, one of the folders of results.
    """
    folder = (source if source.is_dir() else source.parent).resolve()
    if folder in [(out / name).resolve() for name in FOLDERS]:
        raise UserError(
            f"--out {out} would put results among the images of {source}; choose another folder"
        )


def segment_files(
    segmenter: Segmenter,
    files: Sequence[Path],
    out: Path,
    style: Style = "contour",
    teacher: Segmenter | None = None,
) -> Iterator[ImageRow]:
    """Segment each file and write `out/masks/<stem>.png` and `out/overlays/<stem>.png`.

    A mask is a grey PNG of the frame's size, 255 where polyp; with a teacher the overlay shows its
    mask beside the other. A file that cannot be read gives a row with an error, and the next one
    follows.

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
            yield ImageRow(path.name, error=str(error))
            continue
        result = segmenter.segment(image)
        mask = result.mask
        write_png(out / "masks" / f"{path.stem}.png", mask.astype(np.uint8) * np.uint8(255))
        picture = draw_mask(image, mask, PREDICTION[::-1], style)
        dice = None
        if teacher is not None:
            other = teacher.segment(image).mask
            dice = dice_of(mask, other)
            picture = side_by_side(
                [picture, draw_mask(image, other, SECOND_PREDICTION[::-1], style)],
                [f"{one.bundle.name} {one.precision}" for one in (segmenter, teacher)],
            )
        write_png(out / "overlays" / f"{path.stem}.png", picture)
        yield ImageRow(
            name=path.name,
            polyp_fraction=float(mask.mean()),
            components=len(result.components),
            boxes=list(result.boxes),
            areas=list(result.areas),
            milliseconds=result.milliseconds,
            teacher_dice=dice,
        )


def stage_percentiles(rows: Sequence[ImageRow]) -> dict[str, dict[str, float]]:
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
