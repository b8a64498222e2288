"""Rewrite result files of schema 1 (`bench`, `eval`) as schema 2; no figure changes.

    python benchmarks/migrate_results.py benchmarks/results/bench.json …

Schema 2 has records for keys that schema 1 joined to strings, the scores of images column by
column, and `accuracy` in the files of `eval`, too. Files of another schema are left alone.
"""

import argparse
from pathlib import Path
from typing import Any

from kdas_edge.bench.results import BenchResult, EvaluationResult, write_result
from kdas_edge.files import read_json
from kdas_edge.process import one_line_errors

_OF_IMAGE = ("name", "polyp_fraction", "size")


def entry(old: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """An accuracy entry: the scores of its images column by column."""
    rows = old["per_image"]
    metrics = [key for key in rows[0] if key not in _OF_IMAGE] if rows else []
    images = {
        "names": [row["name"] for row in rows],
        "polyp_fractions": [row["polyp_fraction"] for row in rows if "polyp_fraction" in row],
        "metrics": {key: [row[key] for row in rows] for key in metrics},
    }
    return {**about, **old, "per_image": images}


def bench(old: dict[str, Any]) -> BenchResult:
    """A file of `kdas-edge bench`."""
    rows = []
    for row in old["rows"]:
        key = row.get("accuracy")
        rows.append({**row, "accuracy_target": key.rsplit("|", 1)[1] if key else None})
    known = {"role", "machine", "model", "precision", "target"}
    throughput = [
        {
            **{key: value for key, value in row.items() if key in known},
            "measured": row if row["status"] == "ok" else {"unavailable": row["reason"]},
        }
        for row in old.get("throughput", [])
    ]
    accuracy = [entry(one, {}) for one in old["accuracy"]]
    return BenchResult.model_validate(
        {**without_schema(old), "rows": rows, "throughput": throughput, "accuracy": accuracy}
    )


def evaluation(old: dict[str, Any]) -> EvaluationResult:
    """A file of `kdas-edge eval`: the model stood once above its entries."""
    name = old["model"]["name"] if "model" in old else f"maps {old['maps']}"
    about = {
        "model": name,
        "precision": old.get("precision", ""),
        "target": old.get("target", ""),
    }
    accuracy = [entry(one, about) for one in old["results"]]
    return EvaluationResult.model_validate(
        {**without_schema(old), "name": name, "accuracy": accuracy}
    )


def without_schema(old: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in old.items() if key != "schema"}


MIGRATIONS = {"kdas-edge/bench/1": bench, "kdas-edge/eval/1": evaluation}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    for path in parser.parse_args().files:
        old = read_json(path)
        migrate = MIGRATIONS.get(old.get("schema")) if isinstance(old, dict) else None
        if migrate is not None:
            write_result(path, migrate(old))
            print(f"{path}: {old['schema']} migrated")


if __name__ == "__main__":
    with one_line_errors():
        main()
