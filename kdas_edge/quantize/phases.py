"""The three phases of a quantisation: post-training, fine-tuning, layers returned to float.

Each leaves its network in the run and its numbers among the attempts, and takes what an earlier,
stopped start of the run has left there instead of doing it again.
"""

import time
from pathlib import Path

import numpy as np
from torch import Tensor

from kdas_edge.distill.teacher import Teacher
from kdas_edge.distill.threshold import calibrate_threshold
from kdas_edge.files import write_bytes_atomic, write_json
from kdas_edge.models.architecture import SegmentationNetwork
from kdas_edge.models.checkpoints import save_network
from kdas_edge.quantize.attempts import Attempt, Phase, Ranges
from kdas_edge.quantize.evaluation import Evaluation
from kdas_edge.quantize.job import CALIBRATION, CHECKPOINT, FLOAT, MIXED, PTQ, QAT, Job
from kdas_edge.quantize.mixed import MixedNetwork, fewest, in_words
from kdas_edge.quantize.ptq import post_training_quantize
from kdas_edge.quantize.qat import (
    CONFIG,
    fine_tune,
    load_quantized,
    save_config,
    save_quantized,
)
from kdas_edge.quantize.search import SEARCH_FRAMES, choose, describe, settings_to_try
from kdas_edge.quantize.sensitivity import Ranking, load_ranking, rank_layers, spread_images
from kdas_edge.recipe import PtqRecipe

# Dice on validation; mobilenetv2_100 lost 0.002 by one range per tensor, EfficientNet-B0's masks
# fell from 0.99 to 0.88 Dice against its float model
_RANGES_MAY_COST = 0.005


# ---------------------------------------------------------------------- post-training


def post_training(job: Job) -> tuple[SegmentationNetwork, Evaluation]:
    """Quantise after training, with one setting or several, and keep the best.

    Without `search`, `activation_ranges: auto` means: one range per tensor, which every runtime
    computes in int8, and one per channel as well where that costs more than `_RANGES_MAY_COST`.
    With `search` every setting is calibrated on at most `SEARCH_FRAMES` frames, and the best one
    once more on all of them.

    Returns:
        The network, ready for fine-tuning, and what it does on the validation split.
    """
    run = job.run
    tries = _Tries(job)
    if (run.path / CONFIG).is_file() and (run.path / PTQ).is_file():
        tries.clear()
        network = job.load("ptq")
        return network, job.evaluate(network)
    samples = job.frames.samples(job.architecture)
    base = job.recipe.ptq
    if job.recipe.search:
        some = np.linspace(0, len(samples) - 1, min(len(samples), SEARCH_FRAMES)).round()
        few = [samples[int(index)] for index in some]
        for setting in settings_to_try(base, job.student):
            tries.make(setting, few)
        best = PtqRecipe.model_validate(choose(job.attempts.of("ptq")).setting)
        tries.make(best, samples)
    elif base.activation_ranges == "auto":
        limit = min(_RANGES_MAY_COST, job.recipe.max_drop)
        first = tries.make(base.model_copy(update={"activation_ranges": "tensor"}), samples)
        if first.drop > limit:
            tries.make(base.model_copy(update={"activation_ranges": "channel"}), samples)
    else:
        tries.make(base, samples)

    kept = choose(job.attempts.of("ptq"))
    if kept.ranges == "channel":
        run.log(
            "kept one range per channel; ONNX Runtime has int8 convolutions beside them only "
            "where the export can move them into the weights, and `export` says how many"
        )
    network = tries.network(kept)
    if run.writes:
        save_network(run.path / FLOAT, job.student.state_dict(), job.architecture)
        write_json(run.path / CALIBRATION, _calibration_record(job, kept))
        save_quantized(run.path / PTQ, network)
        # last: its presence says that calibration is complete
        save_config(run.path / CONFIG, network)
        tries.clear()
    return network, job.evaluate(network)


