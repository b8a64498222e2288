"""A result of `kdas-edge bench` with numbers chosen by hand, for tests of what shows it."""

import numpy as np

from kdas_edge import environment
from kdas_edge.bench.results import BENCH_SCHEMA, BenchResult
from kdas_edge.latency import Latency, speedup
from kdas_edge.report.gallery import Case, Panel

# a name that tries to leave the markup and the script that hold it
BAD = "<b>bad</b></SCRIPT><script>alert(1)//"


def make_results(digest="a" * 64, scale=1.0):
    """A result with numbers chosen for the test."""
    return BenchResult.model_validate(make_json(digest, scale))


def make_json(digest="a" * 64, scale=1.0):
    """A result as `kdas-edge bench` writes it, with numbers chosen for the test."""
    rng = np.random.default_rng(0)
    rows, accuracy = [], []
    reference = None
    for model, role, precision, milliseconds, dice in (
        ("teacher", "teacher", "fp32", 100.0, 0.90),
        ("student", "student", "fp32", 30.0, 0.88),
        ("student", "student", "int8", 10.0, 0.88),
        (BAD, "student", "fp32", 50.0, 0.80),
    ):
        timing = Latency(scale * milliseconds / 1e3 * rng.normal(1, 0.02, 40), 0.2)
        reference = reference or timing
        rows.append(
            {
                "model": model, "role": role, "precision": precision,
                "target": "openvino:CPU:threads=1", "status": "ok", "reason": None,
                "file_bytes": 4_000_000, "load_ms": 80.0, "effective": {"threads": 1},
                "latency": timing.as_json(), "speedup": speedup(reference, timing).as_json(),
                "accuracy_target": "openvino:CPU",
            }
        )  # fmt: skip
        estimate = {"mean": dice, "low": dice - 0.02, "high": dice + 0.02, "count": 50}
        for protocol, metric in (("deploy", "Dice"), ("paper", "mDice")):
            accuracy.append(
                {
                    "model": model, "precision": precision, "target": "openvino:CPU",
                    "dataset": "scenes", "protocol": protocol, "images": 50,
                    "skipped_polyp_free": 0, "metrics": {metric: estimate}, "set_metrics": {},
                    "difference_to_teacher": {"metric": metric, **estimate},
                }
            )  # fmt: skip
    rows.append(
        {
            "model": "student", "role": "student", "precision": "int8", "target": "openvino:NPU",
            "status": "failed", "reason": "openvino finds no NPU",
        }
    )  # fmt: skip
    provenance = {
        "parameters": 3_650_000, "multiply_accumulates": 2_010_000_000, "created": "2026-11-20",
        "code_version": "0.1.0", "data_split_sha256": None,
    }  # fmt: skip
    return {
        "schema": BENCH_SCHEMA,
        "environment": {**environment.describe(), "load_average_before": None},
        "settings": {"iterations": 40, "limit": None},
        "data": {"scenes": {"images": 50, "sha256": digest}},
        "models": {
            name: {
                "role": role, "kind": "bundle", "folder": name, "input_size": 352,
                "threshold": 0.5, "provenance": provenance,
                "files": {"model.xml": {"bytes": 10, "sha256": "0" * 64}},
            }
            for name, role in (("teacher", "teacher"), ("student", "student"),
                               (BAD, "student"))
        },
        "rows": rows,
        "accuracy": accuracy,
    }  # fmt: skip


CASE = Case("scenes", "7", "worst", (Panel("ground truth", None, b"\xff\xd8"),
                                     Panel("student int8", 0.4, b"\xff\xd8")))  # fmt: skip
