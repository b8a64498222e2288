"""Small, medium and large polyps: the one definition that the gate and the benchmark share.

Mean Dice hides small polyps, which are missed most often in endoscopy and weigh least in a mean.
"""

import numpy as np
from numpy.typing import NDArray

# share of the frame that is polyp; a 3 % polyp is a disc of a fifth of the frame's side
SMALL, LARGE = 0.03, 0.10
POLYP_FREE = "polyp-free"
# name -> what it means, in the order of tables
GROUPS: dict[str, str] = {
    "small": f"below {SMALL:.0%} of the frame",
    "medium": f"{SMALL:.0%} to {LARGE:.0%}",
    "large": f"above {LARGE:.0%}",
    POLYP_FREE: "no polyp",
}


def size_group(fraction: float) -> str:
    """The group of a frame.

    Args:
        fraction: share of the frame that is polyp, 0…1.
    """
    if fraction == 0:
        return POLYP_FREE
    if fraction < SMALL:
        return "small"
    return "medium" if fraction <= LARGE else "large"


def members(fractions: NDArray[np.float64]) -> dict[str, NDArray[np.bool_]]:
    """For each group that has a frame, which of the (N,) frames belong to it, (N,) bool."""
    names = np.array([size_group(float(fraction)) for fraction in fractions], dtype=object)
    found = {name: np.asarray(names == name, dtype=np.bool_) for name in GROUPS}
    return {name: chosen for name, chosen in found.items() if chosen.any()}
