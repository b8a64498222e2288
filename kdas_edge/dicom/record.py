"""What was found in a stored picture: a record without patient data, and the cells of a table."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from kdas_edge.table import Cell, count, number

Status = Literal["done", "incomplete", "FAILED", "skipped"]


@dataclass
class PictureRecord:
    """What was found in one file.

    Attributes:
        number: position of the file among all, from 1; a record names it by this and by UIDs.
        status: `done`; `incomplete`: frames are missing or damaged, those before are segmented;
            `FAILED`; `skipped`: a DICOM object of another kind, found in a folder.
        source: UIDs of the picture.
        frames: frames that were segmented.
        undecodable: frames that could not be decoded, so that nothing is known of them.
        finding: whether any pixel was marked; None where nothing was segmented.
        marked: per frame with a finding its number (from 1), share of polyp pixels (0–1) and number
            of separate regions.
        segmentations: per file written its name, UIDs, kind and the source frames that it holds.
        masks: PNG files written instead, where no segmentation is possible.
        left_empty: attributes of patient and study that the segmentation has without a value, since
            the picture's is not allowed by the standard.
        note: why there is no segmentation, or None.
        error: what is wrong, or None.
        milliseconds: per stage the duration of every frame; decoding and writing are not in it.
    """

    number: int
    status: Status = "done"
    source: dict[str, str | None] = field(default_factory=dict)
    frames: int = 0
    undecodable: int = 0
    finding: bool | None = None
    marked: list[dict[str, float]] = field(default_factory=list)
    segmentations: list[dict[str, Any]] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)
    left_empty: list[str] = field(default_factory=list)
    note: str | None = None
    error: str | None = None
    milliseconds: dict[str, list[float]] = field(default_factory=dict, repr=False)

    def as_json(self) -> dict[str, Any]:
        """A JSON object; of the durations only the median of each stage."""
        record = asdict(self)
        record["milliseconds"] = {
            stage: float(np.median(values)) for stage, values in self.milliseconds.items()
        }
        return record

    def cells(self) -> list[Cell]:
        """What a table shows: frames, those with polyp, largest share in %, ms, files written."""
        if self.status in ("FAILED", "skipped"):
            return [*4 * [Cell("")], Cell(f"{self.status}: {self.error}")]
        largest = max((100 * found["polyp_fraction"] for found in self.marked), default=0.0)
        duration = sum(float(np.median(values)) for values in self.milliseconds.values())
        done = [str(written["kind"]) for written in self.segmentations]
        if self.masks:
            done.append(f"{len(self.masks)} PNG")
        written = ", ".join(done) or "record: no finding"
        if self.error is not None:
            written += f"; INCOMPLETE: {self.error}"
        return [
            count(self.frames),
            count(len(self.marked)),
            number(largest),
            number(duration, 1),
            Cell(written),
        ]
