"""The whole road in a few minutes: scenes, teacher, KDAS, int8, bundles, benchmark, page.

The student that comes with the package marks some images first; then everything is really trained
and measured, on images small enough for two CPU cores. The networks
start from random weights unless encoders are given, so that the demo needs no download; its
accuracies show that the road works, not how good the method is (benchmarks/results/ does).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdas_edge.console import info, print_table
from kdas_edge.errors import UserError
from kdas_edge.files import check_output_directory
from kdas_edge.recipe import QuantizeRecipe, TrainRecipe, load_recipe

if TYPE_CHECKING:
    from kdas_edge.bench.results import BenchResult

TARGETS = "openvino:CPU:threads=1,onnxruntime:CPU:threads=1,torch:cpu:threads=1"
TEACHER_BACKBONE = "resnet18"
STUDENT_BACKBONE = "mobilenetv2_050"


@dataclass(frozen=True)
class Effort:
    """How long the demo trains and measures."""

    scenes: int
    test_scenes: int
    limit: int | None
    teacher_epochs: int
    student_epochs: int
    qat_epochs: int
    iterations: int
    bench_limit: int | None


FULL = Effort(
    scenes=240,
    test_scenes=40,
    limit=240,
    teacher_epochs=20,
    student_epochs=20,
    qat_epochs=2,
    iterations=100,
    bench_limit=40,
)
QUICK = Effort(
    scenes=48,
    test_scenes=8,
    limit=48,
    teacher_epochs=2,
    student_epochs=2,
    qat_epochs=1,
    iterations=15,
    bench_limit=4,
)


@dataclass(frozen=True)
class Demo:
    """What the demo made.

    Attributes:
        results: of its benchmark, with the seconds of every step.
        page: of that benchmark.
        teacher, student: the bundles.
        frames: folder of the images that it was measured on.
    """

    results: "BenchResult"
    page: Path
    teacher: Path
    student: Path
    frames: Path


def run_demo(
    out: Path,
    data: Path | None = None,
    weights: Path | None = None,
    quick: bool = False,
    overwrite: bool = False,
) -> Demo:
    """Run the road from images to a page.

    Args:
        out: folder of everything the demo makes.
        data: images in the PraNet layout; procedural scenes are drawn if it is None.
        weights: folder with `<backbone>.*.safetensors` encoders to start from.
        quick: a few steps of everything, to see that it works; the masks will be poor.
        overwrite: replace `out`.

    Raises:
        UserError: the output folder is not empty, or the data cannot be read.
    """
    from kdas_edge.bench import harness
    from kdas_edge.bench.evaluation import choose_sets
    from kdas_edge.bench.models import open_model
    from kdas_edge.bench.results import write_result
    from kdas_edge.data.synthetic import write_dataset
    from kdas_edge.distill.training import run_training
    from kdas_edge.export.writer import export_bundle
    from kdas_edge.quantize.pipeline import run_quantization
    from kdas_edge.report import check_installed, write_page
    from kdas_edge.report.gallery import make_gallery
    from kdas_edge.report.notes import failures
    from kdas_edge.report.results_table import results_table
    from kdas_edge.runtime.targets import parse_targets

    check_output_directory(out, overwrite)
    check_installed()
    effort = QUICK if quick else FULL
    if weights is not None:
        # an encoder that has seen images needs fewer epochs, and is larger than the demo's own
        few = min(effort.teacher_epochs, 14)
        effort = replace(effort, teacher_epochs=few, student_epochs=few)
    seconds: dict[str, float] = {}
    started = last = time.monotonic()

    def done(step: str) -> None:
        nonlocal last
        seconds[step] = time.monotonic() - last
        last = time.monotonic()
        info(f"— {step}: {seconds[step]:.0f} s")

    root = out / "data" if data is None else data
    if data is None:
        write_dataset(root, effort.scenes, effort.test_scenes, 192, overwrite=True)
    sets = choose_sets(root, None)
    done("images")
    pictures = next(iter(sets.values())).pairs[: effort.bench_limit]
    _run_shipped([pair.image for pair in pictures], out / "shipped")
    done("shipped student")

    runs = out / "runs"
    recipe = _teacher_recipe(root, weights, effort)
    run_training(recipe, runs, overwrite=True)
    done("teacher")
    run_training(_student_recipe(root, runs / "teacher", weights, effort), runs, overwrite=True)
    done("student, distilled with KDAS")
    run_quantization(_int8_recipe(root, runs, effort), runs, overwrite=True)
    done("int8, quantisation-aware")
    bundles = [out / "bundles" / "teacher", out / "bundles" / "student"]
    sources = [(runs / "teacher", None), (runs / "student", runs / "student_int8")]
    for bundle, (network, int8) in zip(bundles, sources, strict=True):
        for failure in export_bundle(bundle, network, int8, overwrite=True).failures:
            # a barely trained network has many pixels at the threshold; it is said, and goes on
            info(f"unlike torch: {failure.path}: {failure.reason}")
    done("export")

    settings = harness.Settings(iterations=effort.iterations, limit=effort.bench_limit)
    teacher, student = (open_model(path) for path in bundles)
    results = harness.run([student], teacher, parse_targets(TARGETS), sets, settings)
    spent = {**seconds, "total": time.monotonic() - started}
    results = results.model_copy(update={"demo_seconds": spent})
    done("benchmark")
    write_result(out / "bench.json", results)
    page = out / "report.html"
    write_page(page, results, make_gallery(results, [teacher, student], sets))
    done("page")
    print_table(results_table(results))
    for line in failures(results):
        print(line)
    frames = next(iter(sets.values())).root / "images"
    return Demo(results, page, bundles[0], bundles[1], frames)


def _run_shipped(images: Sequence[Path], out: Path) -> None:
    """What works without any training: the student that comes with the package."""
    from kdas_edge.bundle.shipped import or_shipped
    from kdas_edge.runtime.images import segment_files, stage_percentiles
    from kdas_edge.runtime.segmenter import Segmenter

    with Segmenter.load(or_shipped(None), "openvino:CPU") as segmenter:
        rows = list(segment_files(segmenter, images, out))
    total = stage_percentiles(rows)["total"]["p50"]
    info(
        f"the shipped student marks a polyp in {sum(row.components > 0 for row in rows)} of "
        f"{len(rows)} images, {total:.1f} ms each (p50): {out / 'overlays'}"
    )


def _shared(root: Path, limit: int | None) -> dict[str, Any]:
    return {
        # small images and batches leave time for the many steps that random weights need
        "data": {"root": str(root), "size": 96, "limit": limit},
        "augment": {"rotate": 180, "scale": [0.8, 1.25], "brightness": 0.2, "contrast": 0.2},
        "engine": {"overlay_every": 0},
    }


def _schedule(epochs: int, learning_rate: float) -> dict[str, Any]:
    return {
        "epochs": epochs,
        "batch_size": 4,
        "learning_rate": learning_rate,
        "warmup": 0.1,
        "ema": 0.98,
    }


def _model(backbone: str, width: int, weights: Path | None) -> dict[str, Any]:
    return {"backbone": backbone, "width": width, "pretrained": _encoder(backbone, weights)}


def _encoder(backbone: str, weights: Path | None) -> str | bool:
    if weights is None:
        return False
    found = sorted(weights.glob(f"{backbone}.*safetensors"))
    if not found:
        raise UserError(f"{weights} holds no {backbone}.*.safetensors; leave --weights out")
    return str(found[0])


def _teacher_recipe(root: Path, weights: Path | None, effort: Effort) -> TrainRecipe:
    backbone = "tf_efficientnet_b0" if weights else TEACHER_BACKBONE
    return load_recipe(
        TrainRecipe,
        {
            **_shared(root, effort.limit),
            "name": "teacher",
            "model": _model(backbone, 32, weights),
            "loss": {"variant": "supervised", "segmentation": "structure"},
            "schedule": _schedule(effort.teacher_epochs, 1e-3),
        },
        [],
    )


def _student_recipe(root: Path, teacher: Path, weights: Path | None, effort: Effort) -> TrainRecipe:
    backbone = "mobilenetv2_100" if weights else STUDENT_BACKBONE
    return load_recipe(
        TrainRecipe,
        {
            **_shared(root, effort.limit),
            "name": "student",
            "model": _model(backbone, 16, weights),
            "teacher": str(teacher),
            # summed over positions L_AT's gradient is 200 times the segmentation's
            "loss": {"variant": "kdas", "segmentation": "structure", "teacher_scale": 0.005},
            "schedule": _schedule(effort.student_epochs, 2e-3),
        },
        [],
    )


def _int8_recipe(root: Path, runs: Path, effort: Effort) -> QuantizeRecipe:
    return load_recipe(
        QuantizeRecipe,
        {
            **_shared(root, effort.limit),
            "name": "student_int8",
            "student": str(runs / "student"),
            "teacher": str(runs / "teacher"),
            "calibration": {"samples": 32},
            "loss": {"variant": "kdas", "segmentation": "structure", "teacher_scale": 0.005},
            "schedule": {**_schedule(effort.qat_epochs, 1e-4), "ema": 0, "warmup": 0},
            # a demo shows what came out; the default gate is for models that ship
            "max_drop": 1.0,
        },
        [],
    )
