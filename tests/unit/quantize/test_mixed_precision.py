"""Layers that return to float: exactly, on disk and in exports, and as few as are enough."""

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from tiny_student import SIZE, TinyStudent
from torch import Tensor, nn

from kdas_edge.data.resident import ResidentSet
from kdas_edge.export.cost import openvino_latencies
from kdas_edge.export.onnx.export import to_onnx
from kdas_edge.export.openvino import fake_quantize_operators, import_openvino, to_openvino
from kdas_edge.models.architecture import FullSize
from kdas_edge.models.checkpoints import BEST
from kdas_edge.models.zoo import build
from kdas_edge.quantize.mixed import MixedNetwork, fewest
from kdas_edge.quantize.ptq import post_training_quantize
from kdas_edge.quantize.qat import CONFIG, load_quantized, save_config, save_quantized
from kdas_edge.quantize.sensitivity import load_ranking, rank_layers, spread_images
from kdas_edge.recipe import ModelRecipe, PtqRecipe

RECIPE = PtqRecipe(model_type="none", activation_ranges="tensor")
# the layer whose weights the sabotage makes unfit for int8
HURT = "cfm.out.conv"


@pytest.fixture
def int8(student: TinyStudent) -> nn.Module:
    """A quantised network of its own: these tests change it."""
    return post_training_quantize(student.network, student.inputs(student.frames)[:4], RECIPE)


@pytest.fixture
def mixed(student: TinyStudent, int8: nn.Module) -> MixedNetwork:
    return MixedNetwork(int8, student.network.state_dict())


@pytest.fixture(scope="module")
def sabotaged(student: TinyStudent) -> TinyStudent:
    """The same function in float, but one layer's weights span a range of a thousand.

    The channel is divided before and multiplied in the weights behind: each output channel of
    `HURT` has one weight that leaves no level to all others.
    """
    network = copy.deepcopy(student.network)
    with torch.no_grad():
        network.cfm.join234.bn.weight[0] /= 1000
        network.cfm.join234.bn.bias[0] /= 1000
        network.cfm.out.conv.weight[:, 0] *= 1000
    return TinyStudent(network, student.frames)


def logits(network: nn.Module, student: TinyStudent) -> Tensor:
    with torch.no_grad():
        z1, z2 = FullSize(network)(torch.cat(student.inputs(student.frames)))
    return z1 + z2


def resident(student: TinyStudent) -> ResidentSet:
    """The student's frames, with what it finds on them as the truth."""
    images = torch.from_numpy(np.stack(student.frames)).permute(0, 3, 1, 2).contiguous()
    masks = (logits(student.network, student) > 0).to(torch.uint8)
    names = tuple(f"frame{index:02d}" for index in range(len(images)))
    return ResidentSet(images, masks, torch.ones(len(images), dtype=torch.bool), names)


def quantiser_count(network: nn.Module) -> int:
    from nncf.torch.function_hook.wrapper import get_hook_storage

    return len(list(get_hook_storage(network).named_hooks(remove_duplicate=False)))


def test_all_layers_in_float_are_the_float_network_and_none_is_the_int8_one(
    student: TinyStudent, int8: nn.Module
) -> None:
    before, keys = logits(int8, student), set(int8.state_dict())
    mixed = MixedNetwork(int8, student.network.state_dict())
    assert torch.equal(logits(int8, student), before) and set(int8.state_dict()) == keys
    mixed.set_float(mixed.layers)
    # biases too have lost their correction
    assert torch.equal(logits(int8, student), logits(student.network, student))
    assert quantiser_count(int8) == 0
    mixed.set_float(())
    assert torch.equal(logits(int8, student), before) and set(int8.state_dict()) == keys


def test_each_layer_alone_changes_the_result_and_has_a_name_of_the_network(
    student: TinyStudent, mixed: MixedNetwork
) -> None:
    before = logits(mixed.network, student)
    modules = dict(student.network.named_modules())
    weighted = [layer for layer in mixed.layers if layer in modules]
    assert len(weighted) > 30 and {"sam.matmul", "cim.mul"} <= set(mixed.layers)
    for layer in weighted:
        mixed.set_float((layer,))
        assert not torch.equal(logits(mixed.network, student), before), layer


