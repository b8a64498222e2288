"""The tiny network in many disguises: every one must give the probabilities of the original."""

from pathlib import Path

import numpy as np
import pytest
from peer_model import NORMAL, make_peer, make_peer_ir, write_config
from tiny_bundle import probability, scene

from kdas_edge.bench.models import bundle_key, describe, predictor, unique_names
from kdas_edge.bench.peer_config import read_peer_config
from kdas_edge.bench.peers import open_peer, open_peers
from kdas_edge.bench.pipeline import pipeline
from kdas_edge.errors import UserError
from kdas_edge.runtime.backends import open_backend
from kdas_edge.runtime.targets import parse_target

FRAME = scene(64, 64)
LARGE = scene(90, 120)
RUNTIMES = ("openvino:CPU:threads=1", "onnxruntime:CPU:threads=1")


def opened(folder, model_options, config_options):
    model = make_peer(folder / "net.onnx", **model_options)
    return open_peer(model, write_config(folder / "net.yaml", **config_options))


def predict(peer, frame, target=RUNTIMES[0]):
    backend = open_backend(peer, peer.config.precision, parse_target(target))
    found = predictor(peer, backend)(frame)
    backend.close()
    return found


BYTES = {"dtype": "uint8", "mean": [0, 0, 0], "std": [1, 1, 1]}
IN_255 = {
    "value_range": 255,
    "mean": [255 * value for value in NORMAL["mean"]],
    "std": [255 * value for value in NORMAL["std"]],
}


@pytest.mark.parametrize("target", RUNTIMES)
@pytest.mark.parametrize(
    ("model_options", "config_options"),
    [
        ({}, {}),
        ({}, {"size": [64, 64]}),
        ({}, IN_255),
        ({"layout": "NHWC"}, {"layout": "NHWC"}),
        (
            {"color": "BGR"},
            {"color": "BGR", "mean": NORMAL["mean"][::-1], "std": NORMAL["std"][::-1]},
        ),
        ({"uint8": True}, BYTES),
        (
            {"uint8": True, "color": "BGR", "layout": "NHWC"},
            {**BYTES, "color": "BGR", "layout": "NHWC"},
        ),
        ({"output": "probabilities"}, {"output": "probabilities"}),
        ({"output": "two-channel"}, {"output": "two-channel"}),
        ({"output": "two-channel", "layout": "NHWC"}, {"output": "two-channel", "layout": "NHWC"}),
        ({"output": "two-channel-logits"}, {"output": "two-channel-logits"}),
        ({"second_output": True}, {"output_name": "y"}),
        ({"open_batch": True}, {}),
    ],
)
def test_every_way_to_feed_and_read_a_model_gives_its_probabilities(
    tmp_path, target, model_options, config_options
):
    peer = opened(tmp_path, model_options, config_options)
    expected = probability(FRAME, 64, "fp32")
    np.testing.assert_allclose(predict(peer, FRAME, target), expected, atol=1e-4)


@pytest.mark.parametrize("target", RUNTIMES)
def test_classes_are_certain(tmp_path, target):
    peer = opened(tmp_path, {"output": "classes"}, {"output": "classes"})
    found = predict(peer, FRAME, target)
    np.testing.assert_array_equal(found, probability(FRAME, 64, "fp32") > 0.5)


def test_the_channel_of_the_polyp_can_be_the_first(tmp_path):
    peer = opened(tmp_path, {"output": "two-channel"}, {"output": "two-channel", "polyp_class": 0})
    expected = 1 - probability(FRAME, 64, "fp32")
    np.testing.assert_allclose(predict(peer, FRAME), expected, atol=1e-4)


def test_an_ir_is_a_peer_of_openvino(tmp_path):
    model = make_peer_ir(tmp_path / "net.xml")
    peer = open_peer(model, write_config(tmp_path / "net.yaml"))
    np.testing.assert_allclose(predict(peer, FRAME), probability(FRAME, 64, "fp32"), atol=1e-4)
    files = [tmp_path / "net.xml", tmp_path / "net.bin"]
    assert peer.size_bytes(peer.manifest.models[0]) == sum(f.stat().st_size for f in files)
    with pytest.raises(UserError, match="it holds nothing for onnxruntime"):
        open_backend(peer, "fp32", parse_target("onnxruntime:CPU"))


def test_a_frame_of_another_size_is_resized_as_the_configuration_says(tmp_path):
    expected = probability(LARGE, 64, "fp32")
    found = {}
    for name in ("bilinear-antialias", "bilinear", "bicubic", "area", "nearest"):
        peer = opened(tmp_path, {}, {"resize": name, "upsampling": "nearest"})
        backend = open_backend(peer, "fp32", parse_target(RUNTIMES[0]))
        inside = pipeline(peer, backend, parse_target(RUNTIMES[0]), "fp32")
        output = backend.infer(inside.prepare(LARGE))
        found[name] = 1 / (1 + np.exp(-output[0, 0]))
    np.testing.assert_allclose(found["bilinear-antialias"], expected, atol=1e-4)
    differences = {name: np.abs(value - expected).max() for name, value in found.items()}
    assert all(
        difference > 0.01 for name, difference in differences.items() if "antialias" not in name
    )


