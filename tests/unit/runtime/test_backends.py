import importlib.util

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops
from tiny_bundle import make_tiny_bundle, probability, rewrite_manifest, scene

from kdas_edge.bundle.reader import open_bundle
from kdas_edge.errors import UserError
from kdas_edge.runtime.backends import (
    available_devices,
    open_backend,
    present_targets,
    runtime_devices,
)
from kdas_edge.runtime.backends.openvino import compile_model
from kdas_edge.runtime.failures import TargetError
from kdas_edge.runtime.segmenter import preprocess
from kdas_edge.runtime.targets import parse_target

# one thread: threads that wait for each other are slow on a busy machine
OPENVINO, ONNXRUNTIME = RUNTIMES = ("openvino:CPU:threads=1", "onnxruntime:CPU:threads=1")
FRAME = scene(111, 157)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return open_bundle(make_tiny_bundle(tmp_path_factory.mktemp("backends") / "tiny"))


@pytest.mark.parametrize("target", RUNTIMES)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_each_runtime_gives_the_probabilities_of_the_reference(bundle, target, precision):
    backend = open_backend(bundle, precision, parse_target(target))
    output = backend.infer(preprocess(FRAME, bundle.manifest))
    assert output.shape == (1, 2, 64, 64) and output.dtype == np.float32
    np.testing.assert_allclose(output.sum(axis=1), 1, atol=1e-6)
    # int8: a value half-way between two levels may be rounded either way
    tolerance = 1e-5 if precision == "fp32" else 0.05
    np.testing.assert_allclose(output[0, 1], probability(FRAME, 64, precision), atol=tolerance)
    assert backend.load_seconds > 0


@pytest.mark.parametrize("target", RUNTIMES)
def test_a_camera_model_takes_bgr_frames_of_any_size(bundle, target):
    backend = open_backend(bundle, "fp32", parse_target(target), "camera")
    for height, width in ((111, 157), (64, 64), (300, 40)):
        frame = scene(height, width)
        output = backend.infer(np.ascontiguousarray(frame[np.newaxis, ..., ::-1]))
        difference = np.abs(output[0, 1] - probability(frame, 64, "fp32"))
        # PIL rounds the resized frame to whole grey levels, the graph does not
        assert difference.max() < 0.03 and difference.mean() < 0.005


@pytest.mark.parametrize("target", RUNTIMES)
def test_an_output_is_not_overwritten_by_the_next_inference(bundle, target):
    backend = open_backend(bundle, "fp32", parse_target(target))
    first = backend.infer(preprocess(FRAME, bundle.manifest))
    kept = first.copy()
    backend.infer(preprocess(scene(seed=5, polyp=False), bundle.manifest))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("target", RUNTIMES)
def test_the_input_is_not_changed(bundle, target):
    x = preprocess(FRAME, bundle.manifest)
    kept = x.copy()
    open_backend(bundle, "fp32", parse_target(target)).infer(x)
    np.testing.assert_array_equal(x, kept)


def test_openvino_computes_in_f32_unless_the_target_says_otherwise(bundle):
    effective = open_backend(bundle, "fp32", parse_target(OPENVINO)).effective
    assert effective["precision"] == "f32"
    assert effective["threads"] == 1
    assert effective["streams"] == 1
    assert effective["hint"] == "LATENCY"
    assert effective["devices"] == ["CPU"]
    assert effective["device"]


@pytest.mark.skipif(
    "BF16" not in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
    reason="this CPU has no bf16 arithmetic",
)
def test_bf16_is_used_and_reported_when_the_target_asks_for_it(bundle):
    x = preprocess(FRAME, bundle.manifest)
    exact = open_backend(bundle, "fp32", parse_target(OPENVINO))
    coarse = open_backend(bundle, "fp32", parse_target(OPENVINO + ":precision=bf16"))
    assert coarse.effective["precision"] == "bf16"
    difference = np.abs(coarse.infer(x) - exact.infer(x)).max()
    assert 1e-5 < difference < 0.05


def test_onnxruntime_runs_with_the_threads_and_the_one_provider_asked_for(bundle):
    effective = open_backend(bundle, "fp32", parse_target("onnxruntime:CPU:threads=2")).effective
    assert effective["threads"] == 2
    assert effective["devices"] == ["CPUExecutionProvider"]


def test_onnxruntime_refuses_a_precision_that_it_would_ignore(bundle):
    with pytest.raises(UserError, match="remove the option precision"):
        open_backend(bundle, "fp32", parse_target("onnxruntime:CPU:precision=bf16"))