def test_a_layer_in_float_reads_what_no_quantiser_has_touched(
    student: TinyStudent, mixed: MixedNetwork
) -> None:
    # `head1` and SAM read the same map; if one returns, the other's input stays quantised
    reads: dict[str, Tensor] = {}

    def watch(name: str) -> None:
        module = dict(mixed.network.named_modules())[name]
        module.register_forward_pre_hook(lambda _m, args: reads.update({name: args[0]}))

    watch("head1")
    x = student.inputs(student.frames)[0]

    def levels() -> int:
        with torch.no_grad():
            mixed.network(x)
        return len(reads["head1"].unique())

    assert levels() <= 256
    quantisers = quantiser_count(mixed.network)
    mixed.set_float(("head1",))
    assert levels() > 256
    # its weight's quantiser is gone; the one of the map has moved to the other readers
    others = [layer for layer in mixed.layers if layer != "head1"]
    mixed.set_float(others)
    assert levels() > 256 and 0 < quantiser_count(mixed.network) < quantisers


def test_a_transformer_with_smooth_quant_returns_to_float_exactly(student: TinyStudent) -> None:
    torch.manual_seed(0)
    network = build(ModelRecipe(backbone="pvt_v2_b0", width=8), SIZE)
    inputs = TinyStudent(network.eval(), student.frames).inputs(student.frames)[:2]
    recipe = PtqRecipe(model_type="transformer", smooth_quant=0.5)
    int8 = post_training_quantize(network, inputs, recipe)
    mixed = MixedNetwork(int8, network.state_dict())
    assert {"backbone.stages_0.blocks.0.attn.q", "backbone.stages_0.blocks.0.mlp.fc1"} <= set(
        mixed.layers
    )
    assert not any("hook" in layer for layer in mixed.layers)
    with torch.no_grad():
        expected, before = sum(network(inputs[0])), sum(int8(inputs[0]))
        mixed.set_float(mixed.layers)
        # the factors stay, in activations and weights; they cancel up to rounding
        torch.testing.assert_close(sum(int8(inputs[0])), expected, atol=1e-4, rtol=1e-4)
        mixed.set_float(())
        assert torch.equal(sum(int8(inputs[0])), before) and not torch.equal(before, expected)


def test_an_unknown_layer_is_an_error(mixed: MixedNetwork) -> None:
    with pytest.raises(KeyError, match="no quantised layer 'nose'"):
        mixed.set_float(["nose"])


def test_without_the_float_weights_biases_stay_as_they_were_trained(
    student: TinyStudent, int8: nn.Module
) -> None:
    biases = {k: v.clone() for k, v in int8.state_dict().items() if k.endswith("bias")}
    mixed = MixedNetwork(int8, None)
    mixed.set_float(mixed.layers)
    state = int8.state_dict()
    assert all(torch.equal(state[key], value) for key, value in biases.items())


@pytest.fixture
def halfway(student: TinyStudent, mixed: MixedNetwork, tmp_path: Path) -> Iterator[Path]:
    """A run folder with a network of which every third layer is in float."""
    mixed.set_float(mixed.layers[::3])
    save_quantized(tmp_path / BEST, mixed.network)
    save_config(tmp_path / CONFIG, mixed.network)
    yield tmp_path


def test_a_mixed_network_survives_the_disk(
    student: TinyStudent, mixed: MixedNetwork, halfway: Path
) -> None:
    restored = load_quantized(halfway)
    assert torch.equal(logits(restored, student), logits(mixed.network, student))
    # the places in the header win, so that checkpoint and configuration cannot part
    (halfway / CONFIG).write_text("{}")
    again = load_quantized(halfway)
    assert torch.equal(logits(again, student), logits(mixed.network, student))


