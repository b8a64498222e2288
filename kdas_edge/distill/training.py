"""From a recipe to a finished run: what `kdas-edge train` and `kdas-edge distill` do."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from kdas_edge.data.dataset import load_training_data, with_frames
from kdas_edge.data.lineage import SPLIT_FILE, read_lineages
from kdas_edge.data.splits import remarks, write_split
from kdas_edge.distill import pseudo_labels
from kdas_edge.distill.engine import fit
from kdas_edge.distill.left_out import evaluate_left_out
from kdas_edge.distill.schedule import derive_seed
from kdas_edge.distill.teacher import Teacher
from kdas_edge.distill.threshold import calibrate_threshold_of_run
from kdas_edge.errors import UserError
from kdas_edge.models.architecture import Architecture, SegmentationNetwork
from kdas_edge.models.checkpoints import load_network
from kdas_edge.models.zoo import build, multiply_accumulates, parameters
from kdas_edge.recipe import TrainRecipe
from kdas_edge.run import Run, only_writer

# parts of a network that are the same whatever the encoder, and what they expect of it
_DECODER = ("cfm.", "sam.", "refine.", "head1.", "head2.")
_AFFINE = ("bn.weight", "bn.bias")


def run_training(
    recipe: TrainRecipe, out: Path, resume: bool = False, overwrite: bool = False
) -> dict[str, Any]:
    """Train or distil one network.

    Args:
        recipe: the resolved recipe; `teacher` is set for distillation.
        out: the folder of runs; the run is `out/<recipe.name>`.
        resume: go on with a stopped run.
        overwrite: replace an existing run.

    Returns:
        A summary: run, best epoch and Dice on the validation split, parameters,
        multiply-accumulates, seconds.

    Raises:
        UserError: anything wrong with the recipe, the data, a checkpoint or the output folder.
    """
    with only_writer(out, recipe, resume, overwrite):
        return _train(recipe, out, resume, overwrite)


def _train(recipe: TrainRecipe, out: Path, resume: bool, overwrite: bool) -> dict[str, Any]:
    # everything a person can have got wrong is found before the run exists
    torch.manual_seed(derive_seed(recipe.seed))
    student = build(recipe.model, recipe.data.size)
    if recipe.model.init_from is not None:
        start_from(Path(recipe.model.init_from), student)
    if recipe.model.init_decoder_from is not None:
        take_decoder(Path(recipe.model.init_decoder_from), student)
    teacher = Teacher.of_recipe(recipe, student)
    before = read_lineages([recipe.model.init_from, recipe.model.init_decoder_from, recipe.teacher])
    record = out / recipe.name / SPLIT_FILE
    data = load_training_data(
        recipe.data,
        max(recipe.data.size, recipe.teacher_size or 0),
        before,
        resumed=record if resume else None,
    )
    if teacher is None:  # nothing can be learnt where there is no mask
        data = replace(data, train=data.train.where(data.train.labelled))
    verdicts: list[pseudo_labels.PseudoLabel] = []
    if recipe.data.unlabelled is not None:
        assert teacher is not None  # the recipe sees to it
        known = out / recipe.name / pseudo_labels.FILE_NAME
        verdicts = pseudo_labels.filter_pseudo_labels(
            data, recipe, teacher, known if resume else None
        )
        data = pseudo_labels.keep_consistent(data, verdicts)
        data = with_frames(data, {one.name for one in verdicts if one.used})

    run = Run.create(
        out, recipe, resume, overwrite, "train" if recipe.teacher is None else "distill"
    )
    if run.writes and not record.exists():
        write_split(record, data.split, data.source)
    cost = describe("student" if teacher else "network", student, recipe.data.size)
    run.log(cost.pop("line"))
    run.update(**cost)
    if teacher is not None:
        run.log(describe("teacher", teacher.network, teacher.size)["line"])
    if recipe.data.unlabelled is not None:
        pseudo_labels.record(run, verdicts, recipe.data.pseudo_label_consistency)
    run.log(
        f"data: {len(data.train)} training and {len(data.validation)} validation images, "
        f"split {data.split.sha256[:12]}"
    )
    for line in remarks(data.split):
        run.log(line)
    result = fit(recipe, student, data, run, teacher)
    dice = result.best_dice
    if recipe.schedule.calibrate_threshold:
        dice = calibrate_threshold_of_run(run, data, recipe.data.size).after
    left_out = None
    if data.left_out is not None and run.writes:
        centre = str(recipe.data.leave_centre_out)
        left_out = evaluate_left_out(run, data.left_out, recipe.data.size, centre)
    return {
        "run": str(run.path),
        "kind": "train" if recipe.teacher is None else "distill",
        "best_epoch": result.best_epoch,
        "best_validation_dice": dice,
        "seconds": result.seconds,
        **cost,
        "left_out": left_out,
        "history": result.history,
    }


def start_from(source: Path, network: SegmentationNetwork) -> None:
    """Fill a network with the weights of a run or checkpoint; the image size may be another.

    A network of stride 4 may go on from one of stride 8: what it has more begins by adding nothing.

    Raises:
        UserError: `source` is absent or damaged, or is of another backbone or width, or of a finer
            stride.
    """
    other, architecture = load_network(source), network.architecture
    found = other.architecture
    if (found.backbone, found.width) != (architecture.backbone, architecture.width):
        raise UserError(
            f"model.init_from: {source} is {found.backbone} of width {found.width}, the recipe "
            f"says {architecture.backbone} of width {architecture.width}; set model.backbone and "
            "model.width to match"
        )
    _refuse_finer("model.init_from", source, found, architecture)
    new = network.load_state_dict(other.state_dict(), strict=False).missing_keys
    assert all(key.startswith("refine.") for key in new), new


def take_decoder(source: Path, network: SegmentationNetwork) -> None:
    """Begin with the decoder of a run or checkpoint, and learn the encoder that fits to it.

    A student whose decoder is of the teacher's shape need not learn it again (the reused classifier
    of SimKD, Chen et al., arXiv 2203.14001; here as a beginning that is trained on). Of the layers
    between encoder and decoder it takes what the decoder expects: scale and shift of its inputs.

    Raises:
        UserError: `source` is absent or damaged, or its decoder has another width or a finer
            stride.
    """
    other, architecture = load_network(source), network.architecture
    found = other.architecture
    if found.width != architecture.width:
        raise UserError(
            f"model.init_decoder_from: {source} has width {found.width}, the recipe says "
            f"{architecture.width}; set model.width to match"
        )
    _refuse_finer("model.init_decoder_from", source, found, architecture)
    state = {
        key: value
        for key, value in other.state_dict().items()
        if key.startswith(_DECODER) or (key.startswith("translate") and key.endswith(_AFFINE))
    }
    unknown = network.load_state_dict(state, strict=False).unexpected_keys
    assert state and not unknown, unknown


def _refuse_finer(key: str, source: Path, found: Architecture, wanted: Architecture) -> None:
    """A coarser network lacks only what begins by adding nothing; of a finer one a part is lost."""
    if found.stride < wanted.stride:
        raise UserError(
            f"{key}: {source} is of stride {found.stride}, the recipe says {wanted.stride}; "
            f"set model.stride={found.stride}"
        )


def describe(role: str, network: SegmentationNetwork, size: int) -> dict[str, Any]:
    """Count a network's parameters and multiply-accumulates for one image at `size`×`size`.

    Returns:
        `parameters`, `multiply_accumulates`, and both in words as `line`.
    """
    architecture = network.architecture
    count, cost = parameters(network), multiply_accumulates(network, size)
    return {
        "parameters": count,
        "multiply_accumulates": cost,
        "line": (
            f"{role}: Polyp-PVT on {architecture.backbone}, width {architecture.width}, "
            f"stride {architecture.stride}, {count / 1e6:.2f} M parameters, "
            f"{cost / 1e9:.2f} G multiply-accumulates at {size}×{size}"
        ),
    }
