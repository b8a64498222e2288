"""The loss variants, a table: name → terms of the teacher, what they compare, and the weights.

L = teacher_weight · (the teacher's terms) + segmentation_weight · L_seg, equation 8 of the paper.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kdas_edge.distill.features import decoder_inputs_loss, pairwise_loss
from kdas_edge.distill.kdas import (
    attention_loss,
    released_kl,
    released_symmetric_term,
    softened_kl,
    symmetric_guided_map_loss,
)
from kdas_edge.distill.losses import bce_dice, border_weight, full_precision, structure_loss
from kdas_edge.recipe import LossRecipe

Outputs = tuple[Tensor, Tensor]
# of the student and of the teacher, level by level
Features = tuple[Sequence[Tensor], Sequence[Tensor]]
# of which layers features are compared, if of any; see `features.feature_layers`
Compared = Literal["encoder", "decoder_inputs"]

# The weight of the teacher's terms in the authors' released code; the paper says 0.2.
RELEASED_WEIGHT = 0.3


@dataclass(frozen=True)
class Batch:
    """What a term of the teacher is computed from.

    Attributes:
        student: (z1, z2), (B, 1, H, W) logits each.
        teacher: likewise, without a gradient.
        recipe: temperature, axis and reduction.
        features: of both networks, where the variant compares them.
    """

    student: Outputs
    teacher: Outputs
    recipe: LossRecipe
    features: Features | None = None


Term = Callable[[Batch], Tensor]


def _how(batch: Batch) -> tuple[float, Literal["positions", "rows"], Literal["sum", "mean"]]:
    return batch.recipe.temperature, batch.recipe.kl_axis, batch.recipe.kl_reduction


def _kl(batch: Batch) -> Tensor:
    """Table 3's first row: `softened_kl` of the logits of both outputs."""
    pairs = zip(batch.student, batch.teacher, strict=True)
    return torch.stack([softened_kl(own, theirs, *_how(batch)) for own, theirs in pairs]).sum()


def _attention(batch: Batch) -> Tensor:
    return attention_loss(batch.student, batch.teacher, *_how(batch))


def _sgm(batch: Batch) -> Tensor:
    return symmetric_guided_map_loss(batch.student[1], batch.teacher[1], *_how(batch))


def _released_kl(batch: Batch) -> Tensor:
    t = batch.recipe.temperature
    pairs = zip(batch.student, batch.teacher, strict=True)
    return t**2 * torch.stack([released_kl(own, theirs, t) for own, theirs in pairs]).sum()


def _released_sgm(batch: Batch) -> Tensor:
    return released_symmetric_term(batch.student[0], batch.teacher[0])


def _soft_labels(batch: Batch) -> Tensor:
    """`bce_dice` of each output against the teacher's probability.

    Its Dice part also sharpens: a soft target is not its minimum.
    """
    target = torch.sigmoid(_summed(batch.teacher))
    return bce_dice(batch.student[0], target) + bce_dice(batch.student[1], target)


def _output_match(batch: Batch) -> Tensor:
    """Cross-entropy of σ(z1 + z2) against the teacher's, mean over pixels.

    Its only minimum is the teacher's output: for a quantised network that is to stay its float
    self, the float student is the teacher.
    """
    target = torch.sigmoid(_summed(batch.teacher))
    return F.binary_cross_entropy_with_logits(_summed(batch.student), target)


def _pairwise(batch: Batch) -> Tensor:
    assert batch.features is not None
    return pairwise_loss(*batch.features)


