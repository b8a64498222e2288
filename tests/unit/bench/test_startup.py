import numpy as np
import pytest
from tiny_bundle import make_tiny_bundle

from kdas_edge.bench.memory import folder_bytes, peak_bytes, resident_bytes
from kdas_edge.bench.startup import measure_startup
from kdas_edge.bundle.reader import open_bundle
from kdas_edge.runtime.targets import parse_target


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("startup") / "tiny"
    return open_bundle(make_tiny_bundle(path, presets=("core",)))


@pytest.mark.skipif(resident_bytes() is None, reason="this system does not tell")
def test_memory_that_is_written_to_is_resident():
    before = resident_bytes()
    block = np.ones(40_000_000, dtype=np.uint8)
    assert 35e6 < resident_bytes() - before < 60e6
    assert peak_bytes() >= resident_bytes() - 1e6
    assert block.sum() == 40_000_000


def test_resident_memory_is_read_from_the_kernels_own_words(tmp_path):
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n")
    assert resident_bytes(status) == 1024 * 1024
    assert peak_bytes(status) == 2 * 1024 * 1024
    assert resident_bytes(tmp_path / "absent") is None


def test_the_size_of_a_folder_is_that_of_all_files_below_it(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "one").write_bytes(b"123")
    (tmp_path / "a/b/two").write_bytes(b"4567")
    assert folder_bytes(tmp_path) == 7


def test_openvino_starts_with_and_without_its_model_cache(bundle):
    found = measure_startup(bundle, "int8", parse_target("openvino:CPU:threads=1"))
    assert found.load_ms > 0 and found.first_ms > 0
    assert found.cache.load_ms > 0 and found.cache.bytes > 1000
    if resident_bytes() is not None:
        assert found.peak_bytes >= found.resident_bytes > 1e6
        assert found.resident_bytes >= found.resident_after_load_bytes


def test_onnx_runtime_has_no_model_cache(bundle):
    found = measure_startup(bundle, "fp32", parse_target("onnxruntime:CPU:threads=1"))
    assert found.load_ms > 0 and found.cache is None


def test_what_cannot_be_started_is_unavailable_with_the_reason(bundle):
    found = measure_startup(bundle, "fp16", parse_target("openvino:CPU"))
    assert "no fp16 model" in found.unavailable
    found = measure_startup(bundle, "fp32", parse_target("onnxruntime:CPU:hint=latency"))
    assert "has no hint" in found.unavailable and "\n" not in found.unavailable
