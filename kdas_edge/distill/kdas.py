"""KDAS losses (equations 1 to 6 of [1]; 7 is `losses.bce_dice`, 8 the weights in `variants`).

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
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kdas_edge.distill.losses import full_precision

Axis = Literal["positions", "rows"]
Reduction = Literal["sum", "mean"]


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
