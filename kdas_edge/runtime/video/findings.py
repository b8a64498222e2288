"""What is said about one frame: regions, times, and one line of JSON."""

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.metrics.deploy import score_masks
from kdas_edge.runtime.video.readers import Frame


@dataclass(frozen=True)
class Region:
    """One connected marked region.

    Attributes:
        box: x, y, width, height in pixels of the frame.
        area: marked pixels.
    """

    box: tuple[int, int, int, int]
    area: int


def regions_of(mask: NDArray[np.bool_]) -> tuple[Region, ...]:
    """The 8-connected regions of a (H, W) mask, the largest first."""
    if not mask.any():
        return ()
    # labelling reads every pixel several times; a polyp is a small part of a frame
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    part = np.ascontiguousarray(mask[top : top + height, left : left + width]).view(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(part, connectivity=8)
    found = [
        Region((left + int(x), top + int(y), int(w), int(h)), int(area))
        for x, y, w, h, area in stats[1:count]
    ]
    return tuple(sorted(found, key=lambda region: (-region.area, region.box)))


@dataclass
class Finding:
    """One segmented frame on its way to the outputs.

    Attributes:
        frame: the frame.
        mask: (H, W) bool, as it is shown.
        regions: its regions.
        milliseconds: duration by stage; the outputs add theirs.
        dropped: frames that had been dropped when this one was done, from the beginning.
        reset: True if the stabiliser dropped its past at this frame.
        teacher_mask: (H, W) bool of the teacher, if there is one.
        teacher_ms: duration of the teacher.
        live: True if the frame came from a source that does not wait.
        latency_ms: from the frame in memory to its overlay, set by the outputs; of a file it is
            only how long the frame lay in a queue, and is not told.
    """

    frame: Frame
    mask: NDArray[np.bool_]
    regions: tuple[Region, ...]
    milliseconds: dict[str, float]
    dropped: int = 0
    reset: bool = False
    teacher_mask: NDArray[np.bool_] | None = None
    teacher_ms: float = 0.0
    live: bool = False
    latency_ms: float = field(default=0.0, init=False)

    def as_json(self) -> dict[str, Any]:
        """One object of a JSON-lines file; times in ms with three digits."""
        line: dict[str, Any] = {
            "index": self.frame.index,
            "seconds": round(self.frame.seconds, 4),
            "boxes": [list(region.box) for region in self.regions],
            "areas": [region.area for region in self.regions],
            "polyp_fraction": round(float(self.mask.mean()), 6),
            "milliseconds": {name: round(ms, 3) for name, ms in self.milliseconds.items()},
            "dropped": self.dropped,
        }
        if self.live:
            line["latency_ms"] = round(self.latency_ms, 3)
        if self.reset:
            line["reset"] = True
        if self.teacher_mask is not None:
            seen = regions_of(self.teacher_mask)
            line["teacher"] = {
                "boxes": [list(region.box) for region in seen],
                "areas": [region.area for region in seen],
                "milliseconds": round(self.teacher_ms, 3),
                "dice": round(float(score_masks(self.mask, self.teacher_mask)["Dice"] or 0.0), 4),
            }
        return line
