"""KDAS: what a student owes its teacher (equations 1 to 8 of [1]), and the ablations.

A supervision output z is read as an H × W matrix per image: its rows are the tokens of an
attention without weights. The paper leaves four choices open; they are made here as follows.

- Equation 3 compares distributions, an attention map is none: each map is divided by the
  temperature and soft-maxed over all positions of the image (`axis="positions"`), or over each row
  (`axis="rows"`). Over all positions the map says where in the image the teacher looks.
- The divergence is summed over the positions and averaged over the images, as the 1/N of
  equation 3 says. `reduction="mean"` divides by H·W as well, as the released code does; at 352
  pixels that leaves a gradient hundreds of times smaller than the segmentation's.
- The divergence is KL(teacher ‖ student) in equation 6 too, where the paper's order is not plain:
  the teacher is the reference, as in equation 3.
- z is taken at the resolution of the network's outputs, that is of the image. A teacher that saw
  another size is resized to the student's.

[1] Trinh, Nguyen, Vo Thi, "Knowledge Distillation via Attention Supervision Framework for Polyp
    Segmentation", ICME 2024, arXiv 2312.08555.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kdas_edge.distill.features import decoder_inputs_loss, pairwise_loss
from kdas_edge.distill.losses import bce_dice, border_weight, full_precision, structure_loss
from kdas_edge.recipe import FEATURE_VARIANTS, LossRecipe

Axis = Literal["positions", "rows"]
Reduction = Literal["sum", "mean"]
Outputs = tuple[Tensor, Tensor]
# of the student and of the teacher, level by level
Features = tuple[Sequence[Tensor], Sequence[Tensor]]

# The weight of the teacher's terms in the authors' released code; the paper says 0.2.
RELEASED_WEIGHT = 0.3


def attention_map(z: Tensor) -> Tensor:
    """A = softmax(z zᵀ / √W) z per image (equations 1 and 2); the softmax is over a row's keys.

    Args:
        z: (B, 1, H, W) logits.

    Returns:
        (B, 1, H, W), in float32 at least, also under autocast: the products of logits beyond 100
        do not survive bfloat16.
    """
    z = full_precision(z)
    with torch.autocast(z.device.type, enabled=False):
        scores = z @ z.transpose(-2, -1) / math.sqrt(z.shape[-1])  # (B, 1, H, H)
        return scores.softmax(-1) @ z


def symmetric_structure(attention: Tensor) -> Tensor:
    """S = σ(A + Aᵀ) (equations 4 and 5).

    Args:
        attention: (B, 1, H, H), an `attention_map` of a square output.

    Returns:
        (B, 1, H, H) in 0…1, symmetric.
    """
    return torch.sigmoid(attention + attention.transpose(-2, -1))


def softened_kl(
    student: Tensor,
    teacher: Tensor,
    temperature: float,
    axis: Axis = "positions",
    reduction: Reduction = "sum",
) -> Tensor:
    """t² · mean over the images of KL(teacher ‖ student), of maps softened by a temperature.

    The factor t² keeps the gradient's size when t grows (Hinton et al., arXiv 1503.02531).

    Args:
        student: (B, 1, H, W), any real values.
        teacher: (B, 1, H, W).
        temperature: t > 0; maps are divided by it before the softmax.
        axis: one distribution over all "positions" of an image, or one per row ("rows").
        reduction: "sum" over positions (and rows), or "mean", which divides the sum by H·W.

    Returns:
        A scalar, at least 0; 0 for equal maps.
    """
    student, teacher = full_precision(student), full_precision(teacher)
    if axis == "positions":
        student, teacher = student.flatten(1), teacher.flatten(1)  # (B, H·W)
    log_student = F.log_softmax(student / temperature, -1)
    log_teacher = F.log_softmax(teacher / temperature, -1)
    divergence = (log_teacher.exp() * (log_teacher - log_student)).flatten(1)  # (B, H·W)
    per_image = divergence.sum(1) if reduction == "sum" else divergence.mean(1)
    return temperature**2 * per_image.mean()


def attention_loss(
    students: Sequence[Tensor],
    teachers: Sequence[Tensor],
    temperature: float,
    axis: Axis = "positions",
    reduction: Reduction = "sum",
) -> Tensor:
    """L_AT = t² · 1/N Σ_n Σ_i KL(A_t^i ‖ A_s^i) (equation 3), N being the images of the batch.

    Args:
        students: the student's supervision outputs, (B, 1, H, W) logits each.
        teachers: the teacher's.
        temperature: see `softened_kl`.
        axis: see `softened_kl`.
        reduction: see `softened_kl`.

    Returns:
        A scalar.
    """
    terms = [
        softened_kl(attention_map(student), attention_map(teacher), temperature, axis, reduction)
        for student, teacher in zip(students, teachers, strict=True)
    ]
    return torch.stack(terms).sum()


def symmetric_guided_map_loss(
    student_z2: Tensor,
    teacher_z2: Tensor,
    temperature: float,
    axis: Axis = "positions",
    reduction: Reduction = "sum",
) -> Tensor:
    """L_SGM = t² · 1/N Σ_n KL(S_t ‖ S_s) (equation 6), of the last supervision output only.

    Args:
        student_z2: (B, 1, H, H) logits.
        teacher_z2: (B, 1, H, H) logits.
        temperature: see `softened_kl`.
        axis: see `softened_kl`.
        reduction: see `softened_kl`.

    Returns:
        A scalar.
    """
    return softened_kl(
        symmetric_structure(attention_map(student_z2)),
        symmetric_structure(attention_map(teacher_z2)),
        temperature,
        axis,
        reduction,
    )


def released_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The KL term of the authors' released code, of one supervision output.

    The student's logits are soft-maxed over the channel axis, which has size one: the result is 1
    everywhere whatever the logits are, and the gradient is exactly 0. The teacher's attention map
    is used as if it were a distribution. Where it is negative, recent PyTorch gives NaN for the
    term (the release trains on, since the gradient does not depend on it); such positions count 0
    here, as in the PyTorch of the release's time.

    Returns:
        A scalar, without the factor t².
    """
    ones = full_precision(student).softmax(1) / temperature
    target = attention_map(teacher) / temperature
    pointwise = torch.xlogy(target.clamp(min=0), target.clamp(min=0)) - target * ones
    return torch.where(target > 0, pointwise, torch.zeros_like(pointwise)).mean()


