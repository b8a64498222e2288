"""The gate: whether int8 keeps its loss of Dice within an allowance, on the validation split.

The allowance is a margin of non-inferiority. The gate passes where the 95 % interval of the paired
loss ends within it, fails where the interval begins above it, and is undecided in between: then the
images are too few to tell. On 145 images and an allowance of 0.005 that happened to 18 and 63 % of
drawn splits for two students that lose 0.001 Dice or less; with 0.01, the default, to 0.2 and 10 %
(`benchmarks/gate_undecided.py`).

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
from kdas_edge.quantize.attempts import Phase, Verdict
from kdas_edge.quantize.evaluation import Evaluation

# a group is warned of when it loses twice what the mean may, but not for less than one hundredth
_WARN_FACTOR, _WARN_LEAST = 2.0, 0.01
# the better comes later
_ORDER: tuple[Verdict, ...] = ("failed", "undecided", "passed")


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
        not_finite: images for which the float or the kept network gives NaN or infinity.
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
    not_finite: int = 0

    @property
    def verdict(self) -> Verdict:
        """The worst of the verdicts on the mean and, where `max_group_drop` is set, the groups.

        A value that is not finite is a failure whatever the means are.
        """
        if self.not_finite:
            return "failed"
        verdicts = [decide(self.interval, self.max_drop)]
        if self.max_group_drop is not None:
            verdicts += [decide(group.interval, self.max_group_drop) for group in self.groups]
        return min(verdicts, key=_ORDER.index)

    @property
    def passed(self) -> bool:
        """Whether the verdict is `passed`."""
        return self.verdict == "passed"

    @property
    def failed_groups(self) -> list[str]:
        """The groups whose interval begins above `max_group_drop`."""
        limit = self.max_group_drop
        if limit is None:
            return []
        return [g.name for g in self.groups if decide(g.interval, limit) == "failed"]

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
            "verdict": self.verdict,
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

    One with a better verdict comes first. Between two with the same, the higher Dice counts where
    the 95 % interval of their paired difference excludes 0; elsewhere the one whose masks agree
    more with the float student's is kept, and post-training quantisation where they agree as much:
    a few hundred validation images cannot distinguish a gain of a thousandth from chance, but
    every pixel shows how far a network is from the trained one.

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
        ranks = [_ORDER.index(gates[name].verdict) for name in (other, best)]
        if ranks[0] != ranks[1]:
            better = ranks[0] > ranks[1]
        else:
            better = _is_better(candidates[other], candidates[best], reference, seed)
        best = other if better else best
    return gates[best]


def decide(interval: tuple[float, float], limit: float) -> Verdict:
    """The verdict that the 95 % interval of a loss gives against an allowance."""
    low, high = interval
    if high <= limit:
        return "passed"
    return "failed" if low > limit else "undecided"


def _is_better(one: Evaluation, other: Evaluation, reference: Evaluation, seed: int) -> bool:
    """By Dice where the difference is significant, else by agreement with the float student."""
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
        not_finite=int((~(reference.finite & candidates[kept].finite)).sum()),
    )
