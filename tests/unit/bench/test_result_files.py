"""Result files: what is written is read back equal, and schema 1 migrates without loss."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from bench_results import make_json, make_results

from kdas_edge.bench.result_base import AccuracyKey
from kdas_edge.bench.results import BenchResult, read_bench, read_evaluation, write_result
from kdas_edge.errors import UserError

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "migrate_results.py"


def test_a_result_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    results = make_results()
    write_result(tmp_path / "a.json", results)
    assert read_bench(tmp_path / "a.json") == results
    # a key without a value is not written, and so no key is ever "null"
    assert "null" not in (tmp_path / "a.json").read_text()


def test_keys_that_a_later_issue_adds_are_left_out_by_an_older_reader(tmp_path: Path) -> None:
    values = make_json()
    values["rows"][0]["polyp_free"] = {"marked": 3}
    (tmp_path / "a.json").write_text(json.dumps(values))
    assert read_bench(tmp_path / "a.json") == BenchResult.model_validate(values)


def test_rows_find_their_accuracies_by_a_key_that_is_a_record() -> None:
    results = make_results()
    key = AccuracyKey("student", "int8", "openvino:CPU")
    row = next(row for row in results.rows if row.accuracy_key == key)
    assert results.dice[key]["scenes"].metrics["Dice"].mean == 0.88
    assert row.network == "student int8"


def test_columns_of_unequal_length_are_refused() -> None:
    values = make_json()
    values["accuracy"][0]["per_image"] = {"names": ["a", "b"], "metrics": {"Dice": [0.5]}}
    with pytest.raises(ValueError, match="same length"):
        BenchResult.model_validate(values)


def test_nan_is_never_written() -> None:
    with pytest.raises(ValueError, match="finite"):
        BenchResult.model_validate(
            {**make_json(), "settings": {"iterations": 1, "seconds": float(np.nan)}}
        )


def test_a_result_of_another_verb_names_both_schemas(tmp_path: Path) -> None:
    write_result(tmp_path / "a.json", make_results())
    with pytest.raises(UserError, match=r"kdas-edge/bench/2.*reads 'kdas-edge/eval/2'") as caught:
        read_evaluation(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


def test_files_of_schema_1_keep_every_figure() -> None:
    spec = importlib.util.spec_from_file_location("migrate_results", SCRIPT)
    assert spec is not None and spec.loader is not None
    migrate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(migrate)
    new = make_json()
    old = {**new, "schema": "kdas-edge/bench/1"}
    old["rows"] = [
        {
            **{key: value for key, value in row.items() if key != "accuracy_target"},
            **(
                {"accuracy": f"{row['model']}|{row['precision']}|{row['accuracy_target']}"}
                if "accuracy_target" in row
                else {}
            ),
        }
        for row in new["rows"]
    ]
    image = {"name": "a", "polyp_fraction": 0.1, "size": "medium", "Dice": 0.5, "IoU": None}
    old["accuracy"] = [{**entry, "per_image": [image]} for entry in new["accuracy"]]
    found = migrate.bench(old)
    (kept,) = found.accuracy[0].per_image.rows()
    assert kept.metrics == {"Dice": 0.5, "IoU": None} and kept.size == "medium"
    assert found.rows == make_results().rows
