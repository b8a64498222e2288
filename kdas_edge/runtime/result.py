"""The result of one frame: mask, probability, connected components, durations."""

import functools
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kdas_edge.runtime.components import Component, find_components
from kdas_edge.runtime.frames import Roi
from kdas_edge.runtime.masks import probability_at_size


@dataclass(frozen=True, eq=False)
class Result:
    """The segmentation of one frame of height H and width W.

    Attributes:
        mask: (H, W) bool, True where polyp; False outside `region`.
        probability: (S, S) float32, 0–1, at the size of the network.
        threshold: the mask is where the probability, resized to the frame, is above this.
        milliseconds: duration of the stages `preprocess`, `inference` and `postprocess`. In a
            pipeline `inference` also has the time that the outcome lay ready.
        timestamps: `time.perf_counter()` in seconds when the frame was `received`, its input was
            `prepared`, the network had `inferred`, and the mask was `finished`.
        region: the part of the frame that was looked at, or None for all of it.
        model: which model on which target made the mask; changes when models are swapped.
    """

    mask: NDArray[np.bool_]
    probability: NDArray[np.float32]
    threshold: float
    milliseconds: dict[str, float]
    timestamps: dict[str, float] = field(default_factory=dict)
    region: Roi | None = None
    model: str = ""

    @functools.cached_property
    def components(self) -> tuple[Component, ...]:
        """The separate marked regions, the largest first; found when first asked for."""
        mask, origin = self.mask, (0, 0)
        if self.region is not None:
            mask, origin = mask[self.region.slices], (self.region.x, self.region.y)
        if not mask.any():
            return ()
        full = probability_at_size(self.probability, *mask.shape)
        return find_components(mask, full, origin=origin)

    @property
    def boxes(self) -> tuple[tuple[int, int, int, int], ...]:
        """x, y, width and height of each component in pixels of the frame, the largest first."""
        return tuple(component.box for component in self.components)

    @property
    def areas(self) -> tuple[int, ...]:
        """Marked pixels of each component, the largest first."""
        return tuple(component.area for component in self.components)
