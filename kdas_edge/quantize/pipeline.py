"""From a float run to a quantised run: what `kdas-edge quantize` does.

runs/<name>/ has, besides what every run has (kdas_edge.run):
  nncf_config.json              where the quantisers sit
  calibration.json              which frames set their ranges, and of what kind those are
  checkpoints/float.safetensors the student it came from, so that the run is complete by itself
  checkpoints/ptq.safetensors   before fine-tuning
  checkpoints/best.safetensors  what is delivered: the better of PTQ and QAT on validation
"""

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kdas_edge.data.dataset import TrainingData, load_training_data
from kdas_edge.data.splits import write_split
from kdas_edge.distill.engine import derive_seed, validate
from kdas_edge.distill.training import describe
from kdas_edge.errors import GateError, UserError
from kdas_edge.files import check_output_directory, read_json, write_json
from kdas_edge.models.checkpoints import load_network, save_network
from kdas_edge.models.zoo import Architecture
from kdas_edge.quantize.calibration import CalibrationSet, calibration_set
from kdas_edge.quantize.gate import Gate, judge
from kdas_edge.quantize.ptq import Ranges, post_training_quantize
from kdas_edge.quantize.qat import CONFIG, fine_tune, load_quantized, save_config
from kdas_edge.quantize.toolkit import import_nncf
from kdas_edge.recipe import QuantizeRecipe
from kdas_edge.run import Run, open_run

FLOAT = Path("checkpoints") / "float.safetensors"
PTQ = Path("checkpoints") / "ptq.safetensors"
CALIBRATION = "calibration.json"

# Dice on validation; mobilenetv2_100 lost 0.002 by one range per tensor, EfficientNet-B0's masks
# fell from 0.99 to 0.88 Dice against its float model
_RANGES_MAY_COST = 0.005


def run_quantization(
    recipe: QuantizeRecipe, out: Path, resume: bool = False, overwrite: bool = False
) -> dict[str, Any]:
    """Quantise a float student, fine-tune it if the recipe has a schedule, and judge it.

    Args:
        recipe: the resolved recipe.
        out: the folder of runs; the run is `out/<recipe.name>`.
        resume: go on with a stopped run; calibration is not repeated.
        overwrite: replace an existing run.

    Returns:
        A summary: run, gate (see `Gate`), number of quantisers, seconds.

    Raises:
        UserError: anything wrong with the recipe, the student, the data or the output folder.
        GateError: more Dice was lost than `max_drop` allows; the run is complete on disk.
    """
    started = time.monotonic()
    # everything a person can have got wrong is found before the run exists
    if not resume:
        check_output_directory(out / recipe.name, overwrite)
    student, architecture = load_network(Path(recipe.student))
    if architecture.size != recipe.data.size:
        raise UserError(
            f"the student {recipe.student} is made for {architecture.size} pixels, data.size is "
            f"{recipe.data.size}; set data.size={architecture.size}"
        )
    if recipe.data.validation == 0:
        raise UserError("data.validation is 0, but the gate needs a validation split; set 0.1")
    needs_teacher = recipe.schedule is not None and recipe.loss.variant != "supervised"
    teacher, teacher_architecture = (
        load_network(Path(str(recipe.teacher))) if needs_teacher else (None, None)
    )
    import_nncf()
    data = load_training_data(recipe.data, max(recipe.data.size, recipe.teacher_size or 0))
    frames = calibration_set(data, recipe.calibration, recipe.data.size, recipe.seed)

    run = Run.create(out, recipe, resume, overwrite, "quantize")
    if run.writes:
        write_split(run.path / "split.json", data.split, data.source)
    run.log(describe("student", student, architecture, recipe.data.size)["line"])
    float_scores = _scores(student, architecture, data)
    run.log(f"float student: validation Dice {float_scores.mean():.4f}")

    if _calibrated(run):
        quantized = load_quantized(run.path, PTQ)[0]
        ptq_scores = _scores(quantized, architecture, data)
    else:
        quantized, ptq_scores = _calibrate(
            recipe, run, student, architecture, data, frames, float(float_scores.mean())
        )
    qat_scores = None
    if recipe.schedule is not None:
        torch.manual_seed(derive_seed(recipe.seed))
        fine_tune(recipe, quantized, architecture, data, run, teacher, teacher_architecture)
        if run.writes:
            tuned, _ = load_quantized(run.path)
            qat_scores = _scores(tuned, architecture, data)

    gate = judge(float_scores, ptq_scores, qat_scores, recipe.max_drop, recipe.seed)
    if run.writes:
        _deliver(run, gate)
    seconds = time.monotonic() - started
    summary = {
        "run": str(run.path),
        "kind": "quantize",
        "gate": gate.as_json(),
        "calibration": read_json(run.path / CALIBRATION) if run.writes else {},
        "seconds": seconds,
        "history": run.history(),
    }
    status = "finished" if gate.passed else "gate failed"
    run.update(
        status=status,
        gate=gate.as_json(),
        best_dice=max(gate.ptq_dice, gate.qat_dice or 0.0),
        student_recipe=_student_recipe(Path(recipe.student)),
        total_seconds=seconds,
    )
    write_json(run.path / "summary.json", summary)
    if not gate.passed:
        raise GateError(
            f"{run.path}: int8 loses {gate.drop:.4f} Dice on validation, max_drop is "
            f"{gate.max_drop:g}; the best attempt is kept there; fine-tune longer "
            "(schedule.epochs), or allow more (max_drop)"
        )
    return summary