def test_onnxruntime_tells_the_session_options_that_it_really_used(bundle):
    effective = open_backend(bundle, "fp32", parse_target(ONNXRUNTIME)).effective
    assert effective["graph_optimization"] == "enable_all"
    assert effective["hint"] == "sequential" and effective["inter_op_threads"] == 1
    assert isinstance(effective["provider_options"], dict)


@pytest.mark.parametrize("options", ["streams=2", "hint=throughput:streams=2"])
def test_openvino_takes_streams_and_a_hint_and_says_what_it_made_of_them(bundle, options):
    target = parse_target(f"openvino:CPU:threads=2:{options}")
    effective = open_backend(bundle, "fp32", target).effective
    assert effective["streams"] == 2
    assert effective["hint"] == ("THROUGHPUT" if "hint" in options else "LATENCY")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_batch_gives_one_map_for_each_frame(bundle, precision):
    frames = [scene(64, 64, seed) for seed in range(3)]
    backend = open_backend(bundle, precision, parse_target(OPENVINO + ":batch=3"))
    x = np.concatenate([preprocess(frame, bundle.manifest) for frame in frames])
    together = backend.infer(x)
    assert together.shape == (3, 2, 64, 64) and backend.effective["batch"] == 3
    alone = open_backend(bundle, precision, parse_target(OPENVINO))
    for index in range(3):
        np.testing.assert_allclose(together[index], alone.infer(x[index : index + 1])[0], atol=1e-6)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("onnxruntime:CPU:batch=2", "is for batch 1"),
        ("onnxruntime:CPU:streams=2", "has no streams"),
        ("onnxruntime:CPU:hint=latency", "has no hint"),
        ("openvino:AUTO:streams=2", "openvino:CPU and openvino:GPU"),
    ],
)
def test_an_option_that_a_runtime_has_not_is_a_wrong_option(bundle, target, words):
    with pytest.raises(TargetError, match=words) as caught:
        open_backend(bundle, "fp32", parse_target(target))
    assert caught.value.kind == "wrong option" and "\n" not in str(caught.value)


def test_a_network_that_is_written_for_one_frame_refuses_a_batch(tmp_path):
    x = ops.parameter([1, 3, 8, 8], np.float32, name="x")
    flat = ops.reshape(x, ops.constant(np.array([1, 192])), special_zero=False)
    ov.save_model(ov.Model([flat], [x], "flat"), tmp_path / "flat.xml")
    compile_model(tmp_path / "flat.xml", parse_target(OPENVINO))
    with pytest.raises(TargetError, match="remove the option batch") as caught:
        compile_model(tmp_path / "flat.xml", parse_target(OPENVINO + ":batch=2"))
    assert caught.value.kind == "wrong option" and "\n" not in str(caught.value)


def test_a_device_that_needs_one_size_refuses_a_model_of_any_size(bundle):
    path = bundle.file("fp32/camera.xml")
    with pytest.raises(TargetError, match="needs a static input") as caught:
        compile_model(path, parse_target("openvino:NPU"), bundle.manifest.inputs["camera"].shape)
    assert caught.value.kind == "dynamic shape"


def test_a_size_that_the_file_leaves_open_is_taken_from_the_contract(bundle):
    path = bundle.file("fp32/camera.xml")
    compiled = compile_model(path, parse_target(OPENVINO), (1, 48, 40, 3))
    assert list(compiled.input(0).shape) == [1, 48, 40, 3]


def test_the_model_cache_is_filled_and_gives_the_same_result(bundle, tmp_path):
    path, target = bundle.file("fp32/core.xml"), parse_target(OPENVINO)
    x = preprocess(FRAME, bundle.manifest)
    first = compile_model(path, target, cache=tmp_path)
    stored = [file.name for file in tmp_path.rglob("*") if file.is_file()]
    again = compile_model(path, target, cache=tmp_path)
    assert stored == [file.name for file in tmp_path.rglob("*") if file.is_file()] != []
    np.testing.assert_array_equal(first([x])[0], again([x])[0])


def test_present_targets_are_all_devices_but_auto():
    found = [str(target) for target in present_targets(("openvino", "onnxruntime"))]
    assert {"openvino:CPU", "onnxruntime:CPU"} <= set(found)
    assert "openvino:AUTO" not in found
    assert not any(target.startswith("torch") for target in found)


def test_present_devices_are_listed_by_runtime():
    devices = available_devices()
    assert set(devices) == {"openvino", "onnxruntime", "torch"}
    assert "CPU" in devices["openvino"] and "CPU" in devices["onnxruntime"]
    assert bool(devices["torch"]) == (importlib.util.find_spec("torch") is not None)


