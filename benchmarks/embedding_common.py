"""What the benchmarks of the embedded runtime share: 1080p frames, and limits as a table."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.bundle.reader import Bundle
from kdas_edge.console import info, table
from kdas_edge.image_files import read_image

HEIGHT, WIDTH = 1080, 1920


def frames_1080p(bundle: Bundle) -> list[NDArray[np.uint8]]:
    """The golden frames of the bundle, enlarged to (1080, 1920, 3) uint8 BGR."""
    images = [read_image(bundle.file(golden.frame)) for golden in bundle.manifest.golden]
    # noise marks nothing, and a mask without a polyp is made faster than one with
    return [
        np.ascontiguousarray(cv2.resize(rgb, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))[
            ..., ::-1
        ].copy()
        for rgb in images
    ]


def share_marked(masks: Sequence[NDArray[np.bool_]]) -> float:
    """Fraction of masks that hold a polyp; says aloud when there is none."""
    share = float(np.mean([mask.any() for mask in masks]))
    if share == 0:
        info("no frame has a polyp by this model: the time of the mask is that of an empty one")
    return share


def endlessly(items: Sequence[Any]) -> Iterator[Any]:
    """The items again and again."""
    return itertools.cycle(items)


@dataclass(frozen=True)
class Limit:
    """A figure and what it may be at most."""

    name: str
    value: float
    most: float
    unit: str

    @property
    def kept(self) -> bool:
        """Whether the figure is within its limit; one that is unknown is not."""
        return bool(self.value <= self.most)

    def as_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            # JSON has no word for what is unknown but null
            "value": round(self.value, 4) if np.isfinite(self.value) else None,
            "limit": self.most,
            "unit": self.unit,
            "kept": self.kept,
        }


def show_limits(limits: Sequence[Limit]) -> bool:
    """Print the limits as a table; True if all are kept."""
    table(
        "limits",
        ["what", "measured", "at most", "kept"],
        [
            [
                limit.name,
                f"{limit.value:.3f} {limit.unit}".rstrip(),
                f"{limit.most:g} {limit.unit}".rstrip(),
                "yes" if limit.kept else "NO",
            ]
            for limit in limits
        ],
    )
    return all(limit.kept for limit in limits)