def _calibrated(run: Run) -> bool:
    """True if a run that stopped has its post-training quantisation already."""
    return (run.path / CONFIG).is_file() and (run.path / PTQ).is_file()


def _calibrate(
    recipe: QuantizeRecipe,
    run: Run,
    student: nn.Module,
    architecture: Architecture,
    data: TrainingData,
    frames: CalibrationSet,
    float_dice: float,
) -> tuple[nn.Module, NDArray[np.float64]]:
    """Quantise after training; returns the network and its Dice per validation image.

    One range per tensor comes first: every runtime computes it in int8. Where it costs more than
    `_RANGES_MAY_COST`, one per channel is tried, and the better is kept.
    """
    student.to("cuda" if torch.cuda.is_available() else "cpu")
    samples = frames.samples(architecture)
    tried: dict[Ranges, float] = {}
    best: tuple[Ranges, nn.Module, NDArray[np.float64]] | None = None
    choices: tuple[Ranges, ...] = ("tensor", "channel")
    for ranges in choices:
        candidate = post_training_quantize(student, samples, recipe.ptq, ranges)
        scores = _scores(candidate, architecture, data)
        tried[ranges] = float(scores.mean())
        run.log(
            f"post-training quantisation, one range per {ranges}: validation Dice "
            f"{tried[ranges]:.4f}"
        )
        if best is None or tried[ranges] > float(best[2].mean()):
            best = ranges, candidate, scores
        if float_dice - tried[ranges] <= min(_RANGES_MAY_COST, recipe.max_drop):
            break
    assert best is not None
    kept, quantized, scores = best
    if kept == "channel":
        run.log(
            "kept one range per channel; ONNX Runtime computes the convolutions behind them in "
            "float, OpenVINO in int8"
        )
    if run.writes:
        save_network(run.path / FLOAT, student.state_dict(), architecture)
        write_json(
            run.path / CALIBRATION,
            {"frames": list(frames.names), "ranges_tried": tried, "ranges_kept": kept},
        )
        save_network(run.path / PTQ, quantized.state_dict(), architecture)
        # last: its presence says that calibration is complete
        save_config(run.path / CONFIG, quantized)
    return quantized, scores


def _scores(
    network: nn.Module, architecture: Architecture, data: TrainingData
) -> NDArray[np.float64]:
    device = next(network.parameters()).device
    scores, _ = validate(
        network,
        data.validation.images.to(device),
        data.validation.masks.to(device),
        architecture.size,
        architecture,
    )
    return scores


def _deliver(run: Run, gate: Gate) -> None:
    """Make `best` the one that was kept, and say so."""
    if gate.kept == "ptq":
        if gate.qat_dice is not None:
            run.log(
                f"fine-tuning ended at {gate.qat_dice:.4f}, not above post-training "
                f"quantisation at {gate.ptq_dice:.4f}: the latter is kept"
            )
        shutil.copyfile(run.path / PTQ, run.best_checkpoint)
    low, high = gate.interval
    run.log(
        f"kept {gate.kept}: {gate.drop:+.4f} Dice lost on {gate.images} validation images "
        f"(95 % interval {low:+.4f} to {high:+.4f}), allowed {gate.max_drop:g}"
    )


def _student_recipe(source: Path) -> dict[str, Any]:
    """The float student's recipe, for the provenance of a bundle; empty for a bare checkpoint."""
    if not source.is_dir():
        return {}
    recipe: dict[str, Any] = open_run(source)[1].model_dump(mode="json")
    return recipe