def released_symmetric_term(student_z1: Tensor, teacher_z1: Tensor) -> Tensor:
    """The symmetric term of the released code: mean squared error of z + zᵀ, of the first output.

    Args:
        student_z1: (B, 1, H, H) logits.
        teacher_z1: (B, 1, H, H) logits.

    Returns:
        A scalar.
    """
    student, teacher = full_precision(student_z1), full_precision(teacher_z1)
    return F.mse_loss(student + student.transpose(-2, -1), teacher + teacher.transpose(-2, -1))


class DistillationLoss:
    """The loss of a recipe: L = teacher_weight · (teacher's terms) + segmentation_weight · L_seg.

    That is equation 8, with these terms of the teacher per variant (the keys of the parts):

    - `supervised`: none; L_seg has weight 1.
    - `kl`: "kl", `softened_kl` of the logits of both outputs (Table 3's first row).
    - `attention_kd`: "attention", equation 3.
    - `attention_kd_sgm`, `kdas`: "attention" and "sgm", equations 3 and 6.
    - `released_code`: "kl" and "sgm" as in the authors' repository, weight 0.3 against 0.7 and the
      structure loss as released, whatever the recipe says about those.
    - `soft_labels` (ours): "soft_labels", `bce_dice` of each output against the teacher's
      probability sigmoid(z1 + z2). Its Dice part also sharpens: a soft target is not its minimum.
    - `output_match` (ours): "output_match", the cross-entropy of sigmoid(z1 + z2) against the
      teacher's, mean over pixels. Its only minimum is the teacher's output, so that it is what a
      quantised network needs that is to stay its float self: the float student is the teacher.
    - `pairwise`: "pairwise", `pairwise_loss` of the encoders' features; the outputs do not count.
    - `decoder_inputs`: "decoder_inputs", `decoder_inputs_loss`, for a student with its teacher's
      decoder (`model.init_decoder_from`); the outputs do not count.

    `teacher_scale` multiplies the terms of the teacher on top of their weight.

    Args:
        recipe: variant, weights, temperature, axis and reduction.

    Example:
        loss = DistillationLoss(LossRecipe(variant="kdas"))
        parts = loss(student(images), teacher(images), masks)
        parts["loss"].backward()
    """

    def __init__(self, recipe: LossRecipe) -> None:
        self.recipe = recipe
        self.needs_teacher = recipe.variant != "supervised"
        self.needs_features = recipe.variant in FEATURE_VARIANTS

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
            features: of the student and of the teacher, for `pairwise` and `decoder_inputs`; see
                `features.tap`.

        Returns:
            "loss", the weighted total, and the unweighted parts: "segmentation" (both outputs, sum
            over the labelled images by the size of the batch) and the teacher's terms.

        Raises:
            ValueError: the variant needs a teacher, or features, and there is none.
        """
        parts = {"segmentation": self._segmentation(student, mask, labelled)}
        if self.needs_teacher:
            if teacher is None:
                raise ValueError(f"loss variant {self.recipe.variant!r} needs a teacher's outputs")
            parts.update(self.teacher_terms(student, teacher, features))
        total = torch.stack(list(self.weighted(parts).values())).sum()
        return {"loss": total, **parts}

    def teacher_terms(
        self, student: Outputs, teacher: Outputs, features: Features | None = None
    ) -> dict[str, Tensor]:
        """Compute the teacher's terms of the variant, unweighted; see the class."""
        recipe = self.recipe
        how = recipe.temperature, recipe.kl_axis, recipe.kl_reduction
        matched = [
            _at_size(theirs.detach(), own) for own, theirs in zip(student, teacher, strict=True)
        ]
        match recipe.variant:
            case "supervised":
                return {}
            case "kl":
                terms = [
                    softened_kl(own, theirs, *how)
                    for own, theirs in zip(student, matched, strict=True)
                ]
                return {"kl": torch.stack(terms).sum()}
            case "attention_kd":
                return {"attention": attention_loss(student, matched, *how)}
            case "attention_kd_sgm" | "kdas":
                return {
                    "attention": attention_loss(student, matched, *how),
                    "sgm": symmetric_guided_map_loss(student[1], matched[1], *how),
                }
            case "released_code":
                t = recipe.temperature
                kl = [
                    released_kl(own, theirs, t)
                    for own, theirs in zip(student, matched, strict=True)
                ]
                return {
                    "kl": t**2 * torch.stack(kl).sum(),
                    "sgm": released_symmetric_term(student[0], matched[0]),
                }
            case "soft_labels":
                target = torch.sigmoid(_summed(matched))
                return {"soft_labels": bce_dice(student[0], target) + bce_dice(student[1], target)}
            case "output_match":
                own, target = _summed(student), torch.sigmoid(_summed(matched))
                return {"output_match": F.binary_cross_entropy_with_logits(own, target)}
            case "pairwise" | "decoder_inputs":
                if features is None:
                    raise ValueError(f"loss variant {recipe.variant!r} needs features of both")
                loss = pairwise_loss if recipe.variant == "pairwise" else decoder_inputs_loss
                return {recipe.variant: loss(*features)}

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
        if recipe.variant == "supervised":
            return 1.0, 0.0
        if recipe.variant == "released_code":
            return 1 - RELEASED_WEIGHT, RELEASED_WEIGHT * recipe.teacher_scale
        return recipe.segmentation_weight, recipe.teacher_weight * recipe.teacher_scale

    def _segmentation(self, student: Outputs, mask: Tensor, labelled: Tensor | None) -> Tensor:
        released = self.recipe.variant == "released_code"
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


