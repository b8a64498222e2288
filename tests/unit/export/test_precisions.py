"""fp16 and weight-only int8: smaller by what they promise, and the same masks."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tiny_student import SIZE, TinyStudent, train_tiny_student
from torch import nn

from kdas_edge.bundle.manifest import Precision
from kdas_edge.errors import KdasEdgeError
from kdas_edge.export import openvino as to_openvino
from kdas_edge.export import weights
from kdas_edge.export.graph import DeployGraph
from kdas_edge.export.onnx import export as to_onnx
from kdas_edge.export.onnx import float16
from kdas_edge.runtime.backends import open_file
from kdas_edge.runtime.targets import cpu_target

GRIDS = {"int8_weights": weights.INT8, "half_weights": weights.HALF}


@pytest.fixture(scope="module")
def rounded(tiny: TinyStudent) -> dict[str, nn.Module]:
    return {name: weights.round_weights(tiny.network, grid) for name, grid in GRIDS.items()}


@pytest.fixture(scope="module")
def files(
    tiny: TinyStudent, rounded: dict[str, nn.Module], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Every form of one trained network."""
    folder = tmp_path_factory.mktemp("precisions")
    names = ("fp32", "fp16", *GRIDS)
    paths = {f"{name}{end}": folder / f"{name}{end}" for name in names for end in (".onnx", ".xml")}
    graph = to_onnx.to_onnx(tiny.network, SIZE)
    graphs = {
        "fp32": graph,
        "fp16": float16.to_half(graph),
        **{
            name: weights.store_in_onnx(to_onnx.to_onnx(rounded[name], SIZE), grid)
            for name, grid in GRIDS.items()
        },
    }
    for name, model in graphs.items():
        to_onnx.save_onnx(model, paths[f"{name}.onnx"], {})
    core = to_openvino.to_openvino(tiny.network, SIZE)
    to_openvino.save_openvino(core, paths["fp32.xml"], {})
    to_openvino.save_openvino(core, paths["fp16.xml"], {}, "fp16")
    precisions: dict[str, Precision] = {"int8_weights": "int8_weights", "half_weights": "fp32"}
    for name, precision in precisions.items():
        small = to_openvino.to_openvino(rounded[name], SIZE)
        small = weights.store_in_openvino(small, GRIDS[name])
        to_openvino.save_openvino(small, paths[f"{name}.xml"], {}, precision)
    return paths


def difference(path: Path, network: nn.Module, tiny: TinyStudent) -> tuple[float, float]:
    """Largest difference in probability, and mean fraction of mask pixels that differ."""
    infer, graph = open_file(path, cpu_target(path, 1)).infer, DeployGraph(network).eval()
    largest, masks = 0.0, []
    for x in tiny.inputs(tiny.frames[:8]):
        with torch.no_grad():
            wanted = graph(x).numpy()
        found = infer(x.numpy())
        assert found.dtype == np.float32 and found.shape == wanted.shape
        largest = max(largest, float(np.abs(found - wanted).max()))
        masks.append(((found[0, 1] > 0.5) != (wanted[0, 1] > 0.5)).mean())
    return largest, float(np.mean(masks))


def weight_bytes(path: Path) -> int:
    if path.suffix == ".xml":
        return path.with_suffix(".bin").stat().st_size
    return sum(len(numpy_helper.to_array(t).tobytes()) for t in onnx.load(path).graph.initializer)


@pytest.mark.parametrize("end", [".onnx", ".xml"])
def test_16_bits_halve_the_weights_and_8_bits_quarter_them(
    end: str, files: dict[str, Path]
) -> None:
    full = weight_bytes(files[f"fp32{end}"])
    assert weight_bytes(files[f"fp16{end}"]) < 0.53 * full
    # besides the weights there are biases, scales and matrices that stay float
    assert weight_bytes(files[f"half_weights{end}"]) < 0.56 * full
    assert weight_bytes(files[f"int8_weights{end}"]) < 0.31 * full


@pytest.mark.parametrize("end", [".onnx", ".xml"])
def test_fp16_gives_the_masks_of_the_float_network(
    end: str, files: dict[str, Path], tiny: TinyStudent
) -> None:
    largest, masks = difference(files[f"fp16{end}"], tiny.network, tiny)
    # it is fp16 (rounded), and no more than that
    assert 1e-6 < largest < 0.05
    assert masks < 0.005


