"""How long things took, in bounded memory: a camera may run for weeks."""

from collections.abc import Mapping

import numpy as np

# about an hour of video; percentiles are those of the newest samples
CAPACITY = 100_000
PERCENTILES = (50, 90, 99)


class Series:
    """The newest samples of one duration.

    Attributes:
        count: samples ever added.
        max: the largest of them.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.count = 0
        self.max = 0.0
        self._samples = np.empty(capacity, dtype=np.float32)

    def add(self, value: float) -> None:
        """Add a sample; the oldest gives way."""
        self._samples[self.count % len(self._samples)] = value
        self.count += 1
        self.max = max(self.max, value)

    def summary(self) -> dict[str, float]:
        """p50, p90 and p99 of the newest samples, and the largest of all; `{}` without any."""
        if not self.count:
            return {}
        kept = self._samples[: self.count]
        values = {f"p{p}": round(float(np.percentile(kept, p)), 3) for p in PERCENTILES}
        return {**values, "max": round(self.max, 3)}


class Statistics:
    """Durations by stage, and how often the budget was missed.

    Attributes:
        late: frames that took longer than the budget.
    """

    def __init__(self, budget_ms: float | None = None) -> None:
        self.late = 0
        self._budget = budget_ms
        self._stages: dict[str, Series] = {}
        self._frame = Series()
        self._latency = Series()

    def add(
        self, milliseconds: Mapping[str, float], frame_ms: float, latency_ms: float | None = None
    ) -> None:
        """Add one frame.

        Args:
            milliseconds: by stage.
            frame_ms: what counts against the budget.
            latency_ms: from the frame in memory to its overlay, where the source is live.
        """
        for stage, value in milliseconds.items():
            self._stages.setdefault(stage, Series()).add(value)
        self._frame.add(frame_ms)
        if latency_ms is not None:
            self._latency.add(latency_ms)
        if self._budget is not None and frame_ms > self._budget:
            self.late += 1

    @property
    def frames(self) -> int:
        """Frames added."""
        return self._frame.count

    def stages(self) -> dict[str, dict[str, float]]:
        """Percentiles in ms of each stage."""
        return {stage: series.summary() for stage, series in self._stages.items()}

    def frame(self) -> dict[str, float]:
        """Percentiles in ms of what counts against the budget."""
        return self._frame.summary()

    def latency(self) -> dict[str, float]:
        """Percentiles in ms from the frame in memory to its overlay; `{}` of a file."""
        return self._latency.summary()
