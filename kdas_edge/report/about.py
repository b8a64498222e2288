"""What a bundle or a run records of itself: size, accuracy, lineage, encoder, terms, versions.

Only JSON and YAML are read: no weights, no torch.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from kdas_edge.bundle.manifest import FILE_NAME, AccuracyRecord
from kdas_edge.bundle.reader import open_bundle
from kdas_edge.data.lineage import SPLIT_FILE, Lineage, read_lineage
from kdas_edge.errors import UserError
from kdas_edge.files import read_json
from kdas_edge.recipe_text import with_new_names
from kdas_edge.report.results_table import UNKNOWN_ALARMS
from kdas_edge.run import open_run
from kdas_edge.table import NONE, Cell, Column, Table, build, number

_FALSE_ALARMS = "false_positive_frame"
# of the packages that a run or bundle names, those that change its numbers
_PACKAGES = ("torch", "timm", "nncf", "openvino", "onnxruntime", "onnx")

# what a terminal shows of the metrics; the JSON has all
_SHOWN = ("mDice", "Dice", _FALSE_ALARMS)

Value = str | int | float


@dataclass(frozen=True)
class RecordedAccuracy:
    """An accuracy that a bundle or a run records.

    Attributes:
        what: data set, protocol, precision and runtime.
        metric: its name.
        value: mean over the images.
        interval: 95 % interval, where it is known.
        images: how many; None where the record does not say.
    """

    what: str
    metric: str
    value: float
    interval: tuple[float, float] | None = None
    images: int | None = None


@dataclass(frozen=True)
class About:
    """What is known; a value that is not recorded is left out.

    Attributes:
        path: as it was given.
        kind: `bundle`, or the verb that made the run.
        name: of the bundle, or of the run's recipe.
        encoder: timm name of the encoder.
        numbers: parameters, multiply-accumulates, size of the input and more.
        accuracy: as it was measured.
        lineage: the networks and images that it comes from.
        terms: terms and citation of the training images.
        versions: of the package, the schema and what it was made with.
    """

    path: str
    kind: str
    name: str
    encoder: str | None
    numbers: dict[str, Value] = field(default_factory=dict)
    accuracy: list[RecordedAccuracy] = field(default_factory=list)
    lineage: dict[str, Value] = field(default_factory=dict)
    terms: dict[str, Value] = field(default_factory=dict)
    versions: dict[str, Value] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


def about(path: Path) -> About:
    """Read what a bundle or a run records; of a bundle the manifest alone is checked.

    Raises:
        UserError: neither, or a record is damaged.
    """
    if (path / FILE_NAME).is_file():
        return _bundle(path)
    if (path / "run.json").is_file():
        return _run(path)
    raise UserError(
        f"{path} is neither a bundle ({FILE_NAME}) nor a run (run.json); name the folder of one"
    )


def tables(found: About) -> list[Table]:
    """The tables of `kdas-edge info`: what is recorded, and the accuracies where there are any."""
    rows: list[tuple[str, str, Value]] = [("", "kind", found.kind)]
    if found.encoder is not None:
        rows.append(("", "encoder", found.encoder))
    for part in ("numbers", "lineage", "terms", "versions"):
        rows += [(part, key, value) for key, value in getattr(found, part).items()]
    first = build(
        found.name,
        [
            (Column("what"), lambda row: Cell(f"{row[0]}: {row[1]}" if row[0] else row[1])),
            (Column("recorded"), lambda row: Cell(_text(row[2]))),
        ],
        rows,
        below="" if found.accuracy else "no accuracy is recorded",
    )
    shown = [one for one in found.accuracy if one.metric in _SHOWN]
    if not shown:
        return [first]
    below = ["other metrics: --json"] if len(shown) < len(found.accuracy) else []
    if not any(one.metric == _FALSE_ALARMS for one in found.accuracy):
        below.append(UNKNOWN_ALARMS)
    second = build(
        "Recorded accuracy",
        [
            (Column("measured on"), lambda row: Cell(row.what)),
            (Column("metric"), lambda row: Cell(row.metric)),
            (Column("value", numeric=True), lambda row: number(row.value, 4)),
            (Column("95 % interval", rank=1), lambda row: _interval(row.interval)),
            (Column("images", numeric=True, rank=2), lambda row: number(row.images, 0)),
        ],
        shown,
        below="; ".join(below),
    )
    return [first, second]


def _bundle(path: Path) -> About:
    bundle = open_bundle(path, verify=False)
    manifest, made = bundle.manifest, bundle.manifest.provenance
    recipe = with_new_names(made.recipe)
    numbers: dict[str, Value] = {
        "parameters": made.parameters,
        "multiply-accumulates": made.multiply_accumulates,
        "input size": manifest.size,
        "threshold": manifest.threshold,
    }
    for model in manifest.models:
        numbers[f"bytes of {model.path}"] = bundle.size_bytes(model)
    quantization = _part(made.notes, "quantization")
    lineage = _ancestors(recipe, read_lineage(path))
    if quantization:
        lineage |= {"int8 run": str(_part(quantization, "recipe").get("name", "not named"))}
        gate = _part(quantization, "gate")
        if gate:
            lineage |= {"gate of int8": _verdict(gate)}
    backbone = made.notes.get("backbone", _part(recipe, "model").get("backbone"))
    return About(
        path=str(path),
        kind="bundle",
        name=manifest.name,
        encoder=backbone if isinstance(backbone, str) else None,
        numbers=numbers,
        accuracy=[one for record in manifest.accuracy for one in _measured(record)],
        lineage=lineage,
        terms=_terms(recipe),
        versions={
            "kdas-edge": made.code_version,
            "made": made.created,
            "schema": manifest.schema_version,
            **_packages(made.packages),
        },
    )


def _run(path: Path) -> About:
    run, typed = open_run(path)
    recipe, state = typed.model_dump(mode="json"), run.state()
    summary = _object(path / "summary.json")
    environment = _object(path / "environment.json")
    numbers = {
        key: state.get(key, summary.get(key))
        for key in ("parameters", "multiply_accumulates", "best_epoch", "seconds")
    }
    recorded: dict[str, Value] = {
        k.replace("_", " "): round(v) for k, v in numbers.items() if _is_number(v)
    }
    accuracy = []
    gate = _part(state, "gate")
    pairs = [("float", gate.get("float_dice"))]
    pairs += [("int8", gate.get(f"{gate.get('kept')}_dice"))]
    if not gate:
        pairs = [("float", state.get("best_dice"))]
    split = _object(path / SPLIT_FILE).get("validation", [])
    images = gate.get("images", len(split) if isinstance(split, list) and split else None)
    for precision, dice in pairs:
        if _is_number(dice) and dice >= 0:
            what = f"validation split, deploy, {precision}, torch"
            known = round(images) if _is_number(images) else None
            accuracy.append(RecordedAccuracy(what, "Dice", float(dice), images=known))
    lineage = _ancestors(recipe, read_lineage(path))
    if gate:
        lineage |= {"gate of int8": _verdict(gate)}
    origin = _part(_part(state, "student_recipe"), "model")
    backbone = _part(recipe, "model").get("backbone", origin.get("backbone"))
    return About(
        path=str(path),
        kind=str(state.get("kind", "train")),
        name=str(recipe["name"]),
        encoder=backbone if isinstance(backbone, str) else None,
        numbers={**recorded, "input size": recipe["data"]["size"]},
        accuracy=accuracy,
        lineage={"status": str(state.get("status", "unknown")), **lineage},
        terms=_terms(recipe),
        versions={
            "kdas-edge": str(environment.get("code_version", "unknown")),
            "made": str(state.get("started", "unknown")),
            **_packages(_part(environment, "packages")),
        },
    )


def _measured(record: AccuracyRecord) -> list[RecordedAccuracy]:
    what = ", ".join((record.dataset, record.protocol, record.precision, record.runtime))
    return [
        RecordedAccuracy(what, metric, value, record.intervals.get(metric), record.images)
        for metric, value in record.metrics.items()
    ]


def _ancestors(recipe: Mapping[str, Any], lineage: Lineage) -> dict[str, Value]:
    """Networks and images that a recipe and a split name."""
    model, data = _part(recipe, "model"), _part(recipe, "data")
    named = {
        "recipe": recipe.get("name"),
        "student": recipe.get("student"),
        "teacher": recipe.get("teacher"),
        "begun from": model.get("init_from"),
        "decoder begun from": model.get("init_decoder_from"),
        "images": data.get("root"),
        "unlabelled images": data.get("unlabelled"),
    }
    found: dict[str, Value] = {k: v for k, v in named.items() if isinstance(v, str)}
    if lineage:
        sides = list(lineage.files.values())
        trained = sum(len(part.train) for part in lineage.parts) + sides.count("train")
        chosen = sum(len(part.validation) for part in lineage.parts) + sides.count("validation")
        found |= {"images trained on": trained, "images of validation": chosen}
    return found


def _terms(recipe: Mapping[str, Any]) -> dict[str, Value]:
    data = _part(recipe, "data")
    found = {"terms": data.get("terms"), "citation": data.get("citation")}
    stated: dict[str, Value] = {k: v for k, v in found.items() if isinstance(v, str) and v}
    return {"terms": "not stated (data.terms of the recipe)", **stated}


def _verdict(gate: Mapping[str, Any]) -> str:
    verdict = gate.get("verdict", "passed" if gate.get("passed") else "failed")
    drop, allowed = gate.get("drop"), gate.get("max_drop")
    if not (_is_number(drop) and _is_number(allowed)):
        return str(verdict)
    return f"{verdict}: {drop:.4f} Dice lost, {allowed:g} allowed"


def _packages(packages: Mapping[str, Any]) -> dict[str, Value]:
    return {name: str(packages[name]) for name in _PACKAGES if name in packages}


def _part(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A section that a file may lack, or hold as something else."""
    found = values.get(key)
    return found if isinstance(found, Mapping) else {}


def _object(path: Path) -> Mapping[str, Any]:
    found = read_json(path) if path.is_file() else {}
    return found if isinstance(found, Mapping) else {}


def _is_number(value: Any) -> TypeGuard[int | float]:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return numeric and math.isfinite(value)


def _text(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:,}"


def _interval(interval: tuple[float, float] | None) -> Cell:
    return NONE if interval is None else Cell(f"{interval[0]:.4f} … {interval[1]:.4f}")
