"""Write the README's tables from the committed benchmarks, so that no figure is typed.

python benchmarks/readme_table.py            # writes
python benchmarks/readme_table.py --check    # exit code 1 if the README says something else
"""

import sys
from pathlib import Path
from typing import Any

from kdas_edge.bench.report.tables import main_accuracies, ratio_text
from kdas_edge.files import read_json, write_text_atomic

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def table(results: dict[str, Any]) -> str:
    """The rows of the benchmark as a Markdown table."""
    sets = list(results["data"])
    dice = main_accuracies(results)
    head = ["model", "M params", "G MACs", "precision", "runtime, threads", "ms (p50)", "× teacher"]
    head += [f"Dice {name} ({results['data'][name]['images']})" for name in sets]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in results["rows"]:
        model = results["models"][row["model"]]["provenance"]
        cells = [
            row["model"],
            f"{model['parameters'] / 1e6:.2f}",
            f"{model['multiply_accumulates'] / 1e9:.2f}",
            row["precision"],
            row["target"],
        ]
        if row["status"] != "ok":
            cells += ["–", row["reason"], *("–" for _ in sets)]
        else:
            cells += [f"{row['latency']['p50']:.1f}"]
            cells += [ratio_text(row["speedup"]) if row.get("speedup") else "–"]
            for name in sets:
                value = dice[row["accuracy"]][name]
                half = (value["high"] - value["low"]) / 2
                cells.append(f"{value['mean']:.3f} ± {half:.3f}")
        lines.append("| " + " | ".join(cells) + " |")
    machine = results["environment"]
    lines += [
        "",
        f"One {machine['cpu']}"
        ", synchronous, batch 1, model only, all rows of a target measured in turns.",
    ]
    return "\n".join(lines)


def speed_table(results: dict[str, Any]) -> str:
    """Students in fp32 and int8, plainly exported and by this package."""
    settings, rates = results["settings"], results["peak_multiply_accumulates_per_second"]
    teacher = f"{settings['teacher']} fp32"
    head = ["network", "ms (p50)", f"× {teacher}, plain", "× own fp32", "of the arithmetic limit"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in results["rows"]:
        faster = row["times_as_fast_as"]
        cells = [
            f"{row['backbone']} {row['variant']}",
            f"{row['latency']['p50']:.1f}",
            f"{faster['teacher_plain']['value']:.1f}",
            f"{faster['own']['value']:.2f}",
            f"{row['share_of_arithmetic_limit']:.0%}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    size = settings["size"]
    lines += [
        "",
        f"One {results['environment']['cpu']}, OpenVINO, {settings['threads']} thread, "
        f"{size}×{size}, random weights (time does not depend on them), all rows measured in "
        "turns. The limit is "
        "multiply-accumulates ÷ the peak rate of one core measured in the same process: "
        f"{rates['fp32'] / 1e9:.0f} G/s in fp32, {rates['int8'] / 1e9:.0f} G/s in int8, so that on "
        f"this processor {rates['int8'] / rates['fp32']:.1f} × is what int8 can give.",
    ]
    return "\n".join(lines)


# name of the block in the README: the file that it is made from, and how
BLOCKS = {"results": ("bench.json", table), "int8 speed": ("int8_speed.json", speed_table)}


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
        text = f"{before}{start}\n{make(read_json(RESULTS / file))}\n{end}{after}"
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
