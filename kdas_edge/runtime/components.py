"""Connected components of a mask."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Component:
    """One connected region of a mask; pixels that touch at a corner belong together.

    Attributes:
        box: x, y, width, height in pixels of the frame.
        area: marked pixels.
        centroid: x, y, mean of the marked pixels' coordinates.
        probability: mean probability of the marked pixels, 0–1.
    """

    box: tuple[int, int, int, int]
    area: int
    centroid: tuple[float, float]
    probability: float


def find_components(
    mask: NDArray[np.bool_],
    probability: NDArray[np.float32],
    minimum_area: int = 1,
    origin: tuple[int, int] = (0, 0),
) -> tuple[Component, ...]:
    """Find the regions of a mask, the largest first.

    Args:
        mask: (H, W) bool.
        probability: (H, W) float32, at the size of the mask.
        minimum_area: smaller regions are left out, in pixels.
        origin: x, y of the mask's first pixel in the frame.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    if len(rows) == 0:
        return ()
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    # labelling takes time by the pixel: only the part that is marked
    top, left = int(rows[0]), int(columns[0])
    part = np.s_[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1]
    count, labels, statistics, centroids = cv2.connectedComponentsWithStats(
        mask[part].view(np.uint8), connectivity=8
    )
    found = []
    for label in range(1, count):  # 0 is the background
        x, y, width, height, area = (int(value) for value in statistics[label])
        if area < minimum_area:
            continue
        box = np.s_[y : y + height, x : x + width]
        marked = labels[box] == label
        dx, dy = left + origin[0], top + origin[1]
        found.append(
            Component(
                box=(x + dx, y + dy, width, height),
                area=area,
                centroid=(float(centroids[label][0]) + dx, float(centroids[label][1]) + dy),
                probability=float(probability[part][box][marked].mean(dtype=np.float64)),
            )
        )
    return tuple(sorted(found, key=lambda component: (-component.area, component.box)))
