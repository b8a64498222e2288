"""A real bundle, made in a tenth of a second, for tests of the device wing.

The network is one 1×1 convolution and a sigmoid, written once as an OpenVINO graph and once as an
ONNX graph with the same weights. The int8 precision puts a real quantiser (FakeQuantize, or
QuantizeLinear/DequantizeLinear) on the input. The expected probabilities are computed in NumPy.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import openvino as ov
from onnx import TensorProto, helper, numpy_helper
from openvino import opset13 as ops
from openvino.preprocess import ColorFormat, PrePostProcessor, ResizeAlgorithm
from PIL import Image

from kdas_edge.bundle.digest import sealed
from kdas_edge.bundle.manifest import (
    FileRecord,
    Golden,
    InputContract,
    Manifest,
    ModelFile,
    Normalisation,
    OutputContract,
    Provenance,
    Tolerance,
    write_manifest,
)
from kdas_edge.bundle.metadata import model_metadata
from kdas_edge.data.layout import resize_image
from kdas_edge.export.presets import input_contract

NORMALISATION = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
# polyps of `scene` are paler than the mucosa: green and blue tell them apart
WEIGHTS = np.array([0.5, 2.0, 1.5], dtype=np.float32)
BIAS = np.float32(1.0)
# FakeQuantize range of the normalised input, 256 levels
SCALE = np.float32(5.5 / 255)
ZERO_POINT = 114


def scene(height: int = 90, width: int = 120, seed: int = 0, polyp: bool = True) -> np.ndarray:
    """(H, W, 3) uint8 RGB: red mucosa with, if wanted, one pale disc in the middle third."""
    rng = np.random.default_rng(seed)
    image = np.array([170, 70, 60]) + rng.normal(0, 6, (height, width, 3))
    if polyp:
        y, x = np.mgrid[:height, :width]
        cy, cx = rng.uniform(0.4, 0.6, 2) * (height, width)
        disc = (y - cy) ** 2 + (x - cx) ** 2 < (min(height, width) / 5) ** 2
        image[disc] += (40, 100, 90)
    return image.clip(0, 255).astype(np.uint8)


def probability(frame_rgb: np.ndarray, size: int, precision: str) -> np.ndarray:
    """(S, S) float32 polyp probability of the tiny network, in float64 NumPy."""
    x = resize_image(frame_rgb, size, size) / 255.0
    x = (x - np.array(NORMALISATION.mean)) / np.array(NORMALISATION.std)
    if precision == "int8":
        scale = float(SCALE)
        x = (np.clip(np.rint(x / scale) + ZERO_POINT, 0, 255) - ZERO_POINT) * scale
    logits = x @ WEIGHTS.astype(np.float64) + float(BIAS)
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


def make_tiny_bundle(
    path: Path,
    size: int = 64,
    presets: tuple[str, ...] = ("core", "camera"),
    expected: Callable[[np.ndarray, int, str], np.ndarray] = probability,
    tolerances: dict[str, Tolerance] | None = None,
) -> Path:
    """Write a bundle directory and return it.

    Args:
        path: the directory to make.
        size: side S of the network's input.
        presets: which model files to write: core, camera, holoscan.
        expected: gives the golden probabilities; replace it to make a bundle that disagrees.
        tolerances: of the manifest; those of the issue by default.
    """
    models = []
    for precision in ("fp32", "int8"):
        (path / precision).mkdir(parents=True)
        for preset in presets:
            metadata = model_metadata(preset, precision, NORMALISATION, 0.5, size)
            ir = f"{precision}/{preset}.xml"
            save_ir(openvino_graph(size, precision, preset), path / ir, metadata)
            models.append(_file(precision, "openvino", preset, ir, metadata))
            graph = f"{precision}/{preset}.onnx"
            onnx.save(onnx_graph(size, precision, preset, metadata), path / graph)
            models.append(_file(precision, "onnx", preset, graph, metadata))
    golden = []
    (path / "golden").mkdir()
    for index, polyp in enumerate((True, False)):
        frame = scene(seed=index, polyp=polyp)
        Image.fromarray(frame).save(path / f"golden/{index}.png")
        wanted = {}
        for precision in ("fp32", "int8"):
            wanted[precision] = f"golden/{index}-{precision}.png"
            levels = np.rint(expected(frame, size, precision).astype(np.float64) * 65535)
            Image.fromarray(levels.astype(np.uint16)).save(path / wanted[precision])
        golden.append(Golden(frame=f"golden/{index}.png", expected=wanted))
    manifest = Manifest(
        name="tiny",
        size=size,
        normalisation=NORMALISATION,
        inputs={preset: _contract(preset, size) for preset in presets},
        output=OutputContract(shape=(1, 2, size, size)),
        models=models,
        golden=golden,
        tolerances=tolerances
        or {
            "fp32": Tolerance(probability=1e-4, disagreement=0.005),
            "int8": Tolerance(probability=0.1, disagreement=0.005),
        },
        provenance=Provenance(
            created="2026-11-20T12:00:00Z",
            code_version="0.1.0",
            packages={},
            recipe={},
            parameters=4,
            multiply_accumulates=3 * size * size,
        ),
        files=hashes(path),
    )
    write_manifest(path, manifest)
    return path


def rewrite_manifest(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a bundle's manifest by hand, hashes of the files and its own taken anew."""
    values = json.loads((path / "manifest.json").read_text())
    values["files"] = {name: record.model_dump() for name, record in hashes(path).items()}
    change(values)
    (path / "manifest.json").write_bytes(manifest_bytes(values))


