"""Does KDAS help? The paper's Tables 3 and 4 and more, at one affordable setting, paired by image.

Every row is one recipe, `recipes/ablation_192.yaml` with the overrides of `CELLS`, trained with one
or several seeds and scored on the three test sets (deploy protocol). A trained row is one JSON file
under `--runs`, from which any number of sessions or machines may add it to `rows.json` under
`--results`; what is in either is not trained again, and a training that was stopped goes on.
`--minutes` stops cleanly.

    python benchmarks/kdas_ablation.py --data DATA --teacher runs/teacher_effb0_256 \
        --encoder WEIGHTS/mobilenetv2_100.imagenet.safetensors --unlabelled FRAMES --minutes 60
    python benchmarks/kdas_ablation.py --table   # only the tables, from the files that are there

`unet` and `unetpp` need the package segmentation-models-pytorch (0.6.0).
"""

import argparse
import hashlib
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from kdas_edge.bench.accuracy import evaluate
from kdas_edge.console import info, table
from kdas_edge.data.dataset import load_training_data
from kdas_edge.data.layout import resize_image, test_sets
from kdas_edge.distill.engine import fit
from kdas_edge.distill.schedule import derive_seed
from kdas_edge.distill.training import run_training
from kdas_edge.environment import describe
from kdas_edge.errors import UserError
from kdas_edge.files import read_json, sha256, write_json
from kdas_edge.metrics.bootstrap import Estimate, bootstrap_mean
from kdas_edge.models.architecture import Architecture, FullSize, SegmentationNetwork
from kdas_edge.models.checkpoints import BEST, load_network
from kdas_edge.models.zoo import architecture_of, multiply_accumulates, parameters
from kdas_edge.process import one_line_errors
from kdas_edge.recipe import AugmentRecipe, DataRecipe, ModelRecipe, TrainRecipe, load_recipe
from kdas_edge.run import Run

ROOT = Path(__file__).resolve().parent
SETTING = ROOT.parent / "recipes" / "ablation_192.yaml"
RESULTS = ROOT / "results" / "ablation"
SCHEMA = "kdas-edge/ablation/1"
ROWS = "rows.json"


@dataclass(frozen=True)
class Cell:
    """One row: what differs from the setting, and how many seeds it is worth."""

    what: str
    loss: dict[str, Any] = field(default_factory=dict)
    seeds: int = 1
    other: dict[str, Any] = field(default_factory=dict)
    network: str = "polyp_pvt"

    def overrides(self) -> list[str]:
        values = {**{f"loss.{key}": value for key, value in self.loss.items()}, **self.other}
        return [f"{key}={'null' if value is None else value}" for key, value in values.items()]


def colours(strength: float, hue: float) -> dict[str, Any]:
    """How far the colours of training images may be from what they are."""
    names = ("brightness", "contrast", "saturation")
    return {**{f"augment.{name}": strength for name in names}, "augment.hue": hue}