def gradient_shares(parts_weighted: Mapping[str, Tensor], outputs: Outputs) -> dict[str, float]:
    """Measure how much each weighted term moves the student.

    Args:
        parts_weighted: `DistillationLoss.weighted` of the parts, before the backward pass.
        outputs: the student's (z1, z2), from which they were computed.

    Returns:
        Per term the norm of its gradient with respect to both outputs together, as a fraction of
        the sum of these norms; all 0 if nothing has a gradient.
    """
    norms = {}
    for name, part in parts_weighted.items():
        norms[name] = 0.0
        if part.requires_grad:
            gradients = torch.autograd.grad(part, outputs, retain_graph=True, allow_unused=True)
            squares = [g.float().square().sum().item() for g in gradients if g is not None]
            norms[name] = math.sqrt(sum(squares))
    total = sum(norms.values())
    return {name: norm / total if total else 0.0 for name, norm in norms.items()}


def _summed(outputs: Sequence[Tensor]) -> Tensor:
    """z1 + z2, whose sigmoid is the network's probability."""
    return full_precision(outputs[0]) + full_precision(outputs[1])


def _at_size(teacher: Tensor, student: Tensor) -> Tensor:
    if teacher.shape[-2:] == student.shape[-2:]:
        return teacher
    size = student.shape[-2:]
    return F.interpolate(full_precision(teacher), size=size, mode="bilinear", align_corners=False)
