"""Write the README's tables from the committed benchmarks, so that no figure is typed.

python benchmarks/readme_table.py            # writes
python benchmarks/readme_table.py --check    # exit code 1 if the README says something else
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from kdas_edge.bench.accuracy_results import AccuracyEntry, RobustnessEntry, pooled_dice
from kdas_edge.bench.results import BenchResult, read_bench, read_evaluation
from kdas_edge.files import read_json, write_text_atomic
from kdas_edge.latency import Ratio
from kdas_edge.report.results_table import ratio_cell, ratio_interval
from kdas_edge.table import NONE, Cell, Column, Table, markdown

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
# typed; what the other scripts of benchmarks/ write is read as JSON
BENCH = "bench.json"
# said rather than left out: an empty place would be taken for a forgotten one
MISSING = "*Nothing of this is measured yet.*"


def as_markdown(head: Sequence[str], rows: Iterable[Sequence[str]], below: str = "") -> str:
    """A Markdown table, and a paragraph below it."""
    cells = tuple(tuple(Cell(text) for text in row) for row in rows)
    return markdown(Table("", tuple(map(Column, head)), cells, below=below))


def table(results: BenchResult) -> str:
    """The rows of the benchmark as a Markdown table."""
    dice = results.dice
    head = ["model", "M params", "G MACs", "precision", "runtime, threads", "ms (p50)", "× teacher"]
    head += [f"Dice {name} ({data.images})" for name, data in results.data.items()]
    rows: list[list[str]] = []
    for row in results.rows:
        origin = results.models[row.model].provenance
        cells = [
            row.model,
            f"{origin.parameters / 1e6:.2f}",
            f"{origin.multiply_accumulates / 1e9:.2f}",
            row.precision,
            row.target,
        ]
        if row.latency is None or row.accuracy_key is None:
            cells += ["–", row.reason or "–", *("–" for _ in results.data)]
        else:
            cells += [f"{row.latency.p50:.1f}", ratio_text(row.speedup)]
            for name in results.data:
                value = dice[row.accuracy_key][name].main
                assert value is not None
                cells.append(f"{value.mean:.3f} ± {(value.high - value.low) / 2:.3f}")
        rows.append(cells)
    machine = results.environment
    vnni = "with" if machine.cpu_features["vnni"] else "without"
    below = (
        f"One {machine.cpu} {vnni} VNNI"
        ", synchronous, batch 1, model only, all rows of a target measured in turns."
    )
    return as_markdown(head, rows, below)


def ratio_text(ratio: Ratio | None) -> str:
    """A ratio and its interval in one cell."""
    value, interval = ratio_cell(ratio).text, ratio_interval(ratio)
    return value if interval is NONE else f"{value} ({interval.text})"


def speed_table(results: dict[str, Any]) -> str:
    """Students in fp32 and int8, plainly exported and by this package."""
    settings, rates = results["settings"], results["peak_multiply_accumulates_per_second"]
    teacher = f"{settings['teacher']} fp32"
    head = ["network", "ms (p50)", f"× {teacher}, plain", "× own fp32", "of the arithmetic limit"]
    rows: list[list[str]] = []
    for row in results["rows"]:
        faster = row["times_as_fast_as"]
        cells = [
            f"{row['backbone']} {row['variant']}",
            f"{row['latency']['p50']:.1f}",
            f"{faster['teacher_plain']['value']:.1f}",
            f"{faster['own']['value']:.2f}",
            f"{row['share_of_arithmetic_limit']:.0%}",
        ]
        rows.append(cells)
    size = settings["size"]
    below = (
        f"One {results['environment']['cpu']}, OpenVINO, {settings['threads']} thread, "
        f"{size}×{size}, random weights (time does not depend on them), all rows measured in "
        "turns. The limit is "
        "multiply-accumulates ÷ the peak rate of one core measured in the same process: "
        f"{rates['fp32'] / 1e9:.0f} G/s in fp32, {rates['int8'] / 1e9:.0f} G/s in int8, so that on "
        f"this processor {rates['int8'] / rates['fp32']:.1f} × is what int8 can give."
    )
    return as_markdown(head, rows, below)


def published_table(results: BenchResult) -> str:
    """Ours and PraNet's maps as the published evaluation scores them, beside what others print."""
    sets = list(results.data)
    head = ["network", "M params", "G MACs", "input", *(f"mDice / mIoU {name}" for name in sets)]
    rows: list[list[str]] = []

    def add(name: str, size: list[str], found: dict[str, dict[str, float]]) -> None:
        cells = [
            f"{found[one]['mDice']:.3f} / {found[one]['mIoU']:.3f}" if one in found else "–"
            for one in sets
        ]
        rows.append([name, *size, *cells])

    def means(entries: Iterable[AccuracyEntry]) -> dict[str, dict[str, float]]:
        return {
            entry.dataset: {name: value.mean for name, value in entry.metrics.items()}
            for entry in entries
            if entry.protocol == "paper"
        }

    def size(parameters: float, cost: float, side: int) -> list[str]:
        return [f"{parameters / 1e6:.2f}", f"{cost / 1e9:.2f}", f"{side}"]

    for row in results.rows:
        if not row.target.startswith("openvino:CPU") or row.status != "ok":
            continue
        model = results.models[row.model]
        own = model.provenance
        add(
            f"{row.model}, {row.precision}, OpenVINO",
            size(own.parameters, own.multiply_accumulates, model.input_size),
            means(entry for entry in results.accuracy if entry.key == row.accuracy_key),
        )
    maps = [read_evaluation(path) for path in sorted(RESULTS.glob("pranet_maps_*.json"))]
    add(
        "PraNet, its published maps scored here",
        ["–", "–", "352"],
        means(entry for file in maps for entry in file.accuracy),
    )
    for other in yaml.safe_load((ROOT / "benchmarks" / "published.yaml").read_text()):
        add(
            f"{other['model']}: as published ({other['source']}), not measured here",
            size(float(other["parameters"]), float(other["multiply_accumulates"]), 352),
            other["sets"],
        )
    return as_markdown(head, rows)