KDAS = {"variant": "attention_kd_sgm"}
# half of the loss is the teacher's
HALVES = {"teacher_weight": 0.5, "segmentation_weight": 0.5}
# as many images an epoch as the other rows have
TENTH = {"data.labelled_fraction": 0.1, "data.epoch_images": 1305}
# in the order in which they are worth training: all first seeds, then the second ones
CELLS = {
    # Table 3
    "supervised": Cell("no teacher", {}, 3),
    "attention_kd_sgm": Cell("KDAS: attention and symmetric guided map, eq. 8", KDAS, 3),
    "attention_kd": Cell("attention only, eq. 3", {"variant": "attention_kd"}, 3),
    "kl": Cell("softened logits", {"variant": "kl"}, 3),
    # what else could be meant, and what else could help
    "kdas_scaled": Cell(
        "KDAS, the teacher's terms divided by 200", {**KDAS, "teacher_scale": 0.005}, 3
    ),
    "soft_mask": Cell(
        "half of the loss on the teacher's map (ours)", {"variant": "soft_labels", **HALVES}, 3
    ),
    "soft_mask_once": Cell(
        "soft_labels, cached: the teacher run once on each image and its flips",
        {"variant": "soft_labels", **HALVES},
        3,
        {"cache_teacher": True, "teacher_tta": 4},
    ),
    "soft_mask_same_view": Cell(
        "soft_labels, the teacher sees the student's 192 pixels instead of 256",
        {"variant": "soft_labels", **HALVES},
        3,
        {"teacher_size": None},
    ),
    "released_code": Cell("as the authors' repository", {"variant": "released_code"}),
    "reused_decoder": Cell(
        "no teacher, but its decoder to begin with", {}, 3, {"model.init_decoder_from": "TEACHER"}
    ),
    "reused_decoder_soft_mask_once": Cell(
        "both: its decoder to begin with, and its cached maps",
        {"variant": "soft_labels", **HALVES},
        3,
        {"cache_teacher": True, "teacher_tta": 4, "model.init_decoder_from": "TEACHER"},
    ),
    "reused_decoder_inputs": Cell(
        "its decoder to begin with, and to feed it as the teacher's encoder does (SimKD)",
        {"variant": "decoder_inputs", **HALVES},
        3,
        {"model.init_decoder_from": "TEACHER"},
    ),
    "pairwise": Cell(
        "similarities between places in the encoders' maps (arXiv 1903.04197), times 10",
        {"variant": "pairwise", **HALVES, "teacher_scale": 10},
    ),
    # few masks: what the teacher is worth that saw all of them
    "tenth": Cell("no teacher, masks of a tenth of the images", {}, 3, TENTH),
    "tenth_soft_mask": Cell(
        "soft_labels, masks of a tenth of the images, the teacher cached on all",
        {"variant": "soft_labels", **HALVES},
        3,
        {**TENTH, "cache_teacher": True, "teacher_tta": 4},
    ),
    # learning from frames without masks, at the cost of the rows above
    "soft_mask_unlabelled": Cell(
        "soft_labels, some of the images are frames without masks",
        {"variant": "soft_labels", **HALVES},
        3,
        {"data.unlabelled": "FRAMES", "data.epoch_images": 1305},
    ),
    # Table 4; temperature 2 is attention_kd_sgm
    "temperature_1": Cell("KDAS, temperature 1", {**KDAS, "temperature": 1}),
    "temperature_4": Cell("KDAS, temperature 4", {**KDAS, "temperature": 4}),
    "temperature_6": Cell("KDAS, temperature 6", {**KDAS, "temperature": 6}),
    "temperature_8": Cell("KDAS, temperature 8", {**KDAS, "temperature": 8}),
    # what more steps are worth on the same images
    "batch_8": Cell(
        "no teacher, twice as many steps of half as many images", {}, 3, {"schedule.batch_size": 8}
    ),
    # what a teacher could be made of; chosen by the validation split
    "encoder_effb0": Cell(
        "no teacher, EfficientNet-B0 as the encoder",
        other={"model.backbone": "tf_efficientnet_b0"},
    ),
    "encoder_lite0": Cell(
        "no teacher, EfficientNet-Lite0 as the encoder",
        {},
        3,
        {"model.backbone": "tf_efficientnet_lite0"},
    ),
    "width_64": Cell("no teacher, 64 channels in the decoder", {}, 3, {"model.width": 64}),
    "stride_4": Cell(
        "no teacher, the second map a quarter of the image instead of an eighth (model.stride)",
        {},
        3,
        {"model.stride": 4},
    ),
    "encoder_lite0_stride_4": Cell(
        "no teacher, EfficientNet-Lite0 and the finer map",
        other={"model.backbone": "tf_efficientnet_lite0", "model.stride": 4},
    ),
    # what could make a student ready for other hospitals; chosen with hospital_split.py
    "colour": Cell(
        "no teacher, brightness, contrast and saturation to 0.4 instead of 0.2, hue to 0.05",
        {},
        3,
        colours(0.4, 0.05),
    ),
    "colour_more": Cell(
        "no teacher, brightness, contrast and saturation to 0.6, hue to 0.1",
        other=colours(0.6, 0.1),
    ),
    "zoom": Cell(
        "no teacher, scale from 0.5 to 1.5 instead of 0.8 to 1.25",
        other={"augment.scale": [0.5, 1.5]},
    ),
    "spoilt": Cell(
        "no teacher, some images blurred, noisy, coded or with bubbles",
        other={
            "augment.blur": 0.1,
            "augment.noise": 0.08,
            "augment.bubbles": 0.2,
            "augment.coding": 0.15,
        },
    ),
    "structure": Cell(
        "no teacher, the released code's loss: weighted BCE + weighted IoU",
        {"segmentation": "structure"},
        3,
    ),
    # other decoders on the same encoder, without a teacher
    "unet": Cell("UNet, no teacher", {}, 3, network="Unet"),
    "unetpp": Cell("UNet++, no teacher", network="UnetPlusPlus"),
}
BASELINE = "supervised"
# keys of a recipe that did not exist when the first rows were made
NEWER = {
    "labelled_fraction",
    "init_decoder_from",
    "teacher_tta",
    "cache_teacher",
    "bubbles",
    "coding",
    "stride",
}
# what one part of a row gives, against the row that lacks only that part
TWINS = (
    ("attention_kd_sgm", "attention_kd"),  # the symmetric guided map
    ("kdas_scaled", "attention_kd_sgm"),  # the teacher's terms in proportion
    ("soft_mask_unlabelled", "soft_mask"),  # frames without masks, at equal cost
    ("soft_mask", "soft_mask_same_view"),  # a teacher that sees more pixels
    ("tenth_soft_mask", "tenth"),  # a teacher where masks are few
    ("reused_decoder_inputs", "reused_decoder"),
    ("reused_decoder_soft_mask_once", "reused_decoder"),  # maps, once the decoder is there
    ("soft_mask_once", "soft_mask"),  # a cached teacher, at half of the cost
    ("encoder_lite0_stride_4", "encoder_lite0"),  # the finer map, again
    # Table 4, against its temperature 2
    *((f"temperature_{value}", "attention_kd_sgm") for value in (1, 4, 6, 8)),
)