def _decoder_inputs(batch: Batch) -> Tensor:
    assert batch.features is not None
    return decoder_inputs_loss(*batch.features)


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Attributes:
        terms: the teacher's, by name; none for a variant without a teacher.
        compares: the layers whose features are compared, if any; the outputs do not count then.
        cacheable: whether the teacher's probability is enough, as `cache_teacher` stores it.
        released: L_seg and the weights are those of the authors' code, whatever the recipe says.
    """

    terms: Mapping[str, Term]
    compares: Compared | None = None
    cacheable: bool = False
    released: bool = False

    @property
    def needs_teacher(self) -> bool:
        """Whether anything of a teacher is compared."""
        return bool(self.terms)


_KDAS = Variant({"attention": _attention, "sgm": _sgm})  # equations 3 and 6
VARIANTS: dict[str, Variant] = {
    "supervised": Variant({}),
    "kl": Variant({"kl": _kl}),
    "attention_kd": Variant({"attention": _attention}),
    "attention_kd_sgm": _KDAS,
    "kdas": _KDAS,
    "released_code": Variant({"kl": _released_kl, "sgm": _released_sgm}, released=True),
    "soft_labels": Variant({"soft_labels": _soft_labels}, cacheable=True),
    "output_match": Variant({"output_match": _output_match}, cacheable=True),
    "pairwise": Variant({"pairwise": _pairwise}, "encoder"),
    # for a student with its teacher's decoder (model.init_decoder_from)
    "decoder_inputs": Variant({"decoder_inputs": _decoder_inputs}, "decoder_inputs"),
}


class DistillationLoss:
    """The loss of a recipe; `teacher_scale` multiplies the teacher's terms on top of their weight.

    Args:
        recipe: variant, weights, temperature, axis and reduction.

    Example:
        loss = DistillationLoss(LossRecipe(variant="kdas"))
        parts = loss(student(images), teacher(images), masks)
        parts["loss"].backward()
    """

    def __init__(self, recipe: LossRecipe) -> None:
        self.recipe = recipe
        self.variant = VARIANTS[recipe.variant]

    def __call__(
        self,
        student: Outputs,
        teacher: Outputs | None,
        mask: Tensor,
        labelled: Tensor | None = None,
        features: Features | None = None,
    ) -> dict[str, Tensor]:
        """Compute the loss of a batch and its parts.

        Args:
            student: (z1, z2), (B, 1, H, W) logits each.
            teacher: likewise, of any size; None where no teacher is needed. No gradient flows
                into it.
            mask: (B, 1, H, W) float in 0…1.
            labelled: (B,) bool; where it is False the mask counts nothing, only the teacher's
                terms count. None: all are labelled.
            features: of the student and of the teacher, where the variant compares them; see
                `features.FeatureHook`.

        Returns:
            "loss", the weighted total, and the unweighted parts: "segmentation" (both outputs, sum
            over the labelled images by the size of the batch) and the teacher's terms.

        Raises:
            ValueError: the variant needs a teacher, or features, and there is none.
        """
        parts = {"segmentation": self._segmentation(student, mask, labelled)}
        if self.variant.needs_teacher:
            if teacher is None:
                raise ValueError(f"loss variant {self.recipe.variant!r} needs a teacher's outputs")
            parts.update(self.teacher_terms(student, teacher, features))
        total = torch.stack(list(self.weighted(parts).values())).sum()
        return {"loss": total, **parts}

    def teacher_terms(
        self, student: Outputs, teacher: Outputs, features: Features | None = None
    ) -> dict[str, Tensor]:
        """Compute the teacher's terms of the variant, unweighted."""
        if self.variant.compares is not None and features is None:
            raise ValueError(f"loss variant {self.recipe.variant!r} needs features of both")
        first, second = (
            _at_size(theirs.detach(), own) for own, theirs in zip(student, teacher, strict=True)
        )
        batch = Batch(student, (first, second), self.recipe, features)
        return {name: term(batch) for name, term in self.variant.terms.items()}

    def weighted(self, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weight the parts as in equation 8; "loss" is left out, and is the sum of the rest."""
        own, teachers = self._weights()
        return {
            name: part * (own if name == "segmentation" else teachers)
            for name, part in parts.items()
            if name != "loss"
        }

    def _weights(self) -> tuple[float, float]:
        recipe = self.recipe
        if not self.variant.needs_teacher:
            return 1.0, 0.0
        if self.variant.released:
            return 1 - RELEASED_WEIGHT, RELEASED_WEIGHT * recipe.teacher_scale
        return recipe.segmentation_weight, recipe.teacher_weight * recipe.teacher_scale

    def _segmentation(self, student: Outputs, mask: Tensor, labelled: Tensor | None) -> Tensor:
        released = self.variant.released
        if released or self.recipe.segmentation == "structure":
            weight = border_weight(mask)
            costs = [structure_loss(z, mask, "none", not released, weight) for z in student]
        else:
            costs = [bce_dice(z, mask, "none") for z in student]
        per_image = torch.stack(costs).sum(0)  # (B,)
        if labelled is not None:
            # multiplied out, not selected: selecting makes the host wait for the GPU to count
            per_image = per_image * labelled
        # By the size of the batch, not by the labelled alone: where masks are few, one or two
        # images would carry this whole term, and the network learn those by heart.
        return per_image.mean()


def gradient_shares(parts_weighted: Mapping[str, Tensor], outputs: Outputs) -> dict[str, Tensor]:
    """Measure how much each weighted term moves the student.

    Args:
        parts_weighted: `DistillationLoss.weighted` of the parts, before the backward pass.
        outputs: the student's (z1, z2), from which they were computed.

    Returns:
        Per term the norm of its gradient with respect to both outputs together, as a fraction of
        the sum of these norms, a float64 scalar on the device; all 0 if nothing has a gradient.
    """
    norms = []
    for part in parts_weighted.values():
        square = outputs[0].new_zeros((), dtype=torch.float64)
        if part.requires_grad:
            for g in torch.autograd.grad(part, outputs, retain_graph=True, allow_unused=True):
                square = square if g is None else square + g.float().square().sum().double()
        norms.append(square.sqrt())
    shares = torch.stack(norms)
    shares = shares / shares.sum().clamp(min=math.ulp(0.0))
    return dict(zip(parts_weighted, shares.unbind(), strict=True))


def _summed(outputs: Sequence[Tensor]) -> Tensor:
    """z1 + z2, whose sigmoid is the network's probability."""
    return full_precision(outputs[0]) + full_precision(outputs[1])


def _at_size(teacher: Tensor, student: Tensor) -> Tensor:
    if teacher.shape[-2:] == student.shape[-2:]:
        return teacher
    size = student.shape[-2:]
    return F.interpolate(full_precision(teacher), size=size, mode="bilinear", align_corners=False)
