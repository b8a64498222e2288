import pytest
from tiny_bundle import make_tiny_bundle, scene

from kdas_edge.bench.throughput import measure_throughput
from kdas_edge.bundle.reader import open_bundle
from kdas_edge.errors import UserError
from kdas_edge.runtime.failures import TargetError
from kdas_edge.runtime.segmenter import preprocess
from kdas_edge.runtime.targets import parse_target


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("throughput") / "tiny"
    return open_bundle(make_tiny_bundle(path, presets=("core",)))


@pytest.fixture(scope="module")
def inputs(bundle):
    return [preprocess(scene(seed=seed), bundle.manifest) for seed in range(2)]


@pytest.mark.parametrize("target", ["openvino:CPU:threads=2", "onnxruntime:CPU:threads=2"])
def test_several_requests_are_in_flight_and_every_frame_counts_once(bundle, inputs, target):
    found = measure_throughput(bundle, "int8", parse_target(target), inputs, 0.2)
    assert found.requests == 2 and found.batch == 1
    assert found.seconds >= 0.2
    assert found.frames_per_second == pytest.approx(found.frames / found.seconds, rel=0.02)


def test_openvino_is_asked_for_throughput_whatever_the_target_hints(bundle, inputs):
    target = parse_target("openvino:CPU:threads=1:hint=latency")
    found = measure_throughput(bundle, "fp32", target, inputs, 0.05)
    assert found.effective["hint"] == "THROUGHPUT"


def test_a_batch_counts_all_its_frames(bundle, inputs):
    target = parse_target("openvino:CPU:threads=1:batch=2")
    doubled = [x.repeat(2, axis=0) for x in inputs]
    found = measure_throughput(bundle, "fp32", target, doubled, 0.05)
    assert found.batch == 2 and found.frames % 2 == 0


def test_what_has_no_requests_in_flight_is_refused(bundle, inputs):
    with pytest.raises(TargetError, match="no requests in flight"):
        measure_throughput(bundle, "fp32", parse_target("torch:cpu"), inputs, 1)
    with pytest.raises(TargetError, match="no fp16 model"):
        measure_throughput(bundle, "fp16", parse_target("openvino:CPU"), inputs, 1)
    with pytest.raises(UserError, match="raise --seconds"):
        measure_throughput(bundle, "fp32", parse_target("openvino:CPU"), inputs, 0)
