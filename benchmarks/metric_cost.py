"""What do the metrics cost beside the model? Both protocols against inference, per image.

Every part of an accuracy pass is timed on every image, several times in turn, and the fastest time
of each part counts, so that a busy machine hurts all parts alike and little. Metrics run on one
thread, so that inference does too, unless `--target` says otherwise. `metrics` is what one model
pays, distances to the polyp included; `metrics of a further model` is what each other model pays
that is scored on the same mask. PySODMetrics computes two of the eight measures, S-measure and
weighted F, for comparison.

Then the whole pass is timed as `kdas-edge bench` runs it, on all threads and with the next image
read meanwhile, with and without metrics in turn: what they add to it, fastest of each.

    python benchmarks/metric_cost.py bundles/student --data DATA --json metric_cost.json
    python benchmarks/metric_cost.py bundles/student            # scenes instead of images
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kdas_edge.bench.accuracy import Predict, evaluate, to_size
from kdas_edge.bench.evaluation import choose_precision, choose_sets, default_target
from kdas_edge.bench.models import open_model, predictor
from kdas_edge.bench.result_base import PROTOCOLS
from kdas_edge.console import info, progress, table
from kdas_edge.data.layout import ImageSet, Pair, find_pairs, read_pair
from kdas_edge.data.synthetic import scene
from kdas_edge.environment import describe
from kdas_edge.files import write_json
from kdas_edge.metrics import deploy, paper
from kdas_edge.metrics.geometry import MaskGeometry
from kdas_edge.process import one_line_errors
from kdas_edge.runtime.backends import open_backend
from kdas_edge.runtime.targets import parse_target
from kdas_edge.table import number

# the frame sizes of CVC-ClinicDB, CVC-300 and Kvasir-SEG (typical)
SIZES = ((384, 288), (574, 500), (622, 529))
# whole passes of each kind; the fastest counts
PASSES = 3


def write_scenes(folder: Path, count: int) -> None:
    """Synthetic pairs in the sizes of real sets."""
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for index in range(count):
        image, mask = scene(index, 352, polyp=True)
        size = SIZES[index % len(SIZES)]
        cv2.imwrite(str(folder / f"images/{index:03}.png"), cv2.resize(image[..., ::-1], size))
        pixels = cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(folder / f"masks/{index:03}.png"), pixels)


def pysodmetrics(probability: NDArray[Any], mask: NDArray[np.bool_]) -> None:
    from py_sod_metrics import Smeasure, WeightedFmeasure

    stretched = paper.stretch(probability, mask)
    for one in (Smeasure(), WeightedFmeasure()):
        one.step(stretched, mask, normalize=False)


def time_image(
    pair: Pair, predict: Callable[[NDArray[np.uint8]], NDArray[Any]], repeats: int, compare: bool
) -> dict[str, float]:
    """Milliseconds of each part of scoring one image."""
    frame, mask = read_pair(pair)
    small = predict(frame)
    probability = to_size(small, *mask.shape)
    geometry = MaskGeometry(mask)
    paper.measure(probability, mask, geometry)
    parts: dict[str, Callable[[], object]] = {
        "decoding": lambda: read_pair(pair),
        "inference": lambda: predict(frame),
        "resize to the mask": lambda: to_size(small, *mask.shape),
        "deploy": lambda: deploy.score(probability, mask),
        "paper": lambda: paper.measure(probability, mask),
        "paper, mask known": lambda: paper.measure(probability, mask, geometry),
    }
    if compare:
        parts["PySODMetrics"] = lambda: pysodmetrics(probability, mask)
    best = dict.fromkeys(parts, np.inf)
    for _ in range(repeats):
        for name, part in parts.items():
            start = time.perf_counter()
            part()
            best[name] = min(best[name], 1e3 * (time.perf_counter() - start))
    return best


def time_pass(
    sets: Iterable[ImageSet], predict: Predict, limit: int | None, repeats: int
) -> dict[str, float]:
    """Seconds of a whole pass over the sets, with both protocols and with none."""
    best = {"seconds": np.inf, "seconds_without_metrics": np.inf}
    for _ in range(repeats):
        for key, protocols in (("seconds", PROTOCOLS), ("seconds_without_metrics", ())):
            start = time.perf_counter()
            for one in sets:
                evaluate(predict, one, protocols, limit=limit)
            best[key] = min(best[key], time.perf_counter() - start)
    return {**best, "added": best["seconds"] / best["seconds_without_metrics"] - 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="bundle, run or checkpoint")
    parser.add_argument("--data", type=Path, help="PraNet layout, or images/ and masks/")
    parser.add_argument("--target", help="of the parts; by default the CPU with one thread")
    parser.add_argument("--precision", help="by default int8 where the model has it")
    parser.add_argument("--limit", type=int, help="images of each set, or scenes (24)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compare", action="store_true", help="also time PySODMetrics")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    bundle = open_model(arguments.model)
    whole = default_target(bundle)
    target = parse_target(arguments.target or f"{whole}:threads=1")
    precision = choose_precision(bundle, target, arguments.precision)
    backend = open_backend(bundle, precision, target)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.data is None:
            write_scenes(Path(scratch), arguments.limit or 24)
            sets = {"scenes": find_pairs(Path(scratch), "scenes")}
        else:
            sets = choose_sets(arguments.data)
        pairs = [pair for one in sets.values() for pair in one.pairs[: arguments.limit]]
        predict = predictor(bundle, backend)
        rows = []
        with progress(len(pairs), "images") as advance:
            for pair in pairs:
                if read_pair(pair)[1].any():  # the paper protocol has no polyp-free frames
                    rows.append(time_image(pair, predict, arguments.repeats, arguments.compare))
                advance()
        backend.close()
        cv2.setNumThreads(-1)
        info("whole pass, with and without metrics")
        backend = open_backend(bundle, precision, parse_target(whole))
        predict = predictor(bundle, backend)
        whole_pass = time_pass(sets.values(), predict, arguments.limit, PASSES)
        backend.close()
    total = {name: float(np.sum([row[name] for row in rows])) for name in rows[0]}
    total["metrics"] = total["deploy"] + total["paper"]
    total["metrics of a further model"] = total["deploy"] + total["paper, mask known"]
    share = {name: value / total["inference"] for name, value in total.items()}
    table(
        f"{bundle.name} {precision} on {target}, {len(rows)} images",
        ["part", "ms per image", "share of inference"],
        [[name, number(v / len(rows), 2), number(share[name], 2)] for name, v in total.items()],
    )
    print(
        f"whole pass on {whole}: {whole_pass['seconds']:.1f} s, "
        f"{whole_pass['seconds_without_metrics']:.1f} s without metrics "
        f"({whole_pass['added']:+.0%})"
    )
    if arguments.json is not None:
        result = {
            "model": bundle.name,
            "precision": precision,
            "target": str(target),
            "images": {name: len(one.pairs[: arguments.limit]) for name, one in sets.items()},
            "repeats": arguments.repeats,
            "milliseconds_per_image": {name: v / len(rows) for name, v in total.items()},
            "share_of_inference": share,
            "pass": {"target": whole, "repeats": PASSES, **whole_pass},
            "environment": describe(),
        }
        write_json(arguments.json, result)
        info(f"results: {arguments.json}")


if __name__ == "__main__":
    with one_line_errors():
        main()
