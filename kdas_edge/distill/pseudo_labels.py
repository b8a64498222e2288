"""Frames without masks: which of them the teacher may speak about.

On such a frame the student learns from the teacher alone, so that a teacher's mistake would be
copied. A mistake is rarely stable: the teacher is asked about the frame and its mirror images, and
a frame on which the answers do not overlap is left out (consistency as confidence, as in
Noisy Student and FixMatch, arXiv 1911.04252 and 2001.07685, here per frame and before training).
A frame that shows a test or validation image is left out too, whatever the teacher says.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdas_edge.console import progress
from kdas_edge.data.dataset import TrainingData
from kdas_edge.data.duplicates import fingerprint
from kdas_edge.data.heldout import HeldOut, has_tests, read_test_images
from kdas_edge.distill.validation import mask_dice
from kdas_edge.errors import UserError
from kdas_edge.files import read_json, write_json
from kdas_edge.models.architecture import FullSize, SegmentationNetwork
from kdas_edge.models.inputs import network_input
from kdas_edge.models.tta import flipped_outputs
from kdas_edge.recipe import TrainRecipe
from kdas_edge.run import Run

FILE_NAME = "unlabelled.json"
# the frame itself, left to right, upside down
_MIRRORS = 3


@dataclass(frozen=True)
class FrameVerdict:
    """What was decided on one frame without a mask.

    Attributes:
        name: `unlabelled/<stem>`.
        agreement: mean Dice (0–1) between the teacher's masks of the frame's mirror images.
        polyp_fraction: share of the frame that the teacher marks, 0–1.
        twin: the held-out image that it shows, or None.
        used: whether the student sees it.
    """

    name: str
    agreement: float
    polyp_fraction: float
    twin: str | None
    used: bool


@torch.no_grad()
def agreement(
    teacher: SegmentationNetwork, images: Tensor, size: int, batch: int = 8
) -> tuple[Tensor, Tensor]:
    """Ask a teacher about each frame and its mirror images.

    Args:
        teacher: in evaluation mode; returns two logit maps.
        images: (N, 3, S, S) uint8, where the teacher is.
        size: side of what the teacher sees, in pixels.
        batch: frames at a time.

    Returns:
        (N,) float64: mean Dice over the pairs of answers, turned back; two empty masks agree, 1.
        (N,) float64: fraction of the frame that is marked, mean over the answers.
    """
    agreements, fractions = [], []
    with progress(len(images), "asking the teacher about frames without masks") as advance:
        for start in range(0, len(images), batch):
            x = network_input(
                images[start : start + batch].float() / 255, size, teacher.architecture
            )
            answers = flipped_outputs(FullSize(teacher), x, _MIRRORS)
            masks = [(z1 + z2 > 0).flatten(1) for z1, z2 in answers]
            pairs = [mask_dice(masks[i], masks[j]) for i in range(len(masks)) for j in range(i)]
            agreements.append(torch.stack(pairs).mean(0))
            fractions.append(torch.stack([mask.double().mean(1) for mask in masks]).mean(0))
            advance(len(x))
    return torch.cat(agreements).cpu(), torch.cat(fractions).cpu()


def filter_pseudo_labels(
    data: TrainingData,
    recipe: TrainRecipe,
    teacher: SegmentationNetwork,
    known: Path | None = None,
) -> list[FrameVerdict]:
    """Decide which frames without masks the student sees.

    Args:
        data: with the frames among the training images.
        recipe: gives the sizes, the data root with its test images, and the least agreement.
        teacher: in evaluation mode.
        known: verdicts of an earlier start of this run (`unlabelled.json`), if they exist.

    Returns:
        One verdict per frame, in the order of the training set.

    Raises:
        UserError: no frame is left.
    """
    train = data.train
    frames = (~train.labelled).nonzero().flatten()
    names = [train.names[int(i)] for i in frames]
    if known is not None and known.exists():
        verdicts = [FrameVerdict(**row) for row in read_json(known)["frames"]]
        if [verdict.name for verdict in verdicts] == names:
            return verdicts
    size = recipe.teacher_size or recipe.data.size
    agreements, fractions = agreement(teacher, train.images[frames], size)
    twins = _twins(train.images[frames], data, Path(recipe.data.root))
    least = recipe.data.pseudo_label_consistency
    verdicts = [
        FrameVerdict(name, float(a), float(f), twin, twin is None and float(a) >= least)
        for name, a, f, twin in zip(names, agreements, fractions, twins, strict=True)
    ]
    if not any(verdict.used for verdict in verdicts):
        raise UserError(
            f"data.unlabelled: no frame of {recipe.data.unlabelled} is left (largest agreement "
            f"{max(v.agreement for v in verdicts):.2f}); lower data.pseudo_label_consistency"
        )
    return verdicts


def keep_consistent(data: TrainingData, verdicts: Sequence[FrameVerdict]) -> TrainingData:
    """Drop the frames that are not used."""
    dropped = {verdict.name for verdict in verdicts if not verdict.used}
    kept = torch.tensor([name not in dropped for name in data.train.names])
    return replace(data, train=data.train.where(kept))


def record(run: Run, verdicts: Sequence[FrameVerdict], least: float) -> None:
    """Write the verdicts to `unlabelled.json` in the run, and count them in its log."""
    if run.writes:
        write_json(run.path / FILE_NAME, {"frames": [asdict(verdict) for verdict in verdicts]})
    used = sum(verdict.used for verdict in verdicts)
    alike = sum(verdict.twin is not None for verdict in verdicts)
    run.log(
        f"frames without masks: {used} of {len(verdicts)} used; {alike} show held-out images, on "
        f"{len(verdicts) - used - alike} the teacher's mirrored masks overlap less than {least:g}"
    )


def _twins(images: Tensor, data: TrainingData, root: Path) -> Sequence[str | None]:
    """For each frame the test or validation image that it shows, or None."""
    validation = data.validation
    held_out = HeldOut(
        tuple(f"validation/{name}" for name in validation.names),
        ("",) * len(validation),
        tuple(fingerprint(_as_array(image)) for image in validation.images),
    )
    if has_tests(root):
        held_out = held_out + read_test_images(root)
    found = held_out.matches([fingerprint(_as_array(image)) for image in images])
    return [None if match is None else match.twin for match in found]


def _as_array(image: Tensor) -> "np.ndarray":
    return np.ascontiguousarray(image.cpu().permute(1, 2, 0).numpy())