def manifest_bytes(values: Any) -> bytes:
    """A manifest's values as a file, however strange; a digest among them is made to fit."""
    known = isinstance(values, dict) and {"schema_version", "sha256"} <= values.keys()
    return sealed(values) if known else json.dumps(values).encode()


def hashes(path: Path) -> dict[str, FileRecord]:
    """The records of every file but the manifest."""
    return {
        file.relative_to(path).as_posix(): FileRecord(
            bytes=file.stat().st_size, sha256=hashlib.sha256(file.read_bytes()).hexdigest()
        )
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != "manifest.json"
    }


def openvino_graph(size: int, precision: str, preset: str) -> ov.Model:
    """The tiny network as an OpenVINO graph."""
    x = ops.parameter([1, 3, size, size], np.float32, name="image")
    node = x
    if precision == "int8":
        low, high = -ZERO_POINT * SCALE, (255 - ZERO_POINT) * SCALE
        node = ops.fake_quantize(node, low, high, low, high, 256)
    kernel = ops.constant(WEIGHTS.reshape(1, 3, 1, 1))
    node = ops.convolution(node, kernel, [1, 1], [0, 0], [0, 0], [1, 1])
    node = ops.sigmoid(ops.add(node, ops.constant(BIAS.reshape(1, 1, 1, 1))))
    background = ops.subtract(ops.constant(np.float32(1)), node)
    output = ops.concat([background, node], axis=1)
    output.output(0).set_names({"probabilities"})
    model = ov.Model([output], [x], "tiny")
    if preset == "holoscan":
        steps = PrePostProcessor(model)
        steps.input().tensor().set_layout(ov.Layout("NHWC")).set_color_format(ColorFormat.RGB)
        steps.input().model().set_layout(ov.Layout("NCHW"))
        steps.input().preprocess().mean(list(NORMALISATION.mean)).scale(list(NORMALISATION.std))
        model = steps.build()
    if preset == "camera":
        steps = PrePostProcessor(model)
        tensor = steps.input().tensor()
        tensor.set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
        tensor.set_color_format(ColorFormat.BGR).set_shape([1, -1, -1, 3])
        steps.input().model().set_layout(ov.Layout("NCHW"))
        steps.input().preprocess().resize(
            ResizeAlgorithm.RESIZE_BILINEAR_PILLOW
        ).convert_element_type(ov.Type.f32).convert_color(ColorFormat.RGB).mean(
            [255 * value for value in NORMALISATION.mean]
        ).scale([255 * value for value in NORMALISATION.std])
        model = steps.build()
    return model