def test_a_peer_brings_its_map_to_the_frame_itself(tmp_path):
    sharp = predict(opened(tmp_path, {"stride": 4}, {"upsampling": "nearest"}), LARGE)
    smooth = predict(opened(tmp_path, {"stride": 4}, {"upsampling": "bilinear"}), LARGE)
    cubic = predict(opened(tmp_path, {"stride": 4}, {"upsampling": "bicubic"}), LARGE)
    assert sharp.shape == smooth.shape == cubic.shape == LARGE.shape[:2]
    # 16 × 16 outputs: with the nearest one there are no values in between
    assert len(np.unique(sharp)) <= 256 < len(np.unique(smooth))
    assert cubic.min() >= 0 and cubic.max() <= 1


def test_one_frame_in_one_mask_out_with_the_stages_told(tmp_path):
    peer = opened(tmp_path, {}, {"threshold": 0.7})
    target = parse_target(RUNTIMES[0])
    backend = open_backend(peer, "fp32", target)
    result = pipeline(peer, backend, target, "fp32").segment(np.ascontiguousarray(LARGE[..., ::-1]))
    assert result.mask.shape == LARGE.shape[:2] and result.mask.dtype == bool
    np.testing.assert_array_equal(result.mask, predictor(peer, backend)(LARGE) > 0.7)
    assert set(result.milliseconds) == {"preprocess", "inference", "postprocess"}


def test_a_batch_feeds_the_frame_as_often_and_reads_the_first(tmp_path):
    peer = opened(tmp_path, {"open_batch": True}, {})
    for target in ("openvino:CPU:threads=1:batch=3", "onnxruntime:CPU:threads=1:batch=3"):
        found = predict(peer, FRAME, target)
        np.testing.assert_allclose(found, probability(FRAME, 64, "fp32"), atol=1e-4)


def test_a_peer_is_described_as_one_with_its_configuration_and_hash(tmp_path):
    peer = opened(tmp_path, {}, {"name": "unet", "precision": "fp16"})
    told = describe(peer)
    assert told.kind == "peer" and peer.name == "unet"
    assert told.config is not None and told.config.resize == "bilinear-antialias"
    assert len(told.files["net.onnx"].sha256) == 64
    assert bundle_key(peer).endswith("net.onnx")
    (tmp_path / "b").mkdir()
    other = opened(tmp_path / "b", {}, {"name": "unet"})
    assert len(set(unique_names([peer, other]))) == 2


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sise": 64}, "unknown key 'sise'; did you mean 'size'?"),
        ({"size": None}, "size: None"),
        ({"size": 0}, "above 0"),
        ({"std": [1, 0, 1]}, "cannot be divided by"),
        ({"mean": [1, 2]}, "mean"),
        ({"value_range": 128}, "value_range: 128: input should be 1 or 255"),
        ({"output": "logit"}, "output: 'logit': input should be 'logits'"),
        ({"resize": "lanczos"}, "'bilinear-antialias'"),
        ({"threshold": 2}, "threshold: 2"),
        ({"precision": "int4"}, "'int8'"),
    ],
)
def test_a_wrong_configuration_is_one_line_with_the_key(tmp_path, values, words):
    with pytest.raises(UserError) as caught:
        read_peer_config(write_config(tmp_path / "net.yaml", **values))
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert "net.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("output: logits\n", "'size' is missing"),
        ("size: 64\n", "'output' is missing"),
        ("- size\n", "holds no keys"),
        ("size: [64\n", "is not YAML"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_line(tmp_path, text, words):
    path = tmp_path / "net.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=words):
        read_peer_config(path)
    with pytest.raises(UserError, match="cannot read --peer-config"):
        read_peer_config(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("model_options", "config_options", "words"),
    [
        ({"output": "two-channel"}, {}, r"shape \(1, 2, 64, 64\).*logits needs 1 channel"),
        ({}, {"output": "two-channel"}, r"shape \(1, 1, 64, 64\).*needs 2 channels"),
        ({}, {"output": "probabilities"}, "are they logits"),
        ({"output": "probabilities"}, {"output": "classes"}, "gives fractions"),
        ({"output": "two-channel"}, {"output": "two-channel", "polyp_class": 2}, "set 0 or 1"),
        ({"second_output": True}, {}, "several outputs .*edges"),
        ({"second_output": True}, {"output_name": "mask"}, "has no 'mask'; it has .*y"),
        ({}, {"size": 32}, "check size, layout and dtype"),
        ({}, {"layout": "NHWC"}, "check size, layout and dtype"),
        ({}, {"dtype": "uint8"}, "check size, layout and dtype"),
    ],
)
def test_a_configuration_that_the_model_contradicts_is_told_before_anything_is_measured(
    tmp_path, model_options, config_options, words
):
    with pytest.raises(UserError, match=words) as caught:
        opened(tmp_path, model_options, config_options)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_peers_are_refused(tmp_path):
    config = write_config(tmp_path / "net.yaml")
    (tmp_path / "net.onnx").write_bytes(b"not a graph")
    for model, words in (
        (tmp_path / "net.pt", "an .onnx file or the .xml"),
        (tmp_path / "absent.onnx", "does not exist"),
        (tmp_path / "net.onnx", "cannot be run"),
    ):
        with pytest.raises(UserError, match=words):
            open_peer(model, config)
    with pytest.raises(UserError, match="give one for each"):
        open_peers([tmp_path / "net.onnx"], [])


def test_the_committed_example_of_a_configuration_is_read():
    path = Path(__file__).parents[3] / "benchmarks" / "peers" / "pranet.yaml"
    config = read_peer_config(path)
    assert config.size == (352, 352) and config.output == "logits"
