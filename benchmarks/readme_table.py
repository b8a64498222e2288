"""Write the README's results table from the committed benchmark, so that no figure is typed.

python benchmarks/readme_table.py            # writes
python benchmarks/readme_table.py --check    # exit code 1 if the README says something else
"""

import sys
from pathlib import Path
from typing import Any

from kdas_edge.bench.report.tables import main_accuracies, ratio_text
from kdas_edge.files import read_json, write_text_atomic

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "bench.json"
START = "<!-- results: written by benchmarks/readme_table.py -->"
END = "<!-- end of results -->"


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


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text()
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    new = f"{before}{START}\n{table(read_json(RESULTS))}\n{END}{after}"
    if "--check" in sys.argv:
        sys.exit(0 if new == text else "README.md differs from benchmarks/results/bench.json")
    write_text_atomic(readme, new)


if __name__ == "__main__":
    main()