@pytest.mark.parametrize("end", [".onnx", ".xml"])
@pytest.mark.parametrize(
    ("name", "visible", "allowed"), [("int8_weights", 1e-4, 0.02), ("half_weights", 1e-6, 0.001)]
)
def test_stored_weights_give_the_very_probabilities_of_the_rounded_network(
    end: str,
    name: str,
    visible: float,
    allowed: float,
    files: dict[str, Path],
    rounded: dict[str, nn.Module],
    tiny: TinyStudent,
) -> None:
    assert difference(files[f"{name}{end}"], rounded[name], tiny)[0] < 1e-4
    # which is another network than the float one, but not by much
    moved, masks = difference(files[f"{name}{end}"], tiny.network, tiny)
    assert moved > visible and masks < allowed


def test_the_onnx_files_load_in_openvino_too_and_have_standard_operators_only(
    files: dict[str, Path], tiny: TinyStudent
) -> None:
    x = tiny.inputs(tiny.frames[:1])[0].numpy()
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    for name in ("fp16.onnx", "int8_weights.onnx", "half_weights.onnx"):
        assert {node.domain for node in onnx.load(files[name]).graph.node} == {""}
        found = ov.Core().compile_model(str(files[name]), "CPU", hint)(x)[0]
        ours = open_file(files[name], cpu_target(files[name], 1)).infer(x)
        assert np.abs(found - ours).max() < 0.02


def test_the_fp16_graph_computes_in_fp16_between_float32_ends(files: dict[str, Path]) -> None:
    model = onnx.shape_inference.infer_shapes(onnx.load(files["fp16.onnx"]))
    ends = [*model.graph.input, *model.graph.output]
    assert {v.type.tensor_type.elem_type for v in ends} == {TensorProto.FLOAT}
    kinds = [value.type.tensor_type.elem_type for value in model.graph.value_info]
    assert TensorProto.FLOAT not in kinds and kinds.count(TensorProto.FLOAT16) > 50


@pytest.mark.parametrize("name", GRIDS)
def test_onnx_runtime_folds_the_stored_weights_when_it_loads_the_file(
    name: str, files: dict[str, Path], tmp_path: Path
) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(str(files[f"{name}.onnx"]), options, ["CPUExecutionProvider"])
    kinds = {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert not kinds & {"Cast", "DequantizeLinear", "MatMulNBits", "DynamicQuantizeLinear"}


def test_a_transformers_linear_layers_are_stored_in_int8_as_well() -> None:
    tiny = train_tiny_student("pvt_v2_b0", steps=0)
    graph = to_onnx.to_onnx(weights.round_weights(tiny.network, weights.INT8), SIZE)
    small = weights.store_in_onnx(graph, weights.INT8)
    assert small.ByteSize() < 0.3 * graph.ByteSize()


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_weights_are_rounded_per_output_channel_and_found_again_after_a_batch_norm(
    grid: weights.WeightGrid,
) -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Linear(4, 6))
    for before, module in zip(layer, weights.round_weights(layer, grid), strict=True):
        values, original = (m.weight.detach().numpy() for m in (module, before))
        found = weights.on_grid(values, grid, 0)
        assert found is not None
        numbers, scale = found
        assert numbers.dtype == grid.dtype and scale.size == len(values)
        largest = np.abs(numbers).reshape(len(values), -1).max(1)
        assert largest.tolist() == [grid.largest] * len(values)
        np.testing.assert_allclose(numbers.astype(np.float32) * scale, values, rtol=1e-6)
        # half a step: of the channel's scale, or the last of a float16's eleven bits
        step = scale if grid is weights.INT8 else np.abs(original) * 2.0**-10 + 1e-7 * scale
        assert (np.abs(values - original) <= 0.5001 * step).all()
        assert (values != original).any()
        factor = np.linspace(-2, 3, len(values)).reshape(-1, *[1] * (values.ndim - 1))
        folded = weights.on_grid((values * factor).astype(np.float32), grid, 0)
        assert folded is not None
        np.testing.assert_array_equal(folded[0], numbers * np.sign(factor).astype(numbers.dtype))


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_a_constant_that_lies_on_no_grid_is_left_as_it_is(grid: weights.WeightGrid) -> None:
    rng = np.random.default_rng(0)
    assert weights.on_grid(rng.normal(size=(8, 30)), grid, 0) is None
    # an empty channel has any scale
    assert weights.on_grid(np.zeros((2, 3)), grid, 0) is not None


def test_a_weight_beyond_fp16_is_refused_by_name() -> None:
    node = helper.make_node("Mul", ["image", "large"], ["probabilities"])
    large = numpy_helper.from_array(np.asarray([1e6], np.float32), "large")
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])
        for name in ("image", "probabilities")
    ]
    model = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:], [large]))
    with pytest.raises(KdasEdgeError, match="large is beyond"):
        float16.to_half(model)