class TwoOutputs(SegmentationNetwork):
    """A network of segmentation-models-pytorch as one of ours: its logits count as both outputs."""

    def __init__(self, kind: str, architecture: Architecture, encoder: Path | None) -> None:
        super().__init__()
        import segmentation_models_pytorch as smp

        self.architecture = architecture
        name = f"tu-{architecture.backbone}"
        self.network = getattr(smp, kind)(name, encoder_weights=None, classes=1)
        if encoder is not None:
            state = {key: value.float() for key, value in load_file(encoder).items()}
            missing, _ = self.network.encoder.model.load_state_dict(state, strict=False)
            assert not missing, missing  # left over is the classifier only

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(x)
        return logits, logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--teacher", type=Path)
    parser.add_argument(
        "--encoder", type=Path, help="weights of the student's encoder; others beside it"
    )
    parser.add_argument("--unlabelled", type=Path, help="folder of frames without masks")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--only", nargs="*", choices=CELLS, help="default: all rows")
    parser.add_argument("--seed", type=int, help="only this one; two processes may share the rows")
    parser.add_argument("--minutes", type=float, help="begin no training after so many minutes")
    parser.add_argument("--table", action="store_true", help="only write the tables")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the setting: a trial")
    arguments = parser.parse_args()
    if not arguments.table:
        if arguments.data is None:
            parser.error("a training needs --data")
        train_missing(arguments)
    write_tables(arguments.runs, arguments.results)


