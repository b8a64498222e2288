"""Equations 1 to 8 against loops in float64 NumPy, finite differences, and their extremes."""

import math
from functools import partial
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdas_edge.distill.kdas import (
    attention_loss,
    attention_map,
    released_kl,
    softened_kl,
    symmetric_guided_map_loss,
    symmetric_structure,
)
from kdas_edge.distill.losses import bce_dice, structure_loss
from kdas_edge.distill.variants import VARIANTS as TABLE
from kdas_edge.distill.variants import DistillationLoss, gradient_shares
from kdas_edge.recipe import CACHEABLE_VARIANTS, FEATURE_VARIANTS, LossRecipe

Array = NDArray[np.float64]
VARIANTS = get_args(LossRecipe.model_fields["variant"].annotation)
TEACHERS_TERMS = {
    "supervised": set(),
    "kl": {"kl"},
    "attention_kd": {"attention"},
    "attention_kd_sgm": {"attention", "sgm"},
    "kdas": {"attention", "sgm"},
    "released_code": {"kl", "sgm"},
    "soft_labels": {"soft_labels"},
    "output_match": {"output_match"},
    "pairwise": {"pairwise"},
    "decoder_inputs": {"decoder_inputs"},
}
# of no other variant, and tested in test_inner_features.py
FEATURES = ([torch.ones(1, 4, 3, 3)] * 2, [torch.rand(1, 4, 3, 3)] * 2)


def logits(seed: int, batch: int = 2, side: int = 5, spread: float = 1.5) -> Tensor:
    draw = np.random.default_rng(seed)
    return torch.tensor(draw.normal(0, spread, (batch, 1, side, side)))


def batch_of(side: int = 16, batch: int = 3) -> tuple[Any, Any, Tensor]:
    student = tuple(logits(seed, batch, side).float().requires_grad_() for seed in (1, 2))
    teacher = tuple(logits(seed, batch, side, 3.0).float() for seed in (3, 4))
    mask = (logits(5, batch, side) > 0.5).float()
    return student, teacher, mask


# the same equations, one number at a time


def softmax(values: list[float]) -> list[float]:
    top = max(values)
    powers = [math.exp(v - top) for v in values]
    return [power / sum(powers) for power in powers]


def attention_by_loops(z: Array) -> Array:
    height, width = z.shape
    result = np.zeros_like(z)
    for i in range(height):
        scores = []
        for j in range(height):
            scores.append(sum(z[i, k] * z[j, k] for k in range(width)) / math.sqrt(width))
        weights = softmax(scores)
        for k in range(width):
            result[i, k] = sum(weights[j] * z[j, k] for j in range(height))
    return result


def structure_map_by_loops(a: Array) -> Array:
    side = len(a)
    result = np.zeros_like(a)
    for i in range(side):
        for j in range(side):
            result[i, j] = 1 / (1 + math.exp(-(a[i, j] + a[j, i])))
    return result


def divergence_by_loops(
    student: list[Array], teacher: list[Array], t: float, axis: str, reduction: str
) -> float:
    total = 0.0
    for own, theirs in zip(student, teacher, strict=True):
        groups = [(own.ravel(), theirs.ravel())]
        if axis == "rows":
            groups = list(zip(own, theirs, strict=True))
        image = 0.0
        for s, r in groups:
            p_student, p_teacher = softmax(list(s / t)), softmax(list(r / t))
            for p, q in zip(p_teacher, p_student, strict=True):
                image += p * math.log(p / q)
        total += image / own.size if reduction == "mean" else image
    return t**2 * total / len(student)


def images(z: Tensor) -> list[Array]:
    return [image[0] for image in z.detach().numpy()]


def test_the_attention_map_is_equations_1_and_2() -> None:
    z = torch.tensor(np.random.default_rng(0).normal(0, 1.5, (2, 1, 4, 7)))
    expected = [attention_by_loops(image) for image in images(z)]
    np.testing.assert_allclose(attention_map(z)[:, 0], expected, atol=1e-12)


def test_the_symmetric_structure_is_equations_4_and_5_and_symmetric() -> None:
    a = logits(0)
    s = symmetric_structure(a)
    expected = [structure_map_by_loops(image) for image in images(a)]
    np.testing.assert_allclose(s[:, 0], expected, atol=1e-12)
    torch.testing.assert_close(s, s.transpose(-2, -1))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0, 6.0, 8.0])