def ablation_table(results: dict[str, Any]) -> str:
    """Rows of the ablation: mean Dice over seeds, paired differences to the supervised student."""
    sets = list(next(iter(results["rows"].values()))["sets"])
    head = ["row", "what", "seeds", "validation", *(f"Dice {name}" for name in sets)]
    rows: list[list[str]] = []
    usual = results["rows"]["supervised"]["parameters"]
    for name, row in results["rows"].items():
        cells = []
        what = row["what"]
        if row["parameters"] != usual:
            what += f"; {row['parameters'] / 1e6:.2f} M parameters instead of {usual / 1e6:.2f}"
            if row["multiply_accumulates"]:
                what += f", {row['multiply_accumulates'] / 1e9:.2f} G MACs"
        for image_set in sets:
            found = row["sets"][image_set]
            cells.append(with_difference(found["dice"], found["minus_supervised"]))
        validation = f"{row['validation_dice']:.3f}"
        rows.append([name, what, str(row["seeds"]), validation, *cells])
    text = as_markdown(head, rows)
    if results["twins"]:
        twins = [
            [name, *(with_interval(estimate) for estimate in row.values())]
            for name, row in results["twins"].items()
        ]
        text += "\n\n" + as_markdown(["what one part gives", *sets], twins)
    return text


def comparison_table(results: dict[str, Any]) -> str:
    """Networks beside a first one: mean Dice, and the paired difference in brackets."""
    rows = [
        [
            name,
            *(with_difference(found["dice"], found.get("difference")) for found in sets.values()),
        ]
        for name, sets in results["rows"].items()
    ]
    sets = results["rows"][results["baseline"]]
    return as_markdown(["network", *(f"Dice {image_set}" for image_set in sets)], rows)


def with_difference(dice: dict[str, float], difference: dict[str, float] | None) -> str:
    text = f"{dice['mean']:.3f}"
    return text if difference is None else f"{text} ({with_interval(difference)})"


def with_interval(difference: dict[str, float]) -> str:
    return "{mean:+.3f}: {low:+.3f} to {high:+.3f}".format(**difference)


def agreement_table(results: dict[str, Any]) -> str:
    """One int8 model on every path whose kernels are known to have run, against torch."""
    head = ["path", "mask pixels that differ, %", "worst frame, %", "difference in mean Dice"]
    rows = []
    for name, path in results["paths"].items():
        if path["verified"]:
            pixels = (f"{100 * path['disagreement'][key]:.2f}" for key in ("mean", "worst"))
            rows.append([name, *pixels, f"{path['dice_difference']:+.4f}"])
    below = (
        f"{len(results['frames'])} frames at {results['size']} pixels, "
        f"{results['environment']['cpu']}; allowed are 0.5 % on average and 0.002."
    )
    return as_markdown(head, rows, below)


def embedding_table(results: dict[str, Any]) -> str:
    """A 1080p frame in, a mask of that size out, beside the model alone."""
    head = ["preset", "model, p50 ms", "frame to mask, p50 ms", "× model", "p99 ms", "Python ms"]
    rows = []
    for row in results["rows"]:
        whole, model = row["latency"]["end to end"], row["latency"]["model"]
        figures = [model["p50"], whole["p50"], whole["p99"]]
        median, end_to_end, late = (f"{value:.1f}" for value in figures)
        ratio, python = f"{row['ratio_to_model']:.2f}", f"{row['python_ms']:.2f}"
        rows.append([row["preset"], median, end_to_end, ratio, late, python])
    first = results["rows"][0]
    missed = [name for name, limit in results["limits"].items() if not limit["kept"]]
    below = (
        f"{first['bundle']} {first['precision']} on {first['target']}, {first['frame']}, one "
        f"{results['environment']['cpu']}. "
        + (f"Missed: {'; '.join(missed)}." if missed else "All limits are kept.")
    )
    return as_markdown(head, rows, below)