def collected(runs: Path, results: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Trained rows by cell and seed: those of `results`, then those that lie beside the runs."""
    path = results / ROWS
    rows = read_json(path)["rows"] if path.exists() else []
    rows += [read_json(path) for path in sorted(runs.glob("*_s*.json"))]
    found = {(row["cell"], row["seed"]): row for row in rows}
    order = list(CELLS)
    return dict(sorted(found.items(), key=lambda item: (order.index(item[0][0]), item[0][1])))


def train_missing(arguments: argparse.Namespace) -> None:
    """Train what has no result yet, first seeds first."""
    started = time.monotonic()
    teacher = arguments.teacher
    teacher_file = teacher / BEST if teacher is not None and teacher.is_dir() else teacher
    wanted = [
        (name, seed)
        for seed in range(max(cell.seeds for cell in CELLS.values()))
        for name, cell in CELLS.items()
        if seed < cell.seeds
        and (not arguments.only or name in arguments.only)
        and arguments.seed in (None, seed)
    ]
    for name, seed in wanted:
        path = arguments.runs / f"{name}_s{seed}.json"
        recipe = recipe_of(name, seed, arguments)
        key = fingerprint(recipe, teacher_file)
        there = collected(arguments.runs, arguments.results).get((name, seed))
        if there is not None:
            if there["setting_sha256"] != key:
                raise UserError(
                    f"{name} seed {seed} was made with another setting or teacher; name other "
                    "folders with --runs and --results"
                )
            continue
        if arguments.minutes and time.monotonic() - started > 60 * arguments.minutes:
            info(f"{arguments.minutes:g} minutes are over; {name} seed {seed} is next")
            return
        if recipe.data.unlabelled == "FRAMES":
            info(f"{name} seed {seed} is left out: no --unlabelled")
            continue
        write_json(path, {**one_row(name, seed, recipe, arguments), "setting_sha256": key})


def recipe_of(name: str, seed: int, arguments: argparse.Namespace) -> TrainRecipe:
    """The resolved recipe of a row."""
    cell = CELLS[name]
    values = [
        f"name={name}_s{seed}",
        f"seed={seed}",
        f"data.root={arguments.data}",
        *cell.overrides(),
        *arguments.overrides,
    ]
    if arguments.encoder is not None:
        encoder = encoder_of(cell.other.get("model.backbone"), arguments.encoder)
        values.append(f"model.pretrained={encoder}")
    if arguments.unlabelled is not None and "data.unlabelled" in cell.other:
        values.append(f"data.unlabelled={arguments.unlabelled}")
    needs = {
        "model.init_decoder_from": "model.init_decoder_from" in cell.other,
        "teacher": "variant" in cell.loss,
    }
    if any(needs.values()) and arguments.teacher is None:
        raise UserError(f"{name} needs --teacher; or leave it out with --only")
    values += [f"{key}={arguments.teacher}" for key, needed in needs.items() if needed]
    return load_recipe(TrainRecipe, SETTING, values)


def encoder_of(backbone: str | None, student: Path) -> Path:
    """Weights of another encoder than the student's: beside them, as BACKBONE.….safetensors."""
    if backbone is None:
        return student
    found = sorted(student.parent.glob(f"{backbone}.*safetensors"))
    if len(found) != 1:
        raise UserError(
            f"{len(found)} files {backbone}.*.safetensors in {student.parent}; have one there, or "
            "leave the row out with --only"
        )
    return found[0]


def public(recipe: TrainRecipe) -> dict[str, Any]:
    """A recipe without the folders of the machine that trained it."""
    values = recipe.model_dump(mode="json")
    for section, key in (
        ("data", "root"),
        ("data", "unlabelled"),
        ("model", "pretrained"),
        ("model", "init_decoder_from"),
    ):
        if isinstance(values[section][key], str):
            values[section][key] = Path(values[section][key]).name
    if values["teacher"] is not None:
        values["teacher"] = Path(values["teacher"]).name
    for section, kind in (
        (values["data"], DataRecipe),
        (values["model"], ModelRecipe),
        (values["augment"], AugmentRecipe),
        (values, TrainRecipe),
    ):
        for key in NEWER.intersection(section):
            if section[key] == kind.model_fields[key].default:
                del section[key]
    return values


def uses_teacher(recipe: TrainRecipe) -> bool:
    return recipe.teacher is not None or recipe.model.init_decoder_from is not None


def fingerprint(recipe: TrainRecipe, teacher: Path | None) -> str:
    """What must agree for two rows to stand in one table: the recipe and the teacher's weights."""
    used = teacher if uses_teacher(recipe) else None
    known = {"recipe": public(recipe), "teacher": sha256(used) if used is not None else None}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def one_row(
    name: str, seed: int, recipe: TrainRecipe, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Train (or go on with) one row and score its best epoch."""
    cell = CELLS[name]
    path = arguments.runs / recipe.name
    resume = path.exists()
    if cell.network == "polyp_pvt":
        summary = run_training(recipe, arguments.runs, resume)
        network: SegmentationNetwork = load_network(path)
    else:
        network, summary = train_other(cell, recipe, arguments, resume)
    scores = score(network.eval(), arguments.data)
    last = summary["history"][-1]
    return {
        "schema": SCHEMA,
        "cell": name,
        "seed": seed,
        "what": cell.what,
        "recipe": public(recipe),
        "parameters": parameters(network),
        "multiply_accumulates": multiply_accumulates(network, network.architecture.size),
        "best_epoch": summary["best_epoch"],
        "validation_dice": summary["best_validation_dice"],
        "seconds": summary["seconds"],
        "gradient_shares": {k: round(v, 4) for k, v in last.items() if k.startswith("share_")},
        "dice": scores,
        "environment": describe(),
    }


def train_other(
    cell: Cell, recipe: TrainRecipe, arguments: argparse.Namespace, resume: bool
) -> tuple[SegmentationNetwork, dict[str, Any]]:
    """Train a network that is not ours with the same engine."""
    torch.manual_seed(derive_seed(recipe.seed))
    backbone = recipe.model.backbone
    architecture = architecture_of(backbone, recipe.model.width, recipe.data.size)
    network = TwoOutputs(cell.network, architecture, arguments.encoder)
    # as large as the other rows' images, which the teacher needs larger than the student
    data = load_training_data(recipe.data, max(recipe.data.size, recipe.teacher_size or 0))
    run = Run.create(arguments.runs, recipe, resume, False, "train")
    result = fit(recipe, network, data, run)
    network.load_state_dict(load_file(run.path / BEST))
    summary = {
        "best_epoch": result.best_epoch,
        "best_validation_dice": result.best_dice,
        "seconds": result.seconds,
        "history": result.history,
    }
    return network, summary


def score(network: SegmentationNetwork, data: Path) -> dict[str, dict[str, float]]:
    """Dice of every test image (deploy protocol), by set and stem."""
    architecture, full_size = network.architecture, FullSize(network)
    mean, std = (torch.tensor(v)[:, None, None] for v in (architecture.mean, architecture.std))
    size = architecture.size

    @torch.inference_mode()
    def predict(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        pixels = torch.from_numpy(resize_image(frame, size, size)).permute(2, 0, 1) / 255
        z1, z2 = full_size(((pixels - mean) / std)[None])
        return torch.sigmoid(z1 + z2)[0, 0].numpy()

    found = {}
    for name, image_set in test_sets(data).items():
        rows = evaluate(predict, image_set, ["deploy"])["deploy"].rows
        found[name] = {row.name: round(float(row.metrics["Dice"] or 0), 5) for row in rows}
    return found


def write_tables(runs: Path, results: Path) -> None:
    """Means over seeds, and paired differences to the supervised student, of what there is."""
    trained = list(collected(runs, results).values())
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in trained:
        rows.setdefault(row["cell"], []).append(row)
    if BASELINE not in rows:
        info(f"no table yet: no result of {BASELINE} in {results}")
        return
    sets = list(rows[BASELINE][0]["dice"])
    summary: dict[str, Any] = {}
    for name, found in rows.items():
        summary[name] = {
            "what": CELLS[name].what,
            "seeds": len(found),
            "parameters": found[0]["parameters"],
            # not in the first rows, which are all of one network
            "multiply_accumulates": found[0].get("multiply_accumulates"),
            "validation_dice": float(np.mean([row["validation_dice"] for row in found])),
            "sets": {},
        }
        for image_set in sets:
            dice, difference = estimates(found, rows[BASELINE], image_set)
            per_seed = [float(np.mean(list(row["dice"][image_set].values()))) for row in found]
            summary[name]["sets"][image_set] = {
                "dice": asdict(dice),
                "per_seed": per_seed,
                "minus_supervised": asdict(difference) if difference is not None else None,
            }
    twins: dict[str, dict[str, Any]] = {}
    for name, twin in TWINS:
        if name in rows and twin in rows:
            differences = {s: estimates(rows[name], rows[twin], s)[1] for s in sets}
            known = {s: asdict(e) for s, e in differences.items() if e is not None}
            if known:  # otherwise the two have no seed in common
                twins[f"{name} − {twin}"] = known
    write_json(results / ROWS, {"schema": SCHEMA, "rows": trained})
    write_json(results / "summary.json", {"schema": SCHEMA, "rows": summary, "twins": twins})
    columns = ["row", "seeds", "validation"]
    columns += [f"{s}{d}" for s in sets for d in ("", " − supervised")]
    cells = [
        [
            name,
            str(row["seeds"]),
            f"{row['validation_dice']:.3f}",
            *(text for s in sets for text in cell_texts(row["sets"][s])),
        ]
        for name, row in summary.items()
    ]
    table("Dice, deploy protocol; difference with 95 % interval over images", columns, cells)
    if twins:
        columns = ["difference", *sets]
        cells = [[name, *(signed(row[s]) for s in sets)] for name, row in twins.items()]
        table("What one part gives", columns, cells)


def estimates(
    rows: list[dict[str, Any]], baseline: list[dict[str, Any]], image_set: str
) -> tuple[Estimate, Estimate | None]:
    """Dice of a row, mean over its seeds for each image; and its difference to the baseline.

    The difference takes the seeds that both have, and both see the same batches with one seed.
    """
    names = list(baseline[0]["dice"][image_set])

    def per_image(found: list[dict[str, Any]]) -> NDArray[np.float64]:
        return np.mean([[row["dice"][image_set][name] for name in names] for row in found], axis=0)

    dice = bootstrap_mean(per_image(rows))
    shared = {row["seed"] for row in rows} & {row["seed"] for row in baseline}
    if rows is baseline or not shared:
        return dice, None
    left, right = ([row for row in part if row["seed"] in shared] for part in (rows, baseline))
    return dice, bootstrap_mean(per_image(left) - per_image(right))


def cell_texts(row: dict[str, Any]) -> tuple[str, str]:
    difference = row["minus_supervised"]
    return f"{row['dice']['mean']:.3f}", "" if difference is None else signed(difference)


def signed(estimate: dict[str, float]) -> str:
    return f"{estimate['mean']:+.3f} ({estimate['low']:+.3f} to {estimate['high']:+.3f})"


if __name__ == "__main__":
    with one_line_errors():
        main()