def test_a_mixed_network_exports_to_openvino_and_onnx_and_agrees(
    student: TinyStudent, mixed: MixedNetwork, halfway: Path
) -> None:
    restored = load_quantized(halfway)
    model = to_openvino(restored, SIZE)
    partly = quantiser_count(restored)
    mixed.set_float(())
    assert partly < quantiser_count(mixed.network)
    # the converter shares what two hooks do to one tensor
    assert 0 < fake_quantize_operators(model) <= partly
    compiled = import_openvino().Core().compile_model(model, "CPU")
    expected = logits(restored, student).sigmoid()[:, 0].numpy() > 0.5
    frames = student.inputs(student.frames)
    found = np.concatenate([compiled(x.numpy())[0][:, 1] > 0.5 for x in frames])
    assert (found != expected).mean() < 0.01

    session = onnxruntime.InferenceSession(to_onnx(restored, SIZE).SerializeToString())
    name = session.get_inputs()[0].name
    maps = [np.asarray(session.run(None, {name: x.numpy()})[0]) for x in frames]
    assert (np.concatenate([x[:, 1] > 0.5 for x in maps]) != expected).mean() < 0.01


def test_latencies_of_a_mixed_network_are_measured_beside_the_float_one(
    student: TinyStudent, mixed: MixedNetwork
) -> None:
    mixed.set_float(mixed.layers[:5])
    networks = {"float": student.network, "mixed": mixed.network}
    found = openvino_latencies(networks, SIZE, iterations=10)
    assert found["reference"] == "float" and "threads=1" in found["target"]
    assert found["networks"].keys() == networks.keys()
    ratio = found["networks"]["mixed"]["speedup"]
    assert ratio["low"] <= ratio["value"] <= ratio["high"]
    p50 = {name: row["p50"] for name, row in found["networks"].items()}
    assert ratio["value"] == pytest.approx(p50["float"] / p50["mixed"], rel=0.02)


def test_the_layer_that_int8_hurts_is_ranked_first(
    sabotaged: TinyStudent, student: TinyStudent, tmp_path: Path
) -> None:
    # in float nothing has happened
    torch.testing.assert_close(
        logits(sabotaged.network, student), logits(student.network, student), atol=0.05, rtol=1e-3
    )
    int8 = post_training_quantize(sabotaged.network, sabotaged.inputs(sabotaged.frames)[:4], RECIPE)
    mixed = MixedNetwork(int8, sabotaged.network.state_dict())
    data = spread_images(resident(sabotaged), 4)
    ranking = rank_layers(mixed, data, "ptq")
    assert ranking.layers[0] == HURT
    assert set(ranking.layers) == set(mixed.layers)
    first, second = ranking.effects[:2]
    assert first.alone > 3 * second.alone and first.gain > 0
    assert first.gain <= ranking.int8_error
    assert ranking.images == data.names and len(data) == 4

    ranking.save(tmp_path)
    assert load_ranking(tmp_path, "ptq") == ranking
    assert load_ranking(tmp_path, "qat") is None
    assert load_ranking(tmp_path / "elsewhere", "ptq") is None


@pytest.mark.parametrize("total", [1, 2, 3, 7, 40, 41, 64])
def test_the_fewest_layers_are_found_with_few_trials(total: int) -> None:
    for needed in range(1, total + 1):
        asked: list[int] = []

        def passes(count: int, needed: int = needed, asked: list[int] = asked) -> bool:
            asked.append(count)
            return count >= needed

        assert fewest(total, passes) == needed
        assert len(asked) == len(set(asked)) <= 2 * np.log2(total) + 2
        assert min(asked) >= 1 and max(asked) <= total


def test_nothing_is_found_where_nothing_passes() -> None:
    asked: list[int] = []
    assert fewest(10, lambda count: bool(asked.append(count))) is None
    assert asked == [1, 2, 4, 8, 10]
    assert fewest(0, lambda count: True) is None


def test_an_objective_with_steps_backwards_still_ends_on_a_count_that_passes() -> None:
    good = {3, 9, 12, 16}
    found = fewest(20, lambda count: count in good)
    assert found in good


def test_images_of_the_subset_are_spread_over_the_split(student: TinyStudent) -> None:
    data = resident(student)
    chosen = spread_images(data, 5)
    assert len(chosen) == 5 and chosen.names[0] == "frame00" and chosen.names[-1] == "frame23"
    assert torch.equal(chosen.images[-1], data.images[-1])
    assert len(spread_images(data, 1000)) == len(data)
