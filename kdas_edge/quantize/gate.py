"""The gate: int8 may cost at most so much Dice on the validation split, or the command fails.

A mean can hide what matters: a network that loses every small polyp loses little mean Dice. So the
verdict is given by size of polyp as well, and by false alarms on frames without one.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdas_edge.metrics.bootstrap import interval, resampled
from kdas_edge.metrics.sizes import GROUPS, POLYP_FREE, members
from kdas_edge.quantize.attempts import Phase
from kdas_edge.quantize.evaluation import Evaluation

# a group is warned of when it loses twice what the mean may, but not for less than one hundredth
_WARN_FACTOR, _WARN_LEAST = 2.0, 0.01


@dataclass(frozen=True)
class Group:
    """The images of one size of polyp.

    Attributes:
        name: small, medium, large or polyp-free.
        what: the limits in words.
        images: how many.
        float_dice, int8_dice: means, 0…1.
        drop: mean Dice lost; negative where int8 gained.
        interval: 95 % bootstrap interval of `drop`, paired per image; no narrower than the group
            is large: of one image it is a point.
        float_alarms, int8_alarms: polyp-free frames on which something is marked; None for others.
    """

    name: str
    what: str
    images: int
    float_dice: float
    int8_dice: float
    drop: float
    interval: tuple[float, float]
    float_alarms: int | None = None
    int8_alarms: int | None = None


@dataclass(frozen=True)
class Gate:
    """The verdict on a quantised network (deploy protocol, validation split).

    Attributes:
        float_dice: mean Dice of the float student.
        ptq_dice: after post-training quantisation.
        qat_dice: after fine-tuning, None if there was none.
        mixed_dice: with some layers returned to float, None if that was not tried or found.
        kept: which of them is delivered: `ptq`, `qat` or `mixed`.
        drop: mean Dice lost by the one kept; negative where it gained.
        interval: 95 % bootstrap interval of `drop`, paired per image.
        max_drop: the limit.
        images: in the validation split.
        max_group_drop: the limit of each group, None if groups are only reported.
        groups: by size of polyp; those without an image are left out.
    """

    float_dice: float
    ptq_dice: float
    qat_dice: float | None
    mixed_dice: float | None
    kept: Phase
    drop: float
    interval: tuple[float, float]
    max_drop: float
    images: int
    max_group_drop: float | None
    groups: tuple[Group, ...]

    @property
    def passed(self) -> bool:
        """True if the mean loss, and that of each group where asked, is within its limit."""
        return self.drop <= self.max_drop and not self.failed_groups

    @property
    def failed_groups(self) -> list[str]:
        """The groups that lose more than `max_group_drop`."""
        limit = self.max_group_drop
        return [] if limit is None else [g.name for g in self.groups if g.drop > limit]

    def warnings(self) -> list[str]:
        """One line for each group that loses much more than the mean may."""
        limit = max(_WARN_FACTOR * self.max_drop, _WARN_LEAST)
        lines = []
        for group in self.groups:
            if group.drop <= limit:
                continue
            low, high = group.interval
            line = (
                f"warning: {group.name} ({group.what}) loses {group.drop:.4f} Dice on "
                f"{group.images} images (95 % interval {low:.4f} to {high:.4f}), the mean "
                f"{self.drop:.4f}; look at these frames before you ship"
            )
            lines.append(line)
        return lines

    def as_json(self) -> dict[str, Any]:
        """Return the fields and the verdict as plain values."""
        groups = [{**asdict(group), "interval": list(group.interval)} for group in self.groups]
        return {
            **asdict(self),
            "interval": list(self.interval),
            "groups": groups,
            "passed": self.passed,
            "failed_groups": self.failed_groups,
        }


def judge(
    reference: Evaluation,
    candidates: Mapping[Phase, Evaluation],
    fractions: NDArray[np.float64],
    max_drop: float,
    max_group_drop: float | None = None,
    seed: int = 0,
) -> Gate:
    """Choose among the quantised networks and compare the chosen one with the float student.

    One that passes comes before one that does not. Between two that both do or both do not, the
    higher Dice counts where the 95 % interval of their paired difference excludes 0; elsewhere the
    one whose masks agree more with the float student's is kept, and post-training quantisation
    where they agree as much: a few hundred validation images cannot tell a gain of a thousandth
    from luck, but every pixel tells which network still is the one that was trained.

    Args:
        reference: the float student.
        candidates: `ptq`, and `qat` and `mixed` where there are such; same images, same order.
        fractions: (N,) share of each frame that is polyp, 0…1.
        max_drop: largest mean Dice that may be lost, 0…1.
        max_group_drop: likewise of each group, or None.
        seed: of the bootstrap.
    """
    arguments = fractions, max_drop, max_group_drop, seed
    gates = {kept: _verdict(reference, candidates, kept, *arguments) for kept in candidates}
    best, *others = candidates
    for other in others:
        if gates[other].passed != gates[best].passed:
            better = gates[other].passed
        else:
            better = _is_better(candidates[other], candidates[best], reference, seed)
        best = other if better else best
    return gates[best]


def _is_better(one: Evaluation, other: Evaluation, reference: Evaluation, seed: int) -> bool:
    """By Dice where that is no luck, else by agreement with the float student; see `judge`."""
    low, high = paired_interval(one.dice - other.dice, seed)
    if low > 0 or high < 0:
        return low > 0
    return one.agreement(reference) > other.agreement(reference)


def paired_interval(lost: NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of paired differences (N,), whole images resampled."""
    return interval(lost[resampled(len(lost), seed)].mean(axis=1))


def group_table(
    reference: Evaluation,
    candidate: Evaluation,
    fractions: NDArray[np.float64],
    seed: int = 0,
) -> tuple[Group, ...]:
    """Compare two networks by size of polyp; see `Group`."""
    groups = []
    for name, chosen in members(fractions).items():
        before, after = reference.dice[chosen], candidate.dice[chosen]
        alarms = name == POLYP_FREE
        groups.append(
            Group(
                name=name,
                what=GROUPS[name],
                images=int(chosen.sum()),
                float_dice=float(before.mean()),
                int8_dice=float(after.mean()),
                drop=float((before - after).mean()),
                interval=paired_interval(before - after, seed),
                float_alarms=int(reference.marked[chosen].sum()) if alarms else None,
                int8_alarms=int(candidate.marked[chosen].sum()) if alarms else None,
            )
        )
    return tuple(groups)


def _verdict(
    reference: Evaluation,
    candidates: Mapping[Phase, Evaluation],
    kept: Phase,
    fractions: NDArray[np.float64],
    max_drop: float,
    max_group_drop: float | None,
    seed: int,
) -> Gate:
    lost = reference.dice - candidates[kept].dice
    means = {name: candidate.mean for name, candidate in candidates.items()}
    return Gate(
        float_dice=reference.mean,
        ptq_dice=means["ptq"],
        qat_dice=means.get("qat"),
        mixed_dice=means.get("mixed"),
        kept=kept,
        drop=float(lost.mean()),
        interval=paired_interval(lost, seed),
        max_drop=max_drop,
        images=len(lost),
        max_group_drop=max_group_drop,
        groups=group_table(reference, candidates[kept], fractions, seed),
    )