def soak_sentence(results: dict[str, Any]) -> str:
    """What many frames and a swap of the model did to memory and speed."""
    first, last, swap = results["tenths"][0], results["tenths"][-1], results["swap"]
    return (
        f"{results['frames']:,} frames of {results['frame']} with the model replaced after half of "
        f"them ({swap['frames_meanwhile']} frames meanwhile): {results['failed']} dropped, "
        f"{results['wrong']} masks that differ; resident memory {first['resident_mb']:.0f} MB at "
        f"first, {last['resident_mb']:.0f} MB at last "
        f"({results['memory_growth_percent']:+.2f} %); p50 {first['p50_ms']:.1f} and "
        f"{last['p50_ms']:.1f} ms ({results['latency_drift_by_the_clock_percent']:+.1f} %; a fixed "
        "piece of arithmetic that was timed between the frames taken off, "
        f"{results['latency_drift_percent']:+.1f} %)."
    )


def robustness_table(results: BenchResult) -> str:
    """Dice under each corruption at its three strengths, over the images of all sets."""
    entries = results.robustness
    if not entries:
        return MISSING
    groups: dict[tuple[str, str, int], list[RobustnessEntry]] = {}
    for entry in entries:
        key = f"{entry.model} {entry.precision}", entry.corruption, entry.strength
        groups.setdefault(key, []).append(entry)
    models = list(dict.fromkeys(key[0] for key in groups))
    corruptions = list(dict.fromkeys(key[1] for key in groups))

    def mean(model: str, corruption: str, strength: int) -> str:
        return f"{pooled_dice(groups[model, corruption, strength]):.3f}"

    head = ["images", *(f"{model}: Dice at strength 1 / 2 / 3" for model in models)]
    rows = [["clean", *(mean(model, corruptions[0], 0) for model in models)]]
    for name in corruptions:
        cells = [" / ".join(mean(model, name, s) for s in (1, 2, 3)) for model in models]
        rows.append([name.replace("_", " "), *cells])
    sets = list(dict.fromkeys(entry.dataset for entry in entries))
    images = sum(entry.images for entry in groups[models[0], corruptions[0], 0])
    return as_markdown(head, rows, f"{images} images of {', '.join(sets)}, {entries[0].target}.")


def stability_table(results: dict[str, Any]) -> str:
    """What each measure against flicker buys and costs."""
    columns = {
        "changes_per_second": ("changes a second", 2),
        "false_episodes_per_minute": ("false episodes a minute", 1),
        "added_delay_ms": ("added delay, ms", 0),
        "dice": ("Dice", 3),
    }
    head = ["setting", *(title for title, _ in columns.values())]
    rows: list[list[str]] = []
    for name, found in results["settings"].items():
        cells = [
            "–" if found[key] is None else f"{found[key]:.{digits}f}"
            for key, (_, digits) in columns.items()
        ]
        rows.append([name, *cells])
    clips, options = results["clips"], results["options"]
    below = (
        f"{clips['polyp']} clips with a polyp and {clips['polyp_free']} without, "
        f"{options['seconds']:g} s at {options['fps']:g} frames a second, cut from "
        f"{results['source']}; {results['model']['name']} {results['model']['precision']}."
    )
    return as_markdown(head, rows, below)


# name of the block in the README: the file that it is made from, and how
BLOCKS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "results": (BENCH, table),
    "published": (BENCH, published_table),
    "ablation": ("ablation/summary.json", ablation_table),
    "hospital Kvasir": ("unseen_hospital/Kvasir/summary.json", ablation_table),
    "hospital CVC-ClinicDB": ("unseen_hospital/CVC-ClinicDB/summary.json", ablation_table),
    "longer": ("student_256_longer.json", comparison_table),
    "int8 speed": ("int8_speed.json", speed_table),
    "agreement": ("int8_agreement_352.json", agreement_table),
    "embedding": ("embedding_latency.json", embedding_table),
    "soak": ("soak.json", soak_sentence),
    "stability": ("stability_kvasir.json", stability_table),
    "robustness": (BENCH, robustness_table),
}


def rewritten(text: str) -> str:
    """The README with every block made anew."""
    for name, (file, make) in BLOCKS.items():
        start, end = (
            f"<!-- {name}: written by benchmarks/readme_table.py -->",
            f"<!-- end of {name} -->",
        )
        before, found, rest = text.partition(start)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            sys.exit(f"README.md has no block {name!r}")
        there = (RESULTS / file).is_file()
        read = read_bench if file == BENCH else read_json
        made = make(read(RESULTS / file)) if there else MISSING
        text = f"{before}{start}\n{made}\n{end}{after}"
    return text


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text()
    new = rewritten(text)
    if "--check" in sys.argv:
        sys.exit(0 if new == text else "README.md differs from benchmarks/results")
    write_text_atomic(readme, new)


if __name__ == "__main__":
    main()
