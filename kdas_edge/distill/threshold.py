"""Threshold calibration: the output's bias, set so that 0.5 is best on the validation split.

A segmentation loss that weighs borders and overlap leaves a network too generous or too strict: the
threshold with the best Dice is then far from 0.5 (0.9 for a teacher trained with the structure
loss). Every host would have to know that threshold. One number added to the logits moves it to 0.5:
σ(z₁ + z₂ + b) > 0.5 is z₁ + z₂ > -b. No other weight changes, and KDAS' attention, a softmax over
positions, does not see a constant.
"""

from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdas_edge.data.dataset import TrainingData
from kdas_edge.distill.validation import mask_dice, outputs_in_batches
from kdas_edge.models.architecture import SegmentationNetwork
from kdas_edge.models.checkpoints import load_network, save_network
from kdas_edge.run import Run

# shifts of the logit that are tried: thresholds from 0.018 to 0.982
SHIFTS: NDArray[np.float64] = np.round(np.arange(-4, 4.01, 0.1), 1)
# of shifts that are as good up to this mean Dice, the smallest is taken
_AS_GOOD = 5e-4


@dataclass(frozen=True)
class ThresholdCalibration:
    """What was added to the logits, and what it gave on the validation split.

    Attributes:
        shift: added to z₂, and so to z₁ + z₂.
        before, after: mean Dice (deploy protocol) without and with it.
    """

    shift: float
    before: float
    after: float

    def line(self) -> str:
        """For a log."""
        return (
            f"threshold calibration: logits {self.shift:+.1f}, validation Dice {self.before:.4f} "
            f"before, {self.after:.4f} after"
        )


@torch.no_grad()
def dice_by_shift(
    network: SegmentationNetwork,
    images: Tensor,
    masks: Tensor,
    size: int,
    batch: int = 8,
) -> NDArray[np.float64]:
    """Mean Dice of σ(z₁ + z₂ + b) > 0.5 for each b in `SHIFTS`.

    Args:
        network: returns two logit maps.
        images: (N, 3, S, S) uint8.
        masks: (N, 1, S, S) uint8, 0 or 1.
        size: the network's input size.
        batch: images at a time.

    Returns:
        (81,) means over the images; an image without polyp counts 1 where nothing is marked.
    """
    total = np.zeros(len(SHIFTS))
    for logits, truth in outputs_in_batches(network, images, masks, size, batch):
        for index, shift in enumerate(SHIFTS):
            total[index] += float(mask_dice(logits > -shift, truth).sum())
    return total / len(images)


def choose(dice: NDArray[np.float64]) -> ThresholdCalibration:
    """The smallest shift that is as good as the best one.

    Args:
        dice: (81,), of `dice_by_shift`.
    """
    good = np.flatnonzero(dice >= dice.max() - _AS_GOOD)
    best = good[np.argmin(np.abs(SHIFTS[good]))]
    return ThresholdCalibration(
        float(SHIFTS[best]), float(dice[np.abs(SHIFTS).argmin()]), float(dice[best])
    )


def calibrate_threshold(
    network: SegmentationNetwork, data: TrainingData, size: int
) -> ThresholdCalibration:
    """Shift a trained network's logits, in place, as its validation split wants it.

    Args:
        network: of ours, float or fake-quantised.
        data: with a validation split.
        size: the network's input size.
    """
    held_out = data.validation
    found = choose(dice_by_shift(network, held_out.images, held_out.masks, size))
    with torch.no_grad():
        network.get_parameter("head2.bias").add_(found.shift)
    return found


def calibrate_threshold_of_run(run: Run, data: TrainingData, size: int) -> ThresholdCalibration:
    """Shift the logits of a run's best checkpoint; a second call finds nothing left to shift.

    Args:
        run: trained, with a best checkpoint; its record is brought up to date.
        data: with a validation split.
        size: the network's input size.
    """
    network = load_network(run.best_checkpoint)
    found = calibrate_threshold(network, data, size)
    if run.writes and found.shift:
        save_network(run.best_checkpoint, network.state_dict(), network.architecture)
        run.update(threshold_calibration=asdict(found))
    run.update(best_dice=found.after)
    run.log(found.line())
    return found