@pytest.mark.parametrize("text", ["openvino:NPU", "openvino:GPU.7", "onnxruntime:CoreML"])
def test_an_absent_device_is_refused_and_the_present_ones_listed(bundle, text):
    target = parse_target(text)
    if target.device in runtime_devices(target.runtime):
        pytest.skip(f"this machine has {text}")
    with pytest.raises(TargetError) as caught:
        open_backend(bundle, "fp32", target)
    assert f"present: {target.runtime}:CPU" in str(caught.value)
    assert caught.value.kind == "device absent"
    assert "\n" not in str(caught.value)


def test_a_precision_that_the_bundle_lacks_is_refused_with_what_it_holds(bundle):
    with pytest.raises(UserError, match="it holds fp32 core, fp32 camera, int8 core"):
        open_backend(bundle, "fp16", parse_target(OPENVINO))


def test_a_bundle_without_a_torch_file_says_which_runtimes_it_is_for(bundle):
    with pytest.raises(UserError, match="choose a target of openvino or onnxruntime"):
        open_backend(bundle, "fp32", parse_target("torch:cpu"))


@pytest.mark.parametrize(
    ("target", "name"), [(RUNTIMES[0], "core.xml"), (RUNTIMES[1], "core.onnx")]
)
def test_a_model_that_the_runtime_cannot_read_is_one_line(tmp_path, target, name):
    path = make_tiny_bundle(tmp_path / "tiny", presets=("core",))
    (path / "fp32" / name).write_text("not a model")
    rewrite_manifest(path, lambda values: None)
    with pytest.raises(UserError) as caught:
        open_backend(open_bundle(path), "fp32", parse_target(target))
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_the_torch_target_gives_the_sigmoid_of_the_summed_outputs(tmp_path):
    torch = pytest.importorskip("torch")
    checkpoints = pytest.importorskip("kdas_edge.models.checkpoints")
    from kdas_edge.models.architecture import Architecture, FullSize
    from kdas_edge.models.zoo import from_architecture

    architecture = Architecture("mobilenetv2_100", width=16, size=64)
    torch.manual_seed(0)
    network = from_architecture(architecture).eval()
    path = make_tiny_bundle(tmp_path / "tiny", presets=("core",))
    file = "fp32/model.safetensors"
    checkpoints.save_network(path / file, network.state_dict(), architecture)

    def add(values):
        values["models"].append(
            {"precision": "fp32", "format": "torch", "preset": "core", "path": file}
        )

    rewrite_manifest(path, add)
    bundle = open_bundle(path)
    backend = open_backend(bundle, "fp32", parse_target("torch:cpu:threads=1"))
    x = preprocess(FRAME, bundle.manifest)
    output = backend.infer(x)
    with torch.no_grad():
        z1, z2 = FullSize(network)(torch.from_numpy(x))
        expected = torch.sigmoid(z1 + z2).numpy()
    assert output.shape == (1, 2, 64, 64)
    np.testing.assert_allclose(output[:, 1:], expected, atol=1e-6)
    np.testing.assert_allclose(output[:, :1], 1 - expected, atol=1e-6)
    assert backend.effective["threads"] == 1
    flipped = open_backend(bundle, "fp32", parse_target("torch:cpu:tta=2"))
    wanted = flipped.infer(x[..., ::-1].copy())[..., ::-1]
    np.testing.assert_allclose(flipped.infer(x), wanted, atol=1e-6)
    assert np.abs(flipped.infer(x) - output).max() > 1e-4
    with pytest.raises(UserError, match="for torch it holds fp32 core"):
        open_backend(bundle, "int8", parse_target("torch:cpu"))


def test_an_input_of_another_shape_is_a_failed_inference_and_the_next_one_works(bundle):
    for target in RUNTIMES:
        backend = open_backend(bundle, "fp32", parse_target(target))
        for attempt in (backend.infer, lambda x, backend=backend: backend.start(x)()):
            with pytest.raises(TargetError) as caught:
                attempt(np.zeros((1, 3, 8, 8), np.float32))
            assert caught.value.kind == "inference failed" and "\n" not in str(caught.value)
        assert backend.infer(preprocess(FRAME, bundle.manifest)).shape == (1, 2, 64, 64)


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_threads_follow_the_quota_of_a_container(bundle, monkeypatch, runtime):
    from kdas_edge.runtime import Segmenter
    from kdas_edge.runtime.backends import onnxruntime, openvino

    for module in (onnxruntime, openvino):
        monkeypatch.setattr(module, "thread_limit", lambda: 1)
    with Segmenter.load(bundle.path, f"{runtime}:CPU") as segmenter:
        assert segmenter.backend.effective["threads"] == 1
