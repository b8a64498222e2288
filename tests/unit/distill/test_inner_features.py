"""Similarities between places of an encoder's maps, against float64 loops and in a training."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_engine import tiny
from torch import Tensor

from kdas_edge.distill.features import (
    FeatureHook,
    decoder_inputs_loss,
    feature_layers,
    pairwise_loss,
    similarities,
)
from kdas_edge.distill.training import run_training
from kdas_edge.errors import UserError
from kdas_edge.models.zoo import build
from kdas_edge.recipe import FEATURE_VARIANTS, ModelRecipe


def features(seed: int, channels: int, side: int, batch: int = 2) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(0, 1, (batch, channels, side, side)))


def similarities_by_loops(x: np.ndarray) -> np.ndarray:
    channels, height, width = x.shape
    places = [(i, j) for i in range(height) for j in range(width)]
    result = np.zeros((len(places), len(places)))
    for row, (a, b) in enumerate(places):
        for column, (c, d) in enumerate(places):
            dot = sum(x[k, a, b] * x[k, c, d] for k in range(channels))
            norms = [math.sqrt(sum(x[k, i, j] ** 2 for k in range(channels))) for i, j in
                     ((a, b), (c, d))]  # fmt: skip
            result[row, column] = dot / (norms[0] * norms[1])
    return result


def pooled_by_loops(x: np.ndarray, side: int) -> np.ndarray:
    step = x.shape[-1] // side
    return np.array(
        [[[plane[i * step : (i + 1) * step, j * step : (j + 1) * step].mean() for j in range(side)]
          for i in range(side)] for plane in x]
    )  # fmt: skip


def test_similarities_are_cosines() -> None:
    x = features(0, 5, 3)
    found = similarities(x)
    assert found.shape == (2, 9, 9)
    for image, expected in zip(found.numpy(), x.numpy(), strict=True):
        np.testing.assert_allclose(image, similarities_by_loops(expected), atol=1e-12)


def test_the_loss_is_that_of_loops_over_levels_of_unequal_channels_and_sizes() -> None:
    students = [features(1, 4, 8), features(2, 6, 4)]
    teachers = [features(3, 7, 4), features(4, 3, 4)]
    expected = []
    for own, theirs in zip(students, teachers, strict=True):
        errors = [
            (similarities_by_loops(pooled_by_loops(a, 4)) - similarities_by_loops(b)) ** 2
            for a, b in zip(own.numpy(), theirs.numpy(), strict=True)
        ]
        expected.append(np.mean(errors))
    first = [features(9, 2, 8)]  # of edges and colours: left out
    found = pairwise_loss(first + students, first + teachers)
    assert float(found) == pytest.approx(np.mean(expected), abs=1e-12)


def test_the_gradient_is_that_of_finite_differences_and_none_reaches_the_teacher() -> None:
    own, theirs = features(5, 3, 3, 1).requires_grad_(), features(6, 4, 3, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: pairwise_loss([x, x], [theirs, theirs]), (own,))
    pairwise_loss([own, own], [theirs, theirs]).backward()
    assert own.grad is not None and float(own.grad.norm()) > 0 and theirs.grad is None

    own, theirs = features(8, 3, 3, 2).requires_grad_(), features(9, 3, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: decoder_inputs_loss([x], [theirs]), (own,))
    decoder_inputs_loss([own], [theirs]).backward()
    assert own.grad is not None and float(own.grad.norm()) > 0 and theirs.grad is None


def test_it_does_not_mind_the_scale_or_order_of_the_channels() -> None:
    x = features(7, 6, 5)
    shuffled = 3 * x[:, torch.randperm(6)]
    assert float(pairwise_loss([x, shuffled], [x, x])) == pytest.approx(0, abs=1e-20)
    assert float(pairwise_loss([x, x.flip(3)], [x, x])) > 0.01


def test_the_decoders_inputs_differ_by_their_mean_square_over_the_levels() -> None:
    students = [features(1, 3, 4), features(2, 3, 2)]
    teachers = [features(3, 3, 4), 5 + features(4, 3, 2)]
    expected = []
    for own, theirs in zip(students, teachers, strict=True):
        squares = [float(own[i] - theirs[i]) ** 2 for i in np.ndindex(*own.shape)]
        expected.append(sum(squares) / len(squares))
    found = float(decoder_inputs_loss(students, teachers))
    assert found == pytest.approx(np.mean(expected), rel=1e-12)
    assert float(decoder_inputs_loss(teachers, teachers)) == 0


def test_a_teacher_that_saw_more_pixels_is_resized() -> None:
    smooth = torch.linspace(0, 1, 8).expand(2, 3, 8, 8)
    assert float(decoder_inputs_loss([F.interpolate(smooth, (4, 4), mode="area")], [smooth])) < 0.01


def test_a_feature_hook_returns_what_a_variant_compares_and_leaves_no_hook() -> None:
    network = build(ModelRecipe(backbone="test_efficientnet", width=8, pretrained=False), 64).eval()
    image = torch.zeros(2, 3, 64, 64)
    with torch.no_grad():
        (z1, z2), encoder = FeatureHook(network, feature_layers(network, "encoder"))(image)
        _, decoder = FeatureHook(network, feature_layers(network, "decoder_inputs"))(image)
        assert FeatureHook(network, feature_layers(network, None))(image)[1] == ()
        expected = network(image)
    assert torch.equal(z1, expected[0]) and torch.equal(z2, expected[1])
    assert [x.shape[-1] for x in encoder] == [16, 8, 4, 2]
    assert [tuple(x.shape[1:]) for x in decoder] == [(8, side, side) for side in (16, 8, 4, 2)]
    assert not any(module._forward_hooks for module in network.modules())


@pytest.fixture(scope="module")
def teacher(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("teacher")
    run_training(tiny(scenes, name="teacher", schedule__epochs=2), out)
    return out / "teacher"


@pytest.mark.parametrize("variant", FEATURE_VARIANTS)
def test_a_training_brings_what_both_hold_inside_together(
    scenes: Path, tmp_path: Path, teacher: Path, variant: str
) -> None:
    recipe = tiny(
        scenes,
        name="student",
        teacher=str(teacher),
        teacher_size=96,
        seed=3,
        loss__variant=variant,
        loss__teacher_weight=10,
        model__init_decoder_from=str(teacher),
        schedule__epochs=6,
        schedule__learning_rate=1e-2,
    )
    history = run_training(recipe, tmp_path)["history"]
    assert history[-1][variant] < 0.8 * history[0][variant]
    assert not [key for key in history[-1] if key.startswith("share_")]


def test_mirror_images_and_one_question_are_refused(scenes: Path) -> None:
    for variant in FEATURE_VARIANTS:
        for key in ({"teacher_tta": 2}, {"cache_teacher": True}):
            with pytest.raises(UserError, match=variant):
                tiny(scenes, teacher="runs/teacher", loss__variant=variant, **key)


def test_decoders_of_different_width_are_not_compared(
    scenes: Path, tmp_path: Path, teacher: Path
) -> None:
    recipe = tiny(
        scenes,
        name="student",
        teacher=str(teacher),
        model__width=16,
        loss__variant="decoder_inputs",
    )
    with pytest.raises(UserError, match=r"has width 8 and the student's 16; set model\.width=8"):
        run_training(recipe, tmp_path)
    assert not (tmp_path / "student").exists()
