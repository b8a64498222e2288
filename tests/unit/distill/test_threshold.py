"""The bias that makes 0.5 the best threshold, against an independent computation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kdas_edge.data.dataset import load_training_data
from kdas_edge.distill.threshold import (
    SHIFTS,
    calibrate_threshold,
    calibrate_threshold_of_run,
    choose,
    dice_by_shift,
)
from kdas_edge.distill.training import run_training
from kdas_edge.errors import UserError
from kdas_edge.models.architecture import Architecture, SegmentationNetwork
from kdas_edge.models.checkpoints import load_network
from kdas_edge.recipe import TrainRecipe, load_recipe
from kdas_edge.run import open_run

PLAIN = Architecture("none", 8, 32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class Generous(SegmentationNetwork):
    """Logits from the red channel, six units wide, 1.5 too high; part of them in each output."""

    architecture = PLAIN

    def __init__(self) -> None:
        super().__init__()
        self.head2 = nn.Conv2d(1, 1, 1)
        nn.init.constant_(self.head2.weight, 4.0)
        nn.init.constant_(self.head2.bias, -0.5037)  # no pixel exactly at a threshold

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        red = x[:, :1]
        return red * 2 - 1, self.head2(red)


def made_up(count: int = 11) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose red channel is above one half on the polyp, with noise; two have no polyp."""
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    noise = torch.randint(-30, 31, images[:, :1].shape, generator=generator)
    masks = (images[:, :1].int() + noise > 127).to(torch.uint8)
    masks[:2] = 0
    images[0, 0] = 0
    return images, masks


def test_the_curve_is_that_of_an_independent_computation() -> None:
    images, masks = made_up()
    network = Generous()
    found = dice_by_shift(network, images, masks, 32, batch=4)
    expected = np.zeros(len(SHIFTS))
    for image, mask in zip(images.numpy(), masks.numpy().astype(bool), strict=True):
        red = image[0].astype(np.float64) / 255
        logit = 2 * red - 1 + 4 * red - 0.5037
        for index, shift in enumerate(SHIFTS):
            marked = 1 / (1 + np.exp(-(logit + shift))) > 0.5
            both = marked.sum() + mask[0].sum()
            expected[index] += 2 * (marked & mask[0]).sum() / both if both else 1.0
    assert found == pytest.approx(expected / len(images), abs=1e-9)
    assert network.training


def test_a_generous_network_becomes_stricter_and_a_second_time_nothing_changes() -> None:
    images, masks = made_up()
    network = Generous()

    class Split:
        validation = type("Images", (), {"images": images, "masks": masks})

    first = calibrate_threshold(network, Split, 32)
    # red above one half is the polyp, where the logit is 1.5
    assert first.shift == pytest.approx(-1.5, abs=0.4)
    assert first.after > first.before + 0.02
    assert float(network.head2.bias.detach()) == pytest.approx(-0.5037 + first.shift)
    second = calibrate_threshold(network, Split, 32)
    assert second.shift == 0 and second.before == second.after == pytest.approx(first.after)


def test_of_shifts_that_are_as_good_the_smallest_is_taken() -> None:
    dice = np.full(len(SHIFTS), 0.5)
    dice[SHIFTS == -3.0], dice[SHIFTS == -2.0], dice[SHIFTS == -1.0] = 0.9000, 0.8997, 0.8990
    found = choose(dice)
    assert (found.shift, found.before, found.after) == (-2.0, 0.5, 0.8997)
    assert choose(np.full(len(SHIFTS), 0.7)).shift == 0


def test_a_run_delivers_the_shifted_network_and_says_so(scenes: Path, tmp_path: Path) -> None:
    values = {
        "name": "one",
        "data": {"root": str(scenes), "size": 64, "validation": 0.25},
        "model": {"backbone": "test_efficientnet", "width": 8},
        "schedule": {
            "epochs": 1,
            "batch_size": 4,
            "learning_rate": 1e-3,
            "calibrate_threshold": True,
        },
        "engine": {"overlay_every": 0, "precision": "fp32"},
    }
    recipe = load_recipe(TrainRecipe, values, [])
    summary = run_training(recipe, tmp_path)
    run, _ = open_run(tmp_path / "one")
    state = run.state()
    assert state["status"] == "finished"
    assert state["best_dice"] == summary["best_validation_dice"]
    assert "threshold calibration" in (run.path / "log.txt").read_text()
    network = load_network(run.path)
    data = load_training_data(recipe.data)
    held_out = data.validation
    curve = dice_by_shift(network, held_out.images, held_out.masks, 64)
    at_zero = float(curve[np.abs(SHIFTS).argmin()])
    assert at_zero == pytest.approx(state["best_dice"])
    # again, as after a stop between the last epoch and the shift
    before = network.head2.bias.detach().clone()
    again = run_training(recipe, tmp_path, resume=True)
    assert again["best_validation_dice"] == pytest.approx(at_zero)
    assert run.state()["best_dice"] == pytest.approx(at_zero)
    assert torch.equal(load_network(run.path).head2.bias, before)
    assert calibrate_threshold_of_run(run, data, 64).shift == 0


def test_without_a_validation_split_it_is_refused() -> None:
    values = {
        "data": {"root": "x", "validation": 0},
        "schedule": {"epochs": 1, "calibrate_threshold": True},
    }
    with pytest.raises(UserError, match=r"calibrate_threshold needs a validation split"):
        load_recipe(TrainRecipe, values, [])