@pytest.mark.parametrize("axis", ["positions", "rows"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_softened_divergence_equals_a_loop(
    temperature: float, axis: Any, reduction: Any
) -> None:
    student, teacher = logits(1), logits(2)
    ours = softened_kl(student, teacher, temperature, axis, reduction).item()
    expected = divergence_by_loops(images(student), images(teacher), temperature, axis, reduction)
    assert ours == pytest.approx(expected, abs=1e-12)
    assert ours > 0


@pytest.mark.parametrize("axis", ["positions", "rows"])
def test_the_attention_loss_is_equation_3_over_both_outputs(axis: Any) -> None:
    students, teachers = (logits(1), logits(2)), (logits(3), logits(4))
    expected = sum(
        divergence_by_loops(
            [attention_by_loops(z) for z in images(own)],
            [attention_by_loops(z) for z in images(theirs)],
            2.0,
            axis,
            "sum",
        )
        for own, theirs in zip(students, teachers, strict=True)
    )
    ours = attention_loss(students, teachers, 2.0, axis, "sum").item()
    assert ours == pytest.approx(expected, abs=1e-11)


def test_the_symmetric_guided_map_loss_is_equation_6() -> None:
    student, teacher = logits(1), logits(2)
    maps = [
        [structure_map_by_loops(attention_by_loops(z)) for z in images(side)]
        for side in (student, teacher)
    ]
    expected = divergence_by_loops(maps[0], maps[1], 2.0, "positions", "sum")
    ours = symmetric_guided_map_loss(student, teacher, 2.0).item()
    assert ours == pytest.approx(expected, abs=1e-12)


def test_the_divergence_is_of_the_teacher_from_the_student_and_not_the_reverse() -> None:
    student, teacher = logits(1), logits(2)
    assert softened_kl(student, teacher, 2.0) != softened_kl(teacher, student, 2.0)
    p = (teacher / 2).flatten(1).softmax(1)
    q = (student / 2).flatten(1).softmax(1)
    torch.testing.assert_close(
        softened_kl(student, teacher, 2.0), 4 * (p * (p / q).log()).sum(1).mean()
    )


def test_equal_maps_cost_exactly_nothing() -> None:
    z = (logits(1), logits(2))
    assert attention_loss(z, z, 2.0).item() == 0
    assert symmetric_guided_map_loss(z[1], z[1], 2.0).item() == 0
    assert softened_kl(z[0], z[0], 2.0, "rows", "mean").item() == 0


@pytest.mark.parametrize("axis", ["positions", "rows"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_gradients_of_the_teachers_terms_agree_with_finite_differences(
    axis: Any, reduction: Any
) -> None:
    teacher = (logits(3, side=4), logits(4, side=4))
    how = {"temperature": 2.0, "axis": axis, "reduction": reduction}
    z1, z2 = (logits(seed, side=4).requires_grad_() for seed in (1, 2))
    check = torch.autograd.gradcheck
    assert check(lambda a, b: attention_loss((a, b), teacher, **how), (z1, z2))
    assert check(lambda b: symmetric_guided_map_loss(b, teacher[1], **how), z2)
    assert check(lambda a: softened_kl(a, teacher[0], **how), z1)


def test_logits_beyond_100_stay_finite_with_their_gradients() -> None:
    student = (logits(1, 2, 32, 40.0).float().requires_grad_(), logits(2, 2, 32, 40.0).float())
    teacher = (logits(3, 2, 32, 60.0).float(), logits(4, 2, 32, 60.0).float())
    loss = attention_loss(student, teacher, 2.0)
    loss.backward()
    assert loss.isfinite() and student[0].grad is not None and student[0].grad.isfinite().all()


def test_autocast_and_half_precision_change_nothing_but_the_rounding_of_the_input() -> None:
    student, teacher = logits(1).bfloat16(), logits(2).bfloat16()
    expected = attention_loss([student.float()], [teacher.float()], 2.0)
    with torch.autocast("cpu", torch.bfloat16):
        ours = attention_loss([student], [teacher], 2.0)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_has_its_terms_and_the_total_is_their_weighted_sum(variant: str) -> None:
    student, teacher, mask = batch_of()
    loss = DistillationLoss(LossRecipe.model_validate({"variant": variant}))
    features = FEATURES if loss.variant.compares else None
    parts = loss(student, teacher if loss.variant.needs_teacher else None, mask, features=features)
    assert set(parts) == {"loss", "segmentation"} | TEACHERS_TERMS[variant]
    weighted = loss.weighted(parts)
    torch.testing.assert_close(parts["loss"], sum(weighted.values()))
    assert loss.variant.needs_teacher == (variant != "supervised")


def test_the_table_of_variants_is_the_one_that_recipes_know() -> None:
    assert set(TABLE) == set(VARIANTS)
    assert {name for name, row in TABLE.items() if row.compares} == set(FEATURE_VARIANTS)
    assert {name for name, row in TABLE.items() if row.cacheable} == set(CACHEABLE_VARIANTS)


def test_equation_8_weighs_the_teacher_02_and_the_mask_08() -> None:
    student, teacher, mask = batch_of()
    parts = DistillationLoss(LossRecipe())(student, teacher, mask)
    assert LossRecipe().variant == "kdas"
    expected = 0.2 * (
        attention_loss(student, teacher, 2.0)
        + symmetric_guided_map_loss(student[1], teacher[1], 2.0)
    ) + 0.8 * (bce_dice(student[0], mask) + bce_dice(student[1], mask))
    torch.testing.assert_close(parts["loss"], expected)


def test_the_recipe_sets_weights_scale_temperature_axis_reduction_and_segmentation() -> None:
    student, teacher, mask = batch_of()
    recipe = LossRecipe(
        variant="attention_kd",
        segmentation="structure",
        temperature=4.0,
        teacher_weight=0.3,
        segmentation_weight=0.5,
        kl_axis="rows",
        kl_reduction="mean",
        teacher_scale=7.0,
    )
    expected = 0.3 * 7 * attention_loss(student, teacher, 4.0, "rows", "mean")
    expected = expected + 0.5 * sum(structure_loss(z, mask) for z in student)
    torch.testing.assert_close(DistillationLoss(recipe)(student, teacher, mask)["loss"], expected)


def test_supervised_ignores_the_weight_of_equation_8() -> None:
    student, _, mask = batch_of()
    loss = DistillationLoss(LossRecipe(variant="supervised"))(student, None, mask)["loss"]
    torch.testing.assert_close(loss, bce_dice(student[0], mask) + bce_dice(student[1], mask))


def test_the_plain_divergence_compares_the_logits_themselves() -> None:
    student, teacher, mask = batch_of()
    parts = DistillationLoss(LossRecipe(variant="kl"))(student, teacher, mask)
    expected = sum(softened_kl(s, t, 2.0) for s, t in zip(student, teacher, strict=True))
    torch.testing.assert_close(parts["kl"], expected)


def test_the_soft_labels_is_the_teachers_summed_probability() -> None:
    student, teacher, mask = batch_of()
    parts = DistillationLoss(LossRecipe(variant="soft_labels"))(student, teacher, mask)
    target = torch.sigmoid(teacher[0] + teacher[1])
    torch.testing.assert_close(parts["soft_labels"], sum(bce_dice(z, target) for z in student))


def test_matching_outputs_is_cross_entropy_and_rests_only_at_the_teachers_output() -> None:
    student, teacher, mask = batch_of()
    loss = DistillationLoss(LossRecipe(variant="output_match"))
    found = loss(student, teacher, mask)["output_match"]
    p, q = (
        1 / (1 + np.exp(-(z[0] + z[1]).detach().numpy().astype(np.float64)))
        for z in (teacher, student)
    )
    expected = -(p * np.log(q) + (1 - p) * np.log(1 - q)).mean()
    assert found.item() == pytest.approx(expected, rel=1e-5)
    # the same sum, split in another way between the two outputs
    other = ((teacher[0] + 1).requires_grad_(), (teacher[1] - 1).requires_grad_())
    gradients = torch.autograd.grad(loss.teacher_terms(other, teacher)["output_match"], other)
    assert max(g.abs().max().item() for g in gradients) < 1e-8
    assert found.item() > loss.teacher_terms(other, teacher)["output_match"].item()


@pytest.mark.parametrize("variant", sorted(set(VARIANTS) - {"supervised", *FEATURE_VARIANTS}))
def test_every_term_of_the_teacher_pulls_at_the_student_except_the_released_kl(
    variant: str,
) -> None:
    student, teacher, _ = batch_of()
    loss = DistillationLoss(LossRecipe.model_validate({"variant": variant}))
    for name, term in loss.teacher_terms(student, teacher).items():
        norms = []
        for gradient in torch.autograd.grad(term, student, retain_graph=True, allow_unused=True):
            norms.append(0.0 if gradient is None else gradient.norm().item())
        if (variant, name) == ("released_code", "kl"):
            assert norms == [0.0, 0.0]
        elif name == "sgm":
            # of one output: the second in the paper, the first in the release
            pulled = [norm > 0 for norm in norms]
            assert pulled == ([True, False] if variant == "released_code" else [False, True])
        else:
            assert min(norms) > 0, name


def test_the_released_code_is_reproduced_line_by_line() -> None:
    student, teacher, mask = batch_of()
    parts = DistillationLoss(LossRecipe(variant="released_code"))(student, teacher, mask)
    expected_kl = 0.0
    for theirs in teacher:
        attended = np.array([attention_by_loops(z.astype(float)) for z in images(theirs)]) / 2
        positive = attended[attended > 0]
        # the student's "distribution" is 1 at every position, divided by the temperature
        expected_kl += (positive * np.log(positive) - positive * 0.5).sum() / attended.size
    assert parts["kl"].item() == pytest.approx(4 * expected_kl, rel=1e-5)
    own, theirs = student[0][:, 0], teacher[0][:, 0]
    difference = own + own.transpose(1, 2) - theirs - theirs.transpose(1, 2)
    torch.testing.assert_close(parts["sgm"], difference.square().mean())
    segmentation = sum(structure_loss(z, mask, weighted_bce=False) for z in student)
    torch.testing.assert_close(parts["segmentation"], segmentation)
    expected = 0.7 * segmentation + 0.3 * (parts["kl"] + parts["sgm"])
    torch.testing.assert_close(parts["loss"], expected)


def test_the_released_kl_does_not_depend_on_the_student_at_all() -> None:
    teacher = logits(3)
    assert released_kl(logits(1), teacher, 2.0) == released_kl(100 * logits(2), teacher, 2.0)


def test_unlabelled_images_get_the_teachers_terms_only() -> None:
    student, teacher, mask = batch_of()
    loss = DistillationLoss(LossRecipe())
    labelled = torch.tensor([True, False, True])
    garbage = mask.clone()
    garbage[1] = 0.37
    parts = loss(student, teacher, garbage, labelled)
    kept = tuple(z[labelled] for z in student)
    # each image counts alike: two of three have a mask
    expected = sum(bce_dice(z, mask[labelled]) for z in kept) * 2 / 3
    torch.testing.assert_close(parts["segmentation"], expected)
    torch.testing.assert_close(parts["attention"], attention_loss(student, teacher, 2.0))

    nothing = loss(student, teacher, mask, torch.zeros(3, dtype=torch.bool))
    assert nothing["segmentation"].item() == 0
    nothing["loss"].backward()
    assert all(z.grad.isfinite().all() and z.grad.norm() > 0 for z in student)


def test_a_teacher_of_another_size_is_resized_and_gets_no_gradient() -> None:
    student, _, mask = batch_of(side=16)
    teacher = tuple(logits(seed, 3, 24).float().requires_grad_() for seed in (3, 4))
    loss = DistillationLoss(LossRecipe())(student, teacher, mask)["loss"]
    smaller = partial(
        torch.nn.functional.interpolate, size=(16, 16), mode="bilinear", align_corners=False
    )
    resized = tuple(smaller(z.detach()) for z in teacher)
    expected = DistillationLoss(LossRecipe())(student, resized, mask)["loss"]
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(z.grad is None for z in teacher)


def test_a_missing_teacher_is_an_error_and_not_a_silent_supervised_training() -> None:
    student, _, mask = batch_of()
    with pytest.raises(ValueError, match="'kdas' needs a teacher"):
        DistillationLoss(LossRecipe())(student, None, mask)


def test_gradient_shares_are_the_norms_fractions_and_leave_the_graph_usable() -> None:
    student, teacher, mask = batch_of()
    loss = DistillationLoss(LossRecipe())
    parts = loss(student, teacher, mask)
    weighted = loss.weighted(parts)
    shares = {key: float(one) for key, one in gradient_shares(weighted, student).items()}
    norms = {}
    for name, term in weighted.items():
        gradients = torch.autograd.grad(term, student, retain_graph=True, allow_unused=True)
        norms[name] = math.hypot(*(g.norm().item() for g in gradients if g is not None))
    assert shares == pytest.approx({n: norm / sum(norms.values()) for n, norm in norms.items()})
    assert sum(shares.values()) == pytest.approx(1)
    parts["loss"].backward()


def test_gradient_shares_of_nothing_are_zero() -> None:
    constant = {"segmentation": torch.tensor(1.0)}
    assert gradient_shares(constant, batch_of()[0]) == {"segmentation": 0.0}
