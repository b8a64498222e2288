"""Quantisation of a float run, as `kdas-edge quantize` does it.

runs/<name>/ has, besides what every run has (kdas_edge.run):
  attempts.json                  everything that was tried, with its Dice
  nncf_config.json               where the quantisers sit in what is delivered
  calibration.json               which frames set their ranges, and of what kind those are
  sensitivity.json               the layers by what int8 does to them, if the gate was missed
  latency.json                   what their return to float costs, if it was needed
  checkpoints/float.safetensors  the student it came from, so that the run is complete by itself
  checkpoints/ptq.safetensors    after calibration; likewise qat and mixed
  checkpoints/best.safetensors   what is delivered: the best of PTQ, QAT and mixed on validation
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kdas_edge.bundle.tolerances import TOLERANCES
from kdas_edge.data.dataset import load_training_data
from kdas_edge.data.lineage import SPLIT_FILE, read_lineage
from kdas_edge.data.splits import remarks, write_split
from kdas_edge.distill.schedule import derive_seed
from kdas_edge.distill.teacher import Teacher
from kdas_edge.distill.training import describe
from kdas_edge.errors import GateError, UserError, first_line
from kdas_edge.files import read_json, write_json
from kdas_edge.models.architecture import SegmentationNetwork
from kdas_edge.models.checkpoints import known_recipe, load_network
from kdas_edge.models.deploy import deploy_form
from kdas_edge.quantize.attempts import AttemptLog, Phase
from kdas_edge.quantize.calibration.frames import calibration_set
from kdas_edge.quantize.evaluation import Evaluation, evaluate
from kdas_edge.quantize.gate import Gate
from kdas_edge.quantize.job import CALIBRATION, FLOAT, Job
from kdas_edge.quantize.layers import ignored_operations
from kdas_edge.quantize.phases import (
    best_attempt,
    deliver,
    fine_tuning,
    mixed_precision,
    post_training,
)
from kdas_edge.quantize.sensitivity import Ranking
from kdas_edge.quantize.toolkit import check_compiler, import_nncf
from kdas_edge.recipe import QuantizeRecipe
from kdas_edge.run import Run, only_writer

LATENCY = "latency.json"

# times networks by name, all of one input size; the first is the reference
Stopwatch = Callable[[Mapping[str, nn.Module], int], dict[str, Any]]
# share of mask pixels on which the exported form of a network differs from it, mean over images
# (N, S, S, 3) uint8 RGB, 0…1
Disagreement = Callable[[SegmentationNetwork, NDArray[np.uint8]], float]
# images on which the kept network is compared with its exported form
_COMPARED = 32


def run_quantization(
    recipe: QuantizeRecipe,
    out: Path,
    resume: bool = False,
    overwrite: bool = False,
    stopwatch: Stopwatch | None = None,
    disagreement: Disagreement | None = None,
) -> dict[str, Any]:
    """Quantise a float student, fine-tune it if the recipe has a schedule, and apply the gate.

    If that does not pass the gate, layers return to float until it does (`recipe.mixed`).

    Args:
        recipe: the resolved recipe.
        out: the folder of runs; the run is `out/<recipe.name>`.
        resume: go on with a stopped run; what it has done is not repeated.
        overwrite: replace an existing run.
        stopwatch: measures what layers in float cost in time; None: not measured.
        disagreement: measures whether the export will refuse the kept network; None: not measured.

    Returns:
        A summary: run, gate (see `Gate`), attempts (see `Attempt`), warnings, mixed, calibration,
        history and seconds.

    Raises:
        UserError: anything wrong with the recipe, the student, the data or the output folder.
        GateError: the gate fails, or is undecided and `recipe.accept_undecided` is not set; the
            run is complete on disk.
    """
    with only_writer(out, recipe, resume, overwrite):
        return _quantize(recipe, out, resume, overwrite, stopwatch, disagreement)


def _quantize(
    recipe: QuantizeRecipe,
    out: Path,
    resume: bool,
    overwrite: bool,
    stopwatch: Stopwatch | None,
    disagreement: Disagreement | None,
) -> dict[str, Any]:
    started = time.monotonic()
    # everything a person can have got wrong is found before the run exists
    student = load_network(Path(recipe.student))
    architecture = student.architecture
    if architecture.size != recipe.data.size:
        raise UserError(
            f"the student {recipe.student} is made for {architecture.size} pixels, data.size is "
            f"{recipe.data.size}; set data.size={architecture.size}"
        )
    if recipe.data.validation == 0:
        raise UserError("data.validation is 0, but the gate needs a validation split; set 0.1")
    teacher = Teacher.of_recipe(recipe, student) if recipe.schedule is not None else None
    import_nncf()
    check_compiler(torch.cuda.is_available())
    ignored_operations(deploy_form(student), architecture.size, recipe.ptq.ignored)
    record = out / recipe.name / SPLIT_FILE
    data = load_training_data(
        recipe.data,
        max(recipe.data.size, recipe.teacher_size or 0),
        read_lineage(Path(recipe.student)),
        only_unseen=True,
        resumed=record if resume else None,
    )
    frames = calibration_set(data, recipe.calibration, recipe.data.size, recipe.seed)

    run = Run.create(out, recipe, resume, overwrite, "quantize")
    if run.writes and not record.exists():
        write_split(record, data.split, data.source)
    for line in remarks(data.split):
        run.log(line)
    if recipe.engine.threads:
        torch.set_num_threads(recipe.engine.threads)
    cost = describe("student", student, recipe.data.size)
    run.log(cost.pop("line"))
    run.update(**cost)
    student.to("cuda" if torch.cuda.is_available() else "cpu")
    reference = evaluate(student, data.validation)
    run.log(f"float student: validation Dice {reference.mean:.4f}")
    attempts = AttemptLog(run.path, run.writes)
    job = Job(recipe, run, student, data, frames, reference, attempts)

    quantized, found = post_training(job)
    candidates: dict[Phase, Evaluation] = {"ptq": found}
    if recipe.schedule is not None:
        torch.manual_seed(derive_seed(recipe.seed))
        tuned = fine_tuning(job, quantized, teacher)
        candidates["qat"] = tuned
    if not run.writes:
        return {"run": str(run.path), "kind": "quantize"}
    gate = job.judge(candidates)
    mixed: dict[str, Any] | None = None
    if not _accepted(gate, recipe) and recipe.mixed.enabled:
        base = gate.kept
        layered, ranking = mixed_precision(job, base)
        if layered is not None:
            candidates["mixed"] = layered
            gate = job.judge(candidates)
            mixed = _describe_mixed(job, base, ranking, gate, stopwatch)
    warnings = gate.warnings()
    if disagreement is not None:
        images = job.data.validation.images
        warnings += export_warnings(gate.kept, job.load(gate.kept), images, disagreement)
    return _finish(job, gate, mixed, warnings, time.monotonic() - started)


def export_warnings(
    kept: Phase, network: SegmentationNetwork, images: Tensor, disagreement: Disagreement
) -> list[str]:
    """One line if the export would refuse a network, else none.

    Args:
        kept: how the network was made, for the line.
        network: on the CPU.
        images: (N, 3, S, S) uint8 RGB; at most 32 of them are compared.
        disagreement: measures the network on them.
    """
    chosen = np.linspace(0, len(images) - 1, min(_COMPARED, len(images))).round().astype(int)
    pixels = images[torch.from_numpy(chosen)].permute(0, 2, 3, 1).contiguous().cpu().numpy()
    limit = TOLERANCES["int8"].disagreement
    try:
        found = disagreement(network, pixels)
    except RuntimeError as error:  # what OpenVINO raises; hours of work must not end by it
        return [f"warning: {kept} was not compared with its OpenVINO model: {first_line(error)}"]
    if found <= limit:
        return []
    return [
        f"warning: the OpenVINO model of {kept} differs from it on {found:.2%} of mask pixels "
        f"({limit:.1%} allowed), so that the export will refuse it; try --search, "
        "ptq.activation_ranges=channel or fine-tuning (schedule.epochs)"
    ]


def _describe_mixed(
    job: Job, base: Phase, ranking: Ranking, gate: Gate, stopwatch: Stopwatch | None
) -> dict[str, Any]:
    attempt = best_attempt(job, "mixed")
    assert attempt is not None
    latency = None
    if gate.kept == "mixed" and gate.passed and stopwatch is not None:
        latency = _time(job, base, stopwatch)
    return {
        "base": base,
        "layers": attempt.layers,
        "of": len(ranking.layers),
        "passed": attempt.passed,
        "ranking": ranking.as_json(),
        "latency": latency,
    }


def _time(job: Job, base: Phase, stopwatch: Stopwatch) -> dict[str, Any] | None:
    """Time float, int8 and mixed, once in the life of a run."""
    path = job.run.path / LATENCY
    if path.is_file():
        known: dict[str, Any] = read_json(path)
        return known
    networks = {
        "float": load_network(job.run.path / FLOAT),
        "int8": job.load(base),
        "mixed": job.load("mixed"),
    }
    try:
        latency = stopwatch(networks, job.architecture.size)
    except RuntimeError as error:  # what OpenVINO raises; hours of work must not end by it
        job.run.log(f"latency not measured: {first_line(error)}")
        return None
    write_json(path, latency)
    return latency


def _finish(
    job: Job, gate: Gate, mixed: dict[str, Any] | None, warnings: list[str], seconds: float
) -> dict[str, Any]:
    """Deliver what was kept, write the summary, and say whether the gate was passed."""
    run, accepted = job.run, _accepted(gate, job.recipe)
    deliver(job, gate.kept)
    low, high = gate.interval
    run.log(
        f"kept {gate.kept}: {gate.drop:+.4f} Dice lost on {gate.images} validation images "
        f"(95 % interval {low:+.4f} to {high:+.4f}), allowed {gate.max_drop:g}: {gate.verdict}"
    )
    for line in warnings:
        run.log(line)
    summary = {
        "run": str(run.path),
        "kind": "quantize",
        "gate": gate.as_json(),
        "attempts": job.attempts.as_json(),
        "warnings": warnings,
        "mixed": mixed,
        "calibration": read_json(run.path / CALIBRATION),
        "seconds": seconds,
        "history": run.history(),
    }
    run.update(
        status="finished" if accepted else f"gate {gate.verdict}",
        gate=gate.as_json(),
        best_dice=gate.float_dice - gate.drop,
        float_layers=mixed["layers"] if mixed and gate.kept == "mixed" else [],
        student_recipe=known_recipe(Path(job.recipe.student)),
        total_seconds=seconds,
    )
    write_json(run.path / "summary.json", summary)
    if not accepted:
        raise GateError(
            f"{run.path}: {_reason(gate)}; the best attempt is kept there; {_remedy(gate)}"
        )
    return summary


def _accepted(gate: Gate, recipe: QuantizeRecipe) -> bool:
    return gate.passed or (gate.verdict == "undecided" and recipe.accept_undecided)


def _remedy(gate: Gate) -> str:
    remedies = [
        "fine-tune longer (schedule.epochs)",
        "try other settings (--search)",
        "allow more (--max-drop)",
    ]
    if gate.verdict == "undecided":
        remedies = [
            "validate on more images (data.validation)",
            *remedies[1:],
            "--accept-undecided",
        ]
    return f"{', '.join(remedies[:-1])}, or {remedies[-1]}"


def _reason(gate: Gate) -> str:
    if gate.not_finite:
        return f"NaN or infinity on {gate.not_finite} of {gate.images} validation images"
    if gate.max_group_drop is not None and _decided_by_group(gate):
        worst = max(gate.groups, key=lambda group: group.interval[_END[gate.verdict]])
        what, limit = (
            f"{worst.name} ({worst.images} images)",
            f"max_group_drop {gate.max_group_drop:g}",
        )
        lost, (low, high) = worst.drop, worst.interval
    else:
        what, limit = "validation", f"max_drop {gate.max_drop:g}"
        lost, (low, high) = gate.drop, gate.interval
    text = f"int8 loses {lost:.4f} Dice on {what}, 95 % interval {low:.4f} to {high:.4f}"
    if gate.verdict == "undecided":
        return f"undecided: {text}, too wide for {limit}"
    return f"{text}, above {limit}"


# which end of an interval decides
_END = {"failed": 0, "undecided": 1}


def _decided_by_group(gate: Gate) -> bool:
    """Whether the mean alone would have had a better verdict."""
    return gate.interval[_END[gate.verdict]] <= gate.max_drop
