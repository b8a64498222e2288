"""The gate: int8 may cost at most so much Dice on the validation split, or the command fails."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 2000


@dataclass(frozen=True)
class Gate:
    """The verdict on a quantised network (deploy protocol, validation split).

    Attributes:
        float_dice: mean Dice of the float student.
        ptq_dice: after post-training quantisation.
        qat_dice: after fine-tuning, None if there was none.
        kept: which of the two is delivered: `ptq` or `qat`.
        drop: mean Dice lost by the one kept; negative where it gained.
        interval: 95 % bootstrap interval of `drop`, paired per image.
        max_drop: the limit.
        images: in the validation split.
    """

    float_dice: float
    ptq_dice: float
    qat_dice: float | None
    kept: str
    drop: float
    interval: tuple[float, float]
    max_drop: float
    images: int

    @property
    def passed(self) -> bool:
        """True if the mean loss is within the limit."""
        return self.drop <= self.max_drop

    def as_json(self) -> dict[str, Any]:
        """Return the fields and the verdict as plain values."""
        return {**asdict(self), "interval": list(self.interval), "passed": self.passed}


def judge(
    float_scores: NDArray[np.float64],
    ptq_scores: NDArray[np.float64],
    qat_scores: NDArray[np.float64] | None,
    max_drop: float,
    seed: int = 0,
) -> Gate:
    """Keep the better of the two quantised networks and compare it with the float student.

    Args:
        float_scores: Dice per validation image, (N,).
        ptq_scores: likewise, same images in the same order.
        qat_scores: likewise, or None without fine-tuning. Post-training quantisation is kept when
            it is as good: it has seen no gradient that could overfit.
        max_drop: largest mean Dice that may be lost, 0…1.
        seed: of the bootstrap.
    """
    kept, scores = "ptq", ptq_scores
    if qat_scores is not None and qat_scores.mean() > ptq_scores.mean():
        kept, scores = "qat", qat_scores
    lost = float_scores - scores
    drawn = np.random.default_rng(seed).integers(0, len(lost), (_RESAMPLES, len(lost)))
    low, high = np.quantile(lost[drawn].mean(1), [0.025, 0.975])
    return Gate(
        float_dice=float(float_scores.mean()),
        ptq_dice=float(ptq_scores.mean()),
        qat_dice=None if qat_scores is None else float(qat_scores.mean()),
        kept=kept,
        drop=float(lost.mean()),
        interval=(float(low), float(high)),
        max_drop=max_drop,
        images=len(lost),
    )
