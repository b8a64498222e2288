import numpy as np
from bench_results import make_results
from peer_model import make_peer, make_peer_ir, write_config
from tiny_bundle import make_tiny_bundle

from kdas_edge.bench.candidates import Settings
from kdas_edge.bench.peers import open_peer
from kdas_edge.bench.results import BenchResult
from kdas_edge.bench.targets import choose_targets
from kdas_edge.bundle.reader import open_bundle
from kdas_edge.latency import Latency, Warmed
from kdas_edge.report.measurement_tables import measurement_tables
from kdas_edge.report.notes import notes

NAMES = {"model": "student", "precision": "int8", "target": "openvino:CPU"}


def results(row, throughput=(), settings=None):
    full = {**NAMES, "role": "student", "status": "ok", "reason": None, "failure": None, **row}
    base = make_results().model_dump(by_alias=True)
    values = {
        "settings": (settings or Settings()).record(),
        "rows": [full],
        "throughput": list(throughput),
    }
    return BenchResult.model_validate({**base, **values})


def timing(settled=True):
    samples = np.array([0.010] * 18 + [0.018, 0.045])
    return Latency(samples, 0.2, Warmed(16, 0.01 if settled else 0.2, settled)).as_json()


def only_table(found):
    (table,) = measurement_tables(found)
    assert all(len(row) == len(table.columns) for row in table.rows)
    headings = [column.heading for column in table.columns]
    cells = [[cell.text for cell in row] for row in table.rows]
    return table.title, [dict(zip(headings, row, strict=True)) for row in cells]


def test_late_frames_are_shown_in_per_cent_of_each_rate():
    _, (row,) = only_table(results({"latency": timing()}))
    assert row["late at 25/30/50/60 fps, %"] == "5 / 5 / 5 / 10"
    assert row["warm-up"] == "16" and row["p50 ms"] == "10.00" and row["first ms"] == "200.00"


def test_a_row_that_had_not_settled_says_so_in_the_table_and_below_it():
    found = results({"latency": timing(settled=False)})
    _, (row,) = only_table(found)
    assert row["warm-up"] == "16 (not settled)"
    assert "had not settled after the warm-up in 1 of 1 rows" in notes(found)[0]
    # who asks for a fixed number of rounds does not ask whether they were enough
    assert notes(results({"latency": timing(settled=False)}, settings=Settings(warmup=16))) == []


def test_starting_shows_the_cache_only_where_there_is_one():
    start = {"load_ms": 120.4, "first_ms": 9.87, "resident_bytes": 34_600_000,
             "peak_bytes": None, "cache": None}  # fmt: skip
    _, (row,) = only_table(results({"startup": start, "file_bytes": 2_500_000}))
    assert "with model cache ms" not in row and "peak MB" not in row
    assert (row["load ms"], row["resident MB"], row["files MB"]) == ("120", "34.6", "2.5")
    cached = {**start, "cache": {"load_ms": 30.2, "bytes": 1}}
    _, (row,) = only_table(results({"startup": cached}))
    assert row["with model cache ms"] == "30"


def test_throughput_has_its_own_table_and_its_failures_are_told():
    names = {**NAMES, "role": "student"}
    measured = {"frames_per_second": 123.45, "frames": 9, "seconds": 1, "requests": 4, "batch": 1}
    good = {**names, "measured": measured}
    bad = {**names, "target": "torch:cpu", "measured": {"unavailable": "no requests"}}
    found = results({}, [good, bad])
    title, (row,) = only_table(found)
    assert "NOT a latency" in title and row["frames/s"] == "123.5"
    assert notes(found) == ["throughput: FAILED student int8 on torch:cpu: no requests"]


def test_a_reason_that_all_rows_share_is_told_once():
    found = results({"latency": timing(), "energy": {"unavailable": "no RAPL counters"}})
    found.rows.extend(2 * found.rows)
    assert notes(found) == ["energy: unavailable: no RAPL counters"]
    assert len(measurement_tables(found)) == 1


def test_auto_looks_only_for_runtimes_that_have_a_file(tmp_path):
    tiny = open_bundle(make_tiny_bundle(tmp_path / "tiny", presets=("core",)))
    runtimes = {target.runtime for target in choose_targets("auto", [tiny])}
    assert runtimes == {"openvino", "onnxruntime"}
    ir = open_peer(make_peer_ir(tmp_path / "a.xml"), write_config(tmp_path / "a.yaml"))
    assert {target.runtime for target in choose_targets(" auto ", [ir])} == {"openvino"}
    # OpenVINO reads ONNX as well
    onnx = open_peer(make_peer(tmp_path / "b.onnx"), write_config(tmp_path / "b.yaml"))
    found = {str(target) for target in choose_targets("auto", [onnx])}
    assert {"openvino:CPU", "onnxruntime:CPU"} <= found


def test_targets_that_are_written_out_are_taken_as_they_are():
    found = choose_targets("openvino:CPU:threads=1,torch:cpu", [])
    assert [str(target) for target in found] == ["openvino:CPU:threads=1", "torch:cpu"]
