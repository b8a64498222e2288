"""Model repositories: read by independent readers, and every model run in its runtime.

OpenVINO Model Server and Triton are containers and do not run here.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import openvino as ov
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from tiny_bundle import make_tiny_bundle, rewrite_manifest, scene

from kdas_edge.bundle.manifest import PRESETS, Manifest
from kdas_edge.bundle.reader import open_bundle
from kdas_edge.errors import UserError
from kdas_edge.export.serving.repository import write_repository
from kdas_edge.runtime import Segmenter
from kdas_edge.runtime.inputs import model_input

SIZE = 64
FRAME = scene(90, 130, seed=5)
# what the server's own JSON schema (model_server, src/schema.cpp) allows in an entry
OVMS_KEYS = {
    "name", "base_path", "batch_size", "model_version_policy", "shape", "layout", "nireq",
    "target_device", "allow_cache", "plugin_config", "stateful",
}  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("serving") / "tiny", SIZE, presets=PRESETS)


@pytest.fixture(scope="module")
def manifest(bundle: Path) -> Manifest:
    return open_bundle(bundle).manifest


@pytest.fixture(scope="module")
def expected(bundle: Path) -> dict[str, np.ndarray]:
    """Precision -> polyp probability of the frame."""
    found = {}
    for precision in ("fp32", "int8"):
        with Segmenter.load(bundle, "openvino:CPU:threads=1", precision) as segmenter:
            found[precision] = segmenter.segment(FRAME[..., ::-1]).probability
    return found


def repository(bundle: Path, layout: Any, out: Path, **options: Any) -> Path:
    write_repository(open_bundle(bundle), out, layout, **options)
    return out


def check_probability(name: str, found: np.ndarray, expected: dict[str, np.ndarray]) -> None:
    wanted = expected["int8" if "int8" in name else "fp32"]
    assert found.shape == (1, 2, SIZE, SIZE) and found.dtype == np.float32
    assert ((found[0, 1] > 0.5) != (wanted > 0.5)).mean() < 0.005, name


def test_openvino_model_server_gets_every_ir_with_shape_layout_and_precision(
    bundle: Path, manifest: Manifest, expected: dict[str, np.ndarray], tmp_path: Path
) -> None:
    root = repository(bundle, "ovms", tmp_path / "models")
    [key] = json.loads((root / "config.json").read_text()).items()
    assert key[0] == "model_config_list"
    entries = {entry["config"]["name"]: entry["config"] for entry in key[1]}
    assert set(entries) == {f"tiny_{p}_{q}" for p in PRESETS for q in ("fp32", "int8")}
    core = ov.Core()
    for name, entry in entries.items():
        assert entry.keys() <= OVMS_KEYS and list(key[1][0]) == ["config"]
        assert all(isinstance(value, str | int) for value in entry["plugin_config"].values())
        model = core.read_model(root / entry["base_path"] / "1" / "model.xml")
        [(input_name, shape)] = entry["shape"].items()
        numbers = [int(word) for word in shape.strip("()").split(",")]
        assert ov.PartialShape(numbers) == model.input(0).partial_shape
        assert input_name == model.input(0).get_any_name()
        axis = entry["layout"][input_name].index("C")
        assert numbers[axis] == 3 and entry["layout"]["probabilities"] == "NCHW"
        # the settings of the configuration are the device's
        compiled = core.compile_model(model, entry["target_device"], entry["plugin_config"])
        assert compiled.get_property("INFERENCE_PRECISION_HINT") == ov.Type.f32
        preset = name.split("_")[1]
        check_probability(name, compiled(model_input(FRAME, manifest, preset))[0], expected)


def model_config() -> Any:
    """Triton's ModelConfig, the fields that we write, numbers and types as in its .proto file."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="config.proto", package="t", syntax="proto3")

    def message(name: str, *fields: tuple[str, int, int, bool, str | None]) -> Any:
        new = file.message_type.add(name=name)
        for title, number, kind, repeated, type_name in fields:
            label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            new.field.add(name=title, number=number, type=kind, label=label, type_name=type_name)
        return new

    def enum(name: str, **values: int) -> None:
        new = file.enum_type.add(name=name)
        for title, number in values.items():
            new.value.add(name=title, number=number)

    text, whole, nested, choice = (
        field.TYPE_STRING, field.TYPE_INT64, field.TYPE_MESSAGE, field.TYPE_ENUM,
    )  # fmt: skip
    enum("DataType", TYPE_INVALID=0, TYPE_UINT8=2, TYPE_FP32=11)
    enum("Kind", KIND_AUTO=0, KIND_GPU=1, KIND_CPU=2)
    tensor = [
        ("name", 1, text, False, None),
        ("data_type", 2, choice, False, ".t.DataType"),
        ("dims", 4, whole, True, None),
    ]
    message("Input", *tensor)
    message("Output", *tensor)
    group = [("count", 2, whole, False, None), ("kind", 4, choice, False, ".t.Kind")]
    message("InstanceGroup", *group)
    message("Parameter", ("string_value", 1, text, False, None))
    config = message(
        "ModelConfig",
        ("name", 1, text, False, None),
        ("platform", 2, text, False, None),
        ("max_batch_size", 4, whole, False, None),
        ("input", 5, nested, True, ".t.Input"),
        ("output", 6, nested, True, ".t.Output"),
        ("instance_group", 7, nested, True, ".t.InstanceGroup"),
        ("default_model_filename", 8, text, False, None),
        ("parameters", 14, nested, True, ".t.ModelConfig.ParametersEntry"),
        ("backend", 17, text, False, None),
    )
    entry = config.nested_type.add(name="ParametersEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=text, label=field.LABEL_OPTIONAL)
    entry.field.add(
        name="value", number=2, type=nested, label=field.LABEL_OPTIONAL, type_name=".t.Parameter"
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.ModelConfig"))


def test_triton_gets_every_model_with_a_complete_configuration(
    bundle: Path, manifest: Manifest, expected: dict[str, np.ndarray], tmp_path: Path
) -> None:
    root = repository(bundle, "triton", tmp_path / "models")
    reader = model_config()
    folders = [path for path in root.iterdir() if path.is_dir()]
    assert len(folders) == 2 * 2 * len(PRESETS)
    for folder in folders:
        config = text_format.Parse((folder / "config.pbtxt").read_text(), reader())
        # Triton takes a model's name from its folder and refuses another one
        assert config.name == folder.name
        # shapes include the batch; no frame waits for another
        assert config.max_batch_size == 0
        [entry], [output], [group] = config.input, config.output, config.instance_group
        file = folder / "1" / config.default_model_filename
        x = model_input(FRAME, manifest, folder.name.split("_")[1])  # type: ignore[arg-type]
        types = {2: "uint8", 11: "float32"}
        assert types[entry.data_type] == x.dtype and types[output.data_type] == "float32"
        assert all(n in (-1, m) for n, m in zip(entry.dims, x.shape, strict=True))
        assert group.count == 1
        if folder.name.endswith("_openvino"):
            assert config.backend == "openvino" and group.kind == 2
            assert config.parameters["PERFORMANCE_HINT"].string_value == "LATENCY"
            model = ov.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            assert entry.name == model.input(0).get_any_name()
            dims = model.input(0).partial_shape
            assert list(entry.dims) == [n.get_length() if n.is_static else -1 for n in dims]
            y = model(x)[0]
        else:
            assert config.platform == "onnxruntime_onnx"
            session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
            [declared] = session.get_inputs()
            shape = [n if isinstance(n, int) else -1 for n in declared.shape]
            assert (entry.name, list(entry.dims)) == (declared.name, shape)
            [y] = session.run([output.name], {entry.name: x})
        assert list(output.dims) == list(y.shape)
        check_probability(folder.name, y, expected)


def test_the_models_are_the_bundles_own_files(bundle: Path, tmp_path: Path) -> None:
    root = repository(bundle, "triton", tmp_path / "models", precisions=["int8"])
    pairs = {
        "tiny_core_int8/1/model.onnx": "int8/core.onnx",
        "tiny_camera_int8_openvino/1/model.xml": "int8/camera.xml",
        "tiny_camera_int8_openvino/1/model.bin": "int8/camera.bin",
        "manifest.json": "manifest.json",
    }
    for copy, original in pairs.items():
        assert (root / copy).read_bytes() == (bundle / original).read_bytes()
    assert not list(root.glob("*fp32*"))


@pytest.mark.parametrize("layout", ["ovms", "triton"])
def test_the_readme_names_every_model_and_prefers_the_one_that_takes_frames(
    bundle: Path, layout: str, tmp_path: Path
) -> None:
    root = repository(bundle, layout, tmp_path / "models")
    text = (root / "README.md").read_text()
    for folder in root.iterdir():
        if folder.is_dir():
            assert f"`{folder.name}`" in text
    assert "--model tiny_camera_fp32" in text and "Not for clinical use" in text


def test_a_name_that_no_url_could_hold_is_made_plain(bundle: Path, tmp_path: Path) -> None:
    odd = Path(shutil.copytree(bundle, tmp_path / "odd"))
    rewrite_manifest(odd, lambda values: values.update(name='Klinik "Süd"/../2'))
    root = repository(odd, "ovms", tmp_path / "models", presets=["core"], precisions=["fp32"])
    [entry] = json.loads((root / "config.json").read_text())["model_config_list"]
    assert entry["config"]["name"] == "Klinik_S_d_2_core_fp32"
    assert (root / "Klinik_S_d_2_core_fp32/1/model.bin").is_file()


def test_what_is_there_is_kept_and_nothing_half_written_is_left(
    bundle: Path, tmp_path: Path
) -> None:
    opened = open_bundle(bundle)
    (tmp_path / "models").mkdir()
    (tmp_path / "models/mine.txt").write_text("mine")
    with pytest.raises(UserError, match="--overwrite"):
        write_repository(opened, tmp_path / "models", "ovms")
    with pytest.raises(UserError, match=r"no model for --layout triton .* it holds fp32 core"):
        write_repository(opened, tmp_path / "other", "triton", precisions=["fp16"])
    copy = Path(shutil.copytree(bundle, tmp_path / "tiny"))
    damaged = open_bundle(copy)
    (copy / "int8/holoscan.bin").unlink()
    with pytest.raises(UserError, match=r"holoscan\.bin"):
        write_repository(damaged, tmp_path / "other", "ovms")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models", "tiny"]
    write_repository(opened, tmp_path / "models", "ovms", overwrite=True)
    assert not (tmp_path / "models/mine.txt").exists()
