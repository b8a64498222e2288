"""Load the networks of a bundle: from a float run, a quantised run, or checkpoints."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdas_edge.bundle.manifest import AccuracyRecord
from kdas_edge.console import info
from kdas_edge.data.lineage import Lineage, read_lineage
from kdas_edge.errors import UserError
from kdas_edge.files import read_json
from kdas_edge.models.architecture import Architecture, SegmentationNetwork
from kdas_edge.models.checkpoints import known_recipe, load_network
from kdas_edge.quantize.job import CALIBRATION, FLOAT
from kdas_edge.quantize.qat import CONFIG, load_quantized
from kdas_edge.run import Run, open_run


@dataclass
class Sources:
    """The networks of a bundle and what is known of them.

    Attributes:
        network: float, in eval mode.
        quantized: fake-quantised, or None.
        recipe: of the float network; empty for a checkpoint that names none.
        split_sha256: of the training data's split, or None.
        lineage: which images the networks were trained on, as far as runs say.
        notes: the quantisation's recipe and gate.
        accuracy: what the runs measured on their validation split.
    """

    network: SegmentationNetwork
    quantized: SegmentationNetwork | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    split_sha256: str | None = None
    lineage: Lineage = field(default_factory=Lineage)
    notes: dict[str, Any] = field(default_factory=dict)
    accuracy: list[AccuracyRecord] = field(default_factory=list)

    @property
    def architecture(self) -> Architecture:
        """Of both networks."""
        return self.network.architecture


def is_quantized_run(source: Path) -> bool:
    """True for a run of `kdas-edge quantize`."""
    return (source / CONFIG).is_file()


def load_sources(float_source: Path, quantized_source: Path | None) -> Sources:
    """Load the networks of a bundle.

    Args:
        float_source: a float run or checkpoint, or a quantised run, which carries its float
            student.
        quantized_source: a quantised run; by default `float_source` if it is one.

    Raises:
        UserError: absent, truncated, the two are not of one architecture, or a weight is NaN or
            infinite (`models.checkpoints`).
    """
    if is_quantized_run(float_source):
        if quantized_source is not None:
            raise UserError(
                f"{float_source} is a quantised run already; name the float run, or leave "
                f"--int8 {quantized_source} out"
            )
        quantized_source = float_source
    sources = Sources(
        load_network(float_source / FLOAT if is_quantized_run(float_source) else float_source)
    )
    if not is_quantized_run(float_source):
        sources.recipe = _portable(known_recipe(float_source))
        if not (float_source / "run.json").is_file():
            sources.lineage = read_lineage(float_source)
        else:
            _add_run(sources, float_source, Run(float_source).state(), "fp32")
    if quantized_source is not None:
        _add_quantized(sources, quantized_source, float_source)
    return sources


def _add_quantized(sources: Sources, source: Path, float_source: Path) -> None:
    sources.quantized = load_quantized(source)
    architecture = sources.quantized.architecture
    if architecture != sources.architecture:
        raise UserError(
            f"{source} was quantised from {architecture}, {float_source} is "
            f"{sources.architecture}; name the run that it came from"
        )
    run, recipe = open_run(source)
    state = run.state()
    sources.notes["quantization"] = {
        "recipe": _portable(recipe.model_dump(mode="json")),
        "gate": state.get("gate"),
        "calibration": _calibration(source),
    }
    if not sources.recipe:
        sources.recipe = _portable(state.get("student_recipe") or {})
    gate = state.get("gate") or {}
    if gate.get("passed") is False:
        info(
            f"{source}: gate {gate.get('verdict', 'failed')}, {gate['drop']:.4f} Dice lost, "
            f"allowed {gate['max_drop']:g}; the bundle says so under provenance.notes"
        )
    if "float_dice" in gate and not sources.accuracy:
        sources.accuracy.append(_validation("fp32", gate["float_dice"], gate["images"]))
    _add_run(sources, source, state, "int8")


def _calibration(source: Path) -> dict[str, Any]:
    """Summary of the calibration: number of frames, kind of ranges."""
    path = source / CALIBRATION
    found = read_json(path) if path.is_file() else {}
    return {
        "frames": len(found.get("frames", [])),
        "ranges_tried": found.get("ranges_tried"),
        "ranges_kept": found.get("ranges_kept"),
    }


def _add_run(sources: Sources, path: Path, state: dict[str, Any], precision: str) -> None:
    sources.lineage = sources.lineage + read_lineage(path)
    split = read_json(path / "split.json") if (path / "split.json").is_file() else {}
    if sources.split_sha256 is None:
        sources.split_sha256 = split.get("sha256")
    images, dice = len(split.get("validation", [])), state.get("best_dice")
    if images and dice is not None and dice >= 0:
        sources.accuracy.append(_validation(precision, dice, images))


def _validation(precision: str, dice: float, images: int) -> AccuracyRecord:
    return AccuracyRecord.model_validate(
        {
            "dataset": "validation split",
            "protocol": "deploy",
            "precision": precision,
            "runtime": "torch",
            "images": images,
            "metrics": {"Dice": dice},
        }
    )


def _portable(value: Any) -> Any:
    """Replace absolute paths by their last part, so that a bundle shows no local folder."""
    if isinstance(value, dict):
        return {key: _portable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_portable(inner) for inner in value]
    if isinstance(value, str) and (Path(value).is_absolute() or value.startswith("../")):
        return Path(value).name
    return value
