import numpy as np
import pytest
from bench_results import make_results

from kdas_edge.bench.results import BenchResult, Row
from kdas_edge.inspect import Layer, Profile
from kdas_edge.latency import Latency
from kdas_edge.report.profile_tables import profile_summaries, profile_tables
from kdas_edge.table import Table


def row(precision: str, convolution: float, target: str = "openvino:CPU") -> dict:
    arithmetic = "int8" if precision == "int8" else "f32"
    layers = (
        Layer(
            "conv", "Convolution", "convolution", f"brgconv_{arithmetic}", arithmetic, convolution
        ),
        Layer("up", "Interpolate", "resize", "jit_f32", "f32", 2.0),
    )
    profile = Profile(layers, rounds=20, inference_ms=convolution + 2.5).as_json()
    latency = Latency(np.full(10, (convolution + 2.1) / 1e3), 0.1).as_json()
    return {
        "model": "student",
        "role": "student",
        "precision": precision,
        "target": target,
        "latency": latency,
        "profile": profile,
    }


def results(*rows: dict) -> BenchResult:
    return make_results().model_copy(update={"rows": [Row.model_validate(row) for row in rows]})


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def test_the_precisions_of_a_model_stand_side_by_side():
    found = results(row("fp32", 6.0), row("int8", 1.5), row("fp32", 9.0, "openvino:GPU"))
    table, other = profile_tables(found)
    assert "student on openvino:CPU" in table.title and "openvino:GPU" in other.title
    headings, cells = [column.heading for column in table.columns], texts(table)
    assert headings[1:5] == ["fp32 layers", "fp32 ms", "share %", "kernels"]
    assert [line[0] for line in cells] == [
        "float convolution", "resize", "int8 convolution", "total",
    ]  # fmt: skip
    # what one precision does not have is a dash, not a zero
    assert cells[0] == ["float convolution", "1", "6.00", "75.0", "brgconv_f32", "–", "–", "–", "–"]
    assert cells[-1] == ["total", "2", "8.00", "100.0", "", "2", "3.50", "100.0", ""]


def test_many_precisions_leave_the_kernels_out():
    (table,) = profile_tables(results(*(row(name, 3.0) for name in ("fp32", "fp16", "int8"))))
    assert "kernels" not in [column.heading for column in table.columns]
    assert all(len(line) == len(table.columns) == 10 for line in table.rows)


def test_the_slowest_layers_are_listed_on_request():
    _, table = profile_tables(results(row("int8", 1.5)), top=1)
    assert table.title == "student int8 on openvino:CPU: the slowest 1"
    assert texts(table) == [["up", "resize", "jit_f32", "f32", "2.000", "57.1"]]


def test_the_summary_sets_the_layers_beside_the_latency_and_tells_what_has_no_profile():
    silent = {**row("fp32", 1.0, "torch:cpu"), "profile": {"unavailable": "no counters"}}
    unasked = {**row("fp32", 1.0), "profile": None}
    lines = profile_summaries(results(row("int8", 1.5), silent, unasked))
    assert lines == [
        "student int8 on openvino:CPU: layers 3.50 ms, unprofiled median 3.60 ms; "
        "100% of convolution and matmul time in int8",
        "student fp32 on torch:cpu: no profile (no counters)",
    ]


def test_a_network_without_arithmetic_has_no_int8_share():
    profile = Profile((Layer("up", "Interpolate", "resize", "jit", "f32", 1.0),), 5, 1.0)
    assert profile.int8_share is None
    assert profile.as_json()["int8_share"] is None
    assert profile.by_group()[0].share == pytest.approx(1)