def save_ir(model: ov.Model, path: Path, metadata: dict[str, str]) -> None:
    """Write `.xml` and `.bin` with the metadata under `model_info`."""
    for key, value in metadata.items():
        model.set_rt_info(value, ["model_info", key])
    ov.save_model(model, path, compress_to_fp16=False)


def onnx_graph(size: int, precision: str, preset: str, metadata: dict[str, str]) -> onnx.ModelProto:
    """The tiny network as an ONNX graph."""
    nodes, constants = [], []

    def constant(name: str, value: Any) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(operator: str, inputs: list[str], **attributes: Any) -> str:
        output = f"value_{len(nodes)}"
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    if preset == "camera":
        shape, kind = [1, "height", "width", 3], TensorProto.UINT8
        x = add("Cast", ["image"], to=TensorProto.FLOAT)
        x = add("Transpose", [x], perm=[0, 3, 1, 2])
        sizes = constant("sizes", np.array([size, size], dtype=np.int64))
        x = add("Resize", [x, "", "", sizes], mode="linear", antialias=1, axes=[2, 3])
        x = add("Gather", [x, constant("order", np.array([2, 1, 0]))], axis=1)
        mean = np.array(NORMALISATION.mean, dtype=np.float32).reshape(1, 3, 1, 1) * 255
        std = np.array(NORMALISATION.std, dtype=np.float32).reshape(1, 3, 1, 1) * 255
        x = add("Div", [add("Sub", [x, constant("mean", mean)]), constant("std", std)])
    elif preset == "holoscan":
        shape, kind = [1, size, size, 3], TensorProto.FLOAT
        mean = np.array(NORMALISATION.mean, dtype=np.float32)
        std = np.array(NORMALISATION.std, dtype=np.float32)
        x = add("Div", [add("Sub", ["image", constant("mean", mean)]), constant("std", std)])
        x = add("Transpose", [x], perm=[0, 3, 1, 2])
    else:
        shape, kind, x = [1, 3, size, size], TensorProto.FLOAT, "image"
    if precision == "int8":
        scale = constant("scale", SCALE)
        zero = constant("zero", np.uint8(ZERO_POINT))
        x = add("DequantizeLinear", [add("QuantizeLinear", [x, scale, zero]), scale, zero])
    kernel = constant("kernel", WEIGHTS.reshape(1, 3, 1, 1))
    x = add("Sigmoid", [add("Conv", [x, kernel, constant("bias", BIAS.reshape(1))])])
    background = add("Sub", [constant("one", np.float32(1)), x])
    nodes.append(helper.make_node("Concat", [background, x], ["probabilities"], axis=1))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, 2, size, size])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    return model


def _file(
    precision: str, format: str, preset: str, path: str, metadata: dict[str, str]
) -> ModelFile:
    return ModelFile(
        precision=precision,
        format=format,
        preset=preset,
        path=path,
        opset=18 if format == "onnx" else None,
        metadata=metadata,
    )


def _contract(preset: str, size: int) -> InputContract:
    """As an export says it, but every input of a tiny model is called `image`."""
    return input_contract(preset, size).model_copy(update={"name": "image"})  # type: ignore[arg-type]


def make_named_bundles(root: Path, **sizes: int) -> Path:
    """Write one `core` bundle per name, of the given size in pixels; returns `root`."""
    for name, size in sizes.items():
        path = make_tiny_bundle(root / name, size, presets=("core",))
        rewrite_manifest(path, lambda values, name=name: values.update(name=name))
    return root


def write_discs(root: Path, count: int, polyp_free: int = 3) -> Path:
    """Write `count` scenes with their masks, one of them polyp-free; returns `root`."""
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for index in range(count):
        image = scene(96, 128, seed=index, polyp=index != polyp_free)
        cv2.imwrite(str(root / f"images/{index}.png"), image[..., ::-1])
        mask = (image[..., 1] > 120).astype(np.uint8) * 255
        cv2.imwrite(str(root / f"masks/{index}.png"), mask)
    return root
