"""Pseudo-label consistency filter: which frames without masks the student learns from.

On such a frame the student learns from the teacher alone, so that a teacher's mistake would be
copied. A mistake is rarely stable: a frame is left out where the teacher's masks of the frame and
its flips overlap too little (consistency as confidence, as in Noisy Student and FixMatch, arXiv
1911.04252 and 2001.07685, here per frame and before training). A frame that shows a test or
validation image is left out, too.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdas_edge.data.dataset import TrainingData
from kdas_edge.data.duplicates import fingerprint
from kdas_edge.data.heldout import HeldOut, has_tests, read_test_images
from kdas_edge.distill.teacher import Teacher
from kdas_edge.errors import UserError
from kdas_edge.files import read_json, write_json
from kdas_edge.recipe import TrainRecipe
from kdas_edge.run import Run

FILE_NAME = "unlabelled.json"
_RENAMED = {"agreement": "consistency"}


@dataclass(frozen=True)
class PseudoLabel:
    """The teacher's mask of one frame without ground truth, and whether it is used.

    Attributes:
        name: `unlabelled/<stem>`.
        consistency: mean Dice (0–1) between the teacher's masks of the frame and its flips.
        polyp_fraction: share of the frame that the teacher marks, 0–1.
        twin: the held-out image that it shows, or None.
        used: whether the student sees it.
    """

    name: str
    consistency: float
    polyp_fraction: float
    twin: str | None
    used: bool


def filter_pseudo_labels(
    data: TrainingData,
    recipe: TrainRecipe,
    teacher: Teacher,
    known: Path | None = None,
) -> list[PseudoLabel]:
    """Choose the frames without masks that the student sees.

    Args:
        data: with the frames among the training images.
        recipe: gives the data root with its test images, and the least consistency.
        teacher: where the frames are.
        known: the choice of an earlier start of this run (`unlabelled.json`), if they exist.

    Returns:
        One per frame, in the order of the training set.

    Raises:
        UserError: no frame is left.
    """
    train = data.train
    frames = (~train.labelled).nonzero().flatten()
    names = [train.names[int(i)] for i in frames]
    if known is not None and known.exists():
        # the first release called the consistency agreement
        rows = read_json(known)["frames"]
        verdicts = [PseudoLabel(**{_RENAMED.get(k, k): row[k] for k in row}) for row in rows]
        if [verdict.name for verdict in verdicts] == names:
            return verdicts
    found, fractions = teacher.consistency(train.images[frames])
    twins = _twins(train.images[frames], data, Path(recipe.data.root))
    least = recipe.data.pseudo_label_consistency
    verdicts = [
        PseudoLabel(name, float(a), float(f), twin, twin is None and float(a) >= least)
        for name, a, f, twin in zip(names, found, fractions, twins, strict=True)
    ]
    if not any(verdict.used for verdict in verdicts):
        raise UserError(
            f"data.unlabelled: no frame of {recipe.data.unlabelled} is left (largest consistency "
            f"{max(v.consistency for v in verdicts):.2f}); lower data.pseudo_label_consistency"
        )
    return verdicts


def keep_consistent(data: TrainingData, verdicts: Sequence[PseudoLabel]) -> TrainingData:
    """Drop the frames that are not used."""
    dropped = {verdict.name for verdict in verdicts if not verdict.used}
    kept = torch.tensor([name not in dropped for name in data.train.names])
    return replace(data, train=data.train.where(kept))


def record(run: Run, verdicts: Sequence[PseudoLabel], least: float) -> None:
    """Write the choice to `unlabelled.json` in the run, and count them in its log."""
    if run.writes:
        write_json(run.path / FILE_NAME, {"frames": [asdict(verdict) for verdict in verdicts]})
    used = sum(verdict.used for verdict in verdicts)
    alike = sum(verdict.twin is not None for verdict in verdicts)
    run.log(
        f"frames without masks: {used} of {len(verdicts)} used; {alike} show held-out images, on "
        f"{len(verdicts) - used - alike} the teacher's masks of flips overlap less than {least:g}"
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
