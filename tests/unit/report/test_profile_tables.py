import pytest

from kdas_edge.inspect import Layer, Profile
from kdas_edge.report.profiles import profile_summaries, profile_tables


def row(precision: str, convolution: float, target: str = "openvino:CPU") -> dict:
    arithmetic = "int8" if precision == "int8" else "f32"
    layers = (
        Layer(
            "conv", "Convolution", "convolution", f"brgconv_{arithmetic}", arithmetic, convolution
        ),
        Layer("up", "Interpolate", "resize", "jit_f32", "f32", 2.0),
    )
    profile = Profile(layers, rounds=20, inference_ms=convolution + 2.5).as_json()
    return {
        "model": "student",
        "precision": precision,
        "target": target,
        "latency": {"p50": convolution + 2.1},
        "profile": profile,
    }


def test_the_precisions_of_a_model_stand_side_by_side():
    results = {"rows": [row("fp32", 6.0), row("int8", 1.5), row("fp32", 9.0, "openvino:GPU")]}
    (title, headings, cells), (other, *_) = profile_tables(results)
    assert "student on openvino:CPU" in title and "openvino:GPU" in other
    assert headings[1:5] == ["fp32 layers", "fp32 ms", "share %", "kernels"]
    assert [line[0] for line in cells] == [
        "float convolution", "resize", "int8 convolution", "total",
    ]  # fmt: skip
    # what one precision does not have is a dash, not a zero
    assert cells[0] == ["float convolution", "1", "6.00", "75.0", "brgconv_f32", "–", "–", "–", ""]
    assert cells[-1] == ["total", "2", "8.00", "100.0", "", "2", "3.50", "100.0", ""]


def test_many_precisions_leave_the_kernels_out():
    results = {"rows": [row(precision, 3.0) for precision in ("fp32", "fp16", "int8")]}
    ((_, headings, cells),) = profile_tables(results)
    assert "kernels" not in headings
    assert all(len(line) == len(headings) == 10 for line in cells)


def test_the_slowest_layers_are_listed_on_request():
    _, (title, _, cells) = profile_tables({"rows": [row("int8", 1.5)]}, top=1)
    assert title == "student int8 on openvino:CPU: the slowest 1"
    assert cells == [["up", "resize", "jit_f32", "f32", "2.000", "57.1"]]


def test_the_summary_sets_the_layers_beside_the_latency_and_tells_what_has_no_profile():
    silent = {**row("fp32", 1.0, "torch:cpu"), "profile": {"unavailable": "no counters"}}
    unasked = {"model": "student", "precision": "fp32", "target": "openvino:CPU"}
    lines = profile_summaries({"rows": [row("int8", 1.5), silent, unasked]})
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
