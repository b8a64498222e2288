"""The state that the phases of a quantisation share: student, data, run, attempts."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdas_edge.data.dataset import TrainingData
from kdas_edge.models.architecture import Architecture, SegmentationNetwork
from kdas_edge.quantize.attempts import Attempt, AttemptLog, Phase, Ranges
from kdas_edge.quantize.calibration.frames import CalibrationSet
from kdas_edge.quantize.evaluation import Evaluation, evaluate, polyp_fractions
from kdas_edge.quantize.gate import Gate, judge
from kdas_edge.quantize.qat import load_quantized
from kdas_edge.recipe import PtqRecipe, QuantizeRecipe
from kdas_edge.run import Run

_CHECKPOINTS = Path("checkpoints")
FLOAT = _CHECKPOINTS / "float.safetensors"
PTQ = _CHECKPOINTS / "ptq.safetensors"
QAT = _CHECKPOINTS / "qat.safetensors"
MIXED = _CHECKPOINTS / "mixed.safetensors"
CHECKPOINT: dict[Phase, Path] = {"ptq": PTQ, "qat": QAT, "mixed": MIXED}
CALIBRATION = "calibration.json"


@dataclass(frozen=True)
class Job:
    """What all phases need.

    Attributes:
        recipe: resolved.
        run: where everything is written.
        student: float, on the device on which the work is done.
        data: the gate uses its validation split.
        frames: for the ranges.
        reference: the float student on the validation split.
        attempts: all that was tried so far.
    """

    recipe: QuantizeRecipe
    run: Run
    student: SegmentationNetwork
    data: TrainingData
    frames: CalibrationSet
    reference: Evaluation
    attempts: AttemptLog

    @property
    def architecture(self) -> Architecture:
        """Of the student, and of all that is made of it."""
        return self.student.architecture

    def evaluate(self, network: SegmentationNetwork) -> Evaluation:
        """Measure a network on the validation split, on the student's device."""
        device = next(self.student.parameters()).device
        return evaluate(network.to(device), self.data.validation)

    def judge(self, candidates: Mapping[Phase, Evaluation]) -> Gate:
        """Hold candidates against the float student."""
        fractions = polyp_fractions(self.data.validation)
        limits = self.recipe.max_drop, self.recipe.max_group_drop
        return judge(self.reference, candidates, fractions, *limits, seed=self.recipe.seed)

    def load(self, phase: Phase) -> SegmentationNetwork:
        """Read the network of a finished phase, on the CPU."""
        return load_quantized(self.run.path, CHECKPOINT[phase])

    def measure(
        self,
        phase: Phase,
        label: str,
        found: Evaluation,
        started: float,
        ranges: Ranges,
        setting: PtqRecipe | None = None,
        layers: Sequence[str] = (),
    ) -> Attempt:
        """Put what was found on the validation split into a row of the table.

        Args:
            phase: see `Attempt`, as `label`, `ranges`, `setting` and `layers`.
            label: likewise.
            found: by `evaluate`.
            started: `time.monotonic()` before the network was made.
            ranges: likewise.
            setting: likewise.
            layers: likewise.
        """
        gate = self.judge({"ptq": found})
        return Attempt(
            phase=phase,
            label=label,
            dice=found.mean,
            drop=gate.drop,
            agreement=found.agreement(self.reference),
            seconds=time.monotonic() - started,
            verdict=gate.verdict,
            ranges=ranges,
            setting={} if setting is None else setting.model_dump(mode="json"),
            layers=list(layers),
        )

    def record(self, attempt: Attempt) -> None:
        """Add a row to the table of attempts, on disk, and to the log."""
        self.attempts.add(attempt)
        self.run.log(
            f"{attempt.label}: validation Dice {attempt.dice:.4f}, {attempt.drop:+.4f} lost, "
            f"masks agree {attempt.agreement:.4f}"
        )
