"""Segmenting image files: a mask and an overlay for each, and what was measured."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.data.layout import list_images, read_image
from kdas_edge.errors import UserError
from kdas_edge.files import write_bytes_atomic
from kdas_edge.overlay import draw_contours
from kdas_edge.runtime.segmenter import Segmenter

STAGES = ("preprocess", "inference", "postprocess")


@dataclass(frozen=True)
class ImageRow:
    """What was found in one image.

    Attributes:
        name: file name of the image.
        polyp_fraction: share of the frame's pixels marked as polyp, 0–1.
        components: number of separate marked regions.
        milliseconds: duration per stage; reading and writing files are not in it.
        error: why the image could not be segmented, or None.
    """

    name: str
    polyp_fraction: float = 0.0
    components: int = 0
    milliseconds: dict[str, float] = field(default_factory=dict)
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


def segment_files(segmenter: Segmenter, files: Sequence[Path], out: Path) -> Iterator[ImageRow]:
    """Segment each file and write `out/masks/<stem>.png` and `out/overlays/<stem>.png`.

    A mask is a grey PNG of the frame's size, 255 where polyp. A file that cannot be read gives a
    row with an error, and the next one follows.

    Raises:
        UserError: `out` cannot be written.
    """
    side = segmenter.bundle.manifest.size
    # the first inference allocates memory; it would be the p99 of a short series
    segmenter.segment(np.zeros((side, side, 3), dtype=np.uint8))
    for path in files:
        try:
            image = read_image(path)
        except UserError as error:
            yield ImageRow(path.name, error=str(error))
            continue
        result = segmenter.segment(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))  # type: ignore[arg-type]
        mask = result.mask.astype(np.uint8)
        _write_png(out / "masks" / f"{path.stem}.png", mask * 255)
        drawn = draw_contours(image, result.mask)
        _write_png(
            out / "overlays" / f"{path.stem}.png",
            cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR),  # type: ignore[arg-type]
        )
        yield ImageRow(
            name=path.name,
            polyp_fraction=float(result.mask.mean()),
            components=cv2.connectedComponents(mask)[0] - 1,  # label 0 is the background
            milliseconds=result.milliseconds,
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


def _write_png(path: Path, image: NDArray[np.uint8]) -> None:
    encoded, content = cv2.imencode(".png", image)
    if not encoded:
        raise UserError(f"cannot encode {path} as PNG")
    write_bytes_atomic(path, content.tobytes())