class _Tries:
    """The best network of each kind of ranges so far, in memory and on disk."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.best: dict[str, SegmentationNetwork] = {}

    def make(self, setting: PtqRecipe, samples: list[Tensor]) -> Attempt:
        """Quantise with one setting, unless an earlier start of the run did."""
        job = self.job
        label = f"{describe(setting)} ({len(samples)} frames)"
        done = job.attempts.find(label)
        if done is not None:
            return done
        started = time.monotonic()
        ranges: Ranges = "tensor" if setting.activation_ranges == "tensor" else "channel"
        network = post_training_quantize(job.student, samples, setting, ranges)
        # before the attempt is on disk: a run that is killed between the two does it again
        attempt = job.measure("ptq", label, job.evaluate(network), started, ranges, setting)
        rivals = [row for row in job.attempts.of("ptq") if row.ranges == ranges]
        if choose([*rivals, attempt]) is attempt:
            self.best[ranges] = network
            if job.run.writes:
                save_quantized(self._path(ranges), network)
        job.record(attempt)
        return attempt

    def network(self, attempt: Attempt) -> SegmentationNetwork:
        """The network of the best attempt of its ranges."""
        if attempt.ranges not in self.best:
            path = self._path(attempt.ranges)
            network = load_quantized(self.job.run.path, path.relative_to(self.job.run.path))
            self.best[attempt.ranges] = network
        return self.best[attempt.ranges]

    def clear(self) -> None:
        """Remove from disk what was only kept for the choice."""
        if not self.job.run.writes:
            return
        for ranges in ("tensor", "channel"):
            self._path(ranges).unlink(missing_ok=True)

    def _path(self, ranges: str) -> Path:
        return self.job.run.path / "checkpoints" / f"tried_{ranges}.safetensors"


def _calibration_record(job: Job, kept: Attempt) -> dict[str, object]:
    attempts = job.attempts.of("ptq")
    return {
        "frames": list(job.frames.names),
        **job.frames.origin,
        "ranges_tried": {
            ranges: max(row.dice for row in attempts if row.ranges == ranges)
            for ranges in dict.fromkeys(row.ranges for row in attempts)
        },
        "ranges_kept": kept.ranges,
        "setting": kept.setting,
    }


# ---------------------------------------------------------------------- fine-tuning


def fine_tuning(
    job: Job,
    quantized: SegmentationNetwork,
    teacher: Teacher | None,
) -> Evaluation:
    """Fine-tune the network that post-training quantisation gave; the best epoch is measured.

    Raises:
        UserError: a loss that is not finite, or a checkpoint that cannot be resumed.
    """
    run = job.run
    if not (run.path / QAT).is_file():
        started = time.monotonic()
        fine_tune(job.recipe, quantized, job.data, run, teacher)
        if not run.writes:
            return job.reference
        tuned = load_quantized(run.path)
        assert job.recipe.schedule is not None
        if job.recipe.schedule.calibrate_threshold:
            bias = calibrate_threshold(tuned, job.data, job.recipe.data.size)
            run.log(bias.line())
        found = job.evaluate(tuned)
        label = f"fine-tuning, best of {job.recipe.schedule.epochs} epochs"
        if job.attempts.find(label) is None:
            ranges = choose(job.attempts.of("ptq")).ranges
            job.record(job.measure("qat", label, found, started, ranges))
        save_quantized(run.path / QAT, tuned)
        return found
    return job.evaluate(job.load("qat"))


# ---------------------------------------------------------------------- mixed precision


def mixed_precision(job: Job, base: Phase) -> tuple[Evaluation | None, Ranking]:
    """Return the fewest layers to float with which the gate is passed.

    The layers are ranked on a subset of the validation split; then the first 1, 2, 4, … of the
    ranking are tried, and bisected, each evaluated on the whole split.

    Args:
        job: the quantisation.
        base: the network to start from, `ptq` or `qat`.

    Returns:
        What the network with these layers does on the validation split; where no allowed number
        of layers is enough, that of the best try; None if nothing was tried. And the ranking.
    """
    run, validation = job.run, job.data.validation
    device = next(job.student.parameters()).device
    # fine-tuning has changed the weights, so that only its own network's biases fit them
    float_state = job.student.state_dict() if base == "ptq" else None
    mixed = MixedNetwork(job.load(base).to(device), float_state)
    ranking = load_ranking(run.path, base)
    if ranking is None or set(ranking.layers) != set(mixed.layers):
        subset = spread_images(validation, job.recipe.mixed.images)
        ranking = rank_layers(mixed, subset, base)
        ranking.save(run.path)
    layers, total = ranking.layers, len(mixed.layers)
    most = int(job.recipe.mixed.largest_share * total)
    run.log(
        f"int8 does not pass the gate; {total} layers ranked on {len(ranking.images)} validation "
        f"images, first {', '.join(layers[:3])}; at most {most} may return to float"
    )
    ranges = choose(job.attempts.of("ptq")).ranges

    def passes(count: int) -> bool:
        label = f"{in_words(layers[:count], total)} (after {base})"
        done = job.attempts.find(label)
        if done is None:
            started = time.monotonic()
            mixed.set_float(layers[:count])
            found = job.evaluate(mixed.network)
            done = job.measure("mixed", label, found, started, ranges, layers=layers[:count])
            job.record(done)
        return done.passed

    fewest(most, passes)
    best = best_attempt(job, "mixed")
    if best is None:
        return None, ranking
    mixed.set_float(best.layers)
    save_quantized(run.path / MIXED, mixed.network)
    return job.evaluate(mixed.network), ranking


# ---------------------------------------------------------------------- delivery


def best_attempt(job: Job, phase: Phase) -> Attempt | None:
    """The attempt whose network a phase has left in the run, None if the phase was not done.

    Of mixed networks it is the one with the fewest layers in float that passes the gate, or the
    one with the highest Dice if none does.
    """
    rows = job.attempts.of(phase)
    if not rows:
        return None
    if phase == "ptq":
        return choose(rows)
    passing = [row for row in rows if row.passed]
    if passing:
        return min(passing, key=lambda row: len(row.layers))
    return max(rows, key=lambda row: (row.dice, -len(row.layers)))


def deliver(job: Job, phase: Phase) -> None:
    """Make `best` the network that a phase has left, and mark its attempt as kept."""
    run = job.run
    write_bytes_atomic(run.best_checkpoint, (run.path / CHECKPOINT[phase]).read_bytes())
    if phase == "mixed":  # the others have the places that calibration wrote
        save_config(run.path / CONFIG, job.load(phase))
    kept = best_attempt(job, phase)
    assert kept is not None
    job.attempts.keep(kept.label)
