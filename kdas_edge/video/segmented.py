"""One segmented frame: mask, components, times, and its line of JSON."""

from dataclasses import dataclass, field
from typing import Any

from kdas_edge.metrics.overlap import dice as dice_of
from kdas_edge.runtime.result import Result
from kdas_edge.video.readers import Frame


@dataclass
class SegmentedFrame:
    """A frame with its result, from the segmenter to the outputs.

    Attributes:
        frame: the frame.
        result: its mask as it is shown, and the components of that.
        milliseconds: duration by stage; the outputs add theirs.
        dropped: frames that had been dropped when this one was done, from the beginning.
        reset: True if the stabiliser dropped its past at this frame.
        teacher: result of the teacher, or None.
        live: True if the frame came from a source that does not wait.
        latency_ms: from the frame in memory to its overlay, set by the outputs; of a file it is
            only how long the frame lay in a queue, and is not written.
    """

    frame: Frame
    result: Result
    milliseconds: dict[str, float]
    dropped: int = 0
    reset: bool = False
    teacher: Result | None = None
    live: bool = False
    latency_ms: float = field(default=0.0, init=False)

    def as_json(self) -> dict[str, Any]:
        """One object of a JSON-lines file; times in ms with three digits."""
        line: dict[str, Any] = {
            "index": self.frame.index,
            "seconds": round(self.frame.seconds, 4),
            "boxes": [list(box) for box in self.result.boxes],
            "areas": list(self.result.areas),
            "polyp_fraction": round(float(self.result.mask.mean()), 6),
            "milliseconds": {name: round(ms, 3) for name, ms in self.milliseconds.items()},
            "dropped": self.dropped,
        }
        if self.live:
            line["latency_ms"] = round(self.latency_ms, 3)
        if self.reset:
            line["reset"] = True
        if self.teacher is not None:
            dice = dice_of(self.result.mask, self.teacher.mask)
            line["teacher"] = {
                "boxes": [list(box) for box in self.teacher.boxes],
                "areas": list(self.teacher.areas),
                "milliseconds": round(sum(self.teacher.milliseconds.values()), 3),
                "dice": round(float(dice or 0.0), 4),
            }
        return line
