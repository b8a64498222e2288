"""Checkpoints: our own round trip, the authors' files, and everything that is neither."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tiny_bundle import hashes, make_tiny_bundle, rewrite_manifest
from torch import Tensor

from kdas_edge.bench.models import open_model
from kdas_edge.data.lineage import read_lineage
from kdas_edge.errors import UserError
from kdas_edge.models.architecture import Architecture, FullSize
from kdas_edge.models.checkpoints import (
    RECIPE,
    known_recipe,
    load_network,
    read_metadata,
    save_network,
)
from kdas_edge.models.zoo import from_architecture

TINY = Architecture("test_efficientnet", width=8, size=64)

# PVTv2: channels, heads, MLP ratio and reduction of the keys per level
HEADS, RATIOS, REDUCTIONS = (1, 2, 5, 8), (8, 8, 4, 4), (8, 4, 2, 1)
B0 = ((32, 64, 160, 256), (2, 2, 2, 2))
B1 = ((64, 128, 320, 512), (2, 2, 2, 2))
B2 = ((64, 128, 320, 512), (3, 4, 6, 3))


def authors_state(variant: tuple[tuple[int, ...], tuple[int, ...]]) -> dict[str, Tensor]:
    """A random state dict with the Polyp-PVT repository's keys, statistics far from trivial."""
    channels, depths = variant
    draw = torch.Generator().manual_seed(7)
    state: dict[str, Tensor] = {}

    def weight(name: str, *shape: int, bias: bool = True) -> None:
        inputs = torch.Size(shape[1:]).numel()
        state[f"{name}.weight"] = torch.randn(shape, generator=draw) * (1.5 / inputs) ** 0.5
        if bias:
            state[f"{name}.bias"] = torch.randn(shape[0], generator=draw) * 0.1

    def norm(name: str, size: int) -> None:
        state[f"{name}.weight"] = 1 + 0.2 * torch.randn(size, generator=draw)
        state[f"{name}.bias"] = 0.2 * torch.randn(size, generator=draw)

    def conv_norm(name: str, inputs: int, outputs: int, kernel: int) -> None:
        weight(f"{name}.conv", outputs, inputs, kernel, kernel, bias=False)
        norm(f"{name}.bn", outputs)
        state[f"{name}.bn.running_mean"] = 0.3 * torch.randn(outputs, generator=draw)
        state[f"{name}.bn.running_var"] = 0.3 + torch.rand(outputs, generator=draw)
        state[f"{name}.bn.num_batches_tracked"] = torch.tensor(5)

    before = 3
    for level, (size, depth) in enumerate(zip(channels, depths, strict=True), start=1):
        kernel = 7 if level == 1 else 3
        embed = f"backbone.patch_embed{level}"
        weight(f"{embed}.proj", size, before, kernel, kernel)
        norm(f"{embed}.norm", size)
        for block in (f"backbone.block{level}.{index}" for index in range(depth)):
            hidden, reduction = size * RATIOS[level - 1], REDUCTIONS[level - 1]
            norm(f"{block}.norm1", size)
            norm(f"{block}.norm2", size)
            weight(f"{block}.attn.q", size, size)
            weight(f"{block}.attn.kv", 2 * size, size)
            weight(f"{block}.attn.proj", size, size)
            if reduction > 1:
                weight(f"{block}.attn.sr", size, size, reduction, reduction)
                norm(f"{block}.attn.norm", size)
            weight(f"{block}.mlp.fc1", hidden, size)
            weight(f"{block}.mlp.dwconv.dwconv", hidden, 1, 3, 3)
            weight(f"{block}.mlp.fc2", size, hidden)
        norm(f"backbone.norm{level}", size)
        before = size

    for name, size in zip(("2_0", "2_1", "3_1", "4_1"), channels, strict=True):
        conv_norm(f"Translayer{name}", size, 32, 1)
    for index in (1, 2, 3, 4):
        conv_norm(f"CFM.conv_upsample{index}", 32, 32, 3)
    conv_norm("CFM.conv_upsample5", 64, 64, 3)
    conv_norm("CFM.conv_concat2", 64, 64, 3)
    conv_norm("CFM.conv_concat3", 96, 96, 3)
    conv_norm("CFM.conv4", 96, 32, 3)
    weight("ca.fc1", channels[0] // 16, channels[0], 1, 1, bias=False)
    weight("ca.fc2", channels[0], channels[0] // 16, 1, 1, bias=False)
    weight("sa.conv1", 1, 2, 7, 7, bias=False)
    weight("SAM.conv_state", 16, 32, 1, 1)
    weight("SAM.conv_proj", 16, 32, 1, 1)
    weight("SAM.gcn.conv1", 16, 16, 1)
    weight("SAM.gcn.conv2", 16, 16, 1, bias=False)
    weight("SAM.conv_extend", 32, 16, 1, 1, bias=False)
    weight("out_SAM", 1, 32, 1, 1)
    weight("out_CFM", 1, 32, 1, 1)
    # as in a trained network: logits of the order of 1 to 10, and a SAM that adds a correction
    # (it sums over all pixels) and assigns softly (a product of two features is large)
    state["SAM.gcn.conv2.weight"] /= 500
    state["SAM.conv_proj.weight"] /= 10
    state["out_CFM.weight"] /= 2
    state["out_SAM.weight"] /= 2
    return state


def published_forward(state: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The published network as plain functions of the authors' state dict."""

    def parameters(name: str) -> tuple[Tensor, Tensor | None]:
        return state[f"{name}.weight"], state.get(f"{name}.bias")

    def linear(name: str, tokens: Tensor) -> Tensor:
        return F.linear(tokens, *parameters(name))

    def layer_norm(name: str, tokens: Tensor, eps: float) -> Tensor:
        return F.layer_norm(tokens, tokens.shape[-1:], *parameters(name), eps)

    def conv(name: str, image: Tensor, **how: int) -> Tensor:
        return F.conv2d(image, *parameters(name), **how)

    def conv_norm(name: str, image: Tensor) -> Tensor:
        kernel = state[f"{name}.conv.weight"].shape[-1]
        image = conv(f"{name}.conv", image, padding=kernel // 2)
        mean, var = state[f"{name}.bn.running_mean"], state[f"{name}.bn.running_var"]
        return F.batch_norm(image, mean, var, *parameters(f"{name}.bn"), training=False)

    def block(name: str, tokens: Tensor, side: int, level: int) -> Tensor:
        batch, count, size = tokens.shape
        heads, reduction = HEADS[level - 1], REDUCTIONS[level - 1]
        x = layer_norm(f"{name}.norm1", tokens, 1e-6)
        queries = linear(f"{name}.attn.q", x).reshape(batch, count, heads, -1).transpose(1, 2)
        keyed = x
        if reduction > 1:
            image = x.transpose(1, 2).reshape(batch, size, side, side)
            image = conv(f"{name}.attn.sr", image, stride=reduction)
            keyed = layer_norm(f"{name}.attn.norm", image.flatten(2).transpose(1, 2), 1e-5)
        both = linear(f"{name}.attn.kv", keyed)
        keys, values = (
            part.reshape(batch, keyed.shape[1], heads, -1).transpose(1, 2)
            for part in both.split(size, dim=-1)
        )
        scores = queries @ keys.transpose(-2, -1) / (size // heads) ** 0.5
        mixed = (scores.softmax(-1) @ values).transpose(1, 2).reshape(batch, count, size)
        tokens = tokens + linear(f"{name}.attn.proj", mixed)

        x = linear(f"{name}.mlp.fc1", layer_norm(f"{name}.norm2", tokens, 1e-6))
        image = x.transpose(1, 2).reshape(batch, -1, side, side)
        image = conv(f"{name}.mlp.dwconv.dwconv", image, padding=1, groups=image.shape[1])
        x = F.gelu(image.flatten(2).transpose(1, 2))
        return tokens + linear(f"{name}.mlp.fc2", x)

    levels, image = [], x
    for level in (1, 2, 3, 4):
        first = level == 1
        embed = f"backbone.patch_embed{level}"
        image = conv(f"{embed}.proj", image, stride=4 if first else 2, padding=3 if first else 1)
        side = image.shape[-1]
        tokens = layer_norm(f"{embed}.norm", image.flatten(2).transpose(1, 2), 1e-5)
        index = 0
        while f"backbone.block{level}.{index}.norm1.weight" in state:
            tokens = block(f"backbone.block{level}.{index}", tokens, side, level)
            index += 1
        tokens = layer_norm(f"backbone.norm{level}", tokens, 1e-6)
        image = tokens.transpose(1, 2).reshape(len(x), -1, side, side)
        levels.append(image)

    def up(image: Tensor) -> Tensor:
        return F.interpolate(image, scale_factor=2, mode="bilinear", align_corners=True)

    # CIM
    x1 = levels[0]
    pooled = (F.adaptive_avg_pool2d(x1, 1), F.adaptive_max_pool2d(x1, 1))
    x1 = sum(conv("ca.fc2", conv("ca.fc1", p).relu()) for p in pooled).sigmoid() * x1
    place = torch.cat([x1.mean(1, True), x1.max(1, True).values], 1)
    cim = conv("sa.conv1", place, padding=3).sigmoid() * x1
    # CFM
    x2, x3, x4 = (
        conv_norm(f"Translayer{name}", levels[index])
        for index, name in ((1, "2_1"), (2, "3_1"), (3, "4_1"))
    )
    x3_1 = conv_norm("CFM.conv_upsample1", up(x4)) * x3
    x2_1 = conv_norm("CFM.conv_upsample2", up(up(x4)))
    x2_1 = x2_1 * conv_norm("CFM.conv_upsample3", up(x3)) * x2
    x3_2 = torch.cat([x3_1, conv_norm("CFM.conv_upsample4", up(x4))], 1)
    x3_2 = conv_norm("CFM.conv_concat2", x3_2)
    x2_2 = torch.cat([x2_1, conv_norm("CFM.conv_upsample5", up(x3_2))], 1)
    cfm = conv_norm("CFM.conv4", conv_norm("CFM.conv_concat3", x2_2))
    # SAM
    detail = conv_norm("Translayer2_0", cim)
    detail = F.interpolate(detail, scale_factor=0.5, mode="bilinear", align_corners=True)
    edge = detail.softmax(1)[:, 1].unsqueeze(1)
    states, projected = conv("SAM.conv_state", cfm).flatten(2), conv("SAM.conv_proj", cfm)
    anchors = F.adaptive_avg_pool2d(projected * edge, 6)[:, :, 1:-1, 1:-1].flatten(2)
    assignment = torch.einsum("bsa,bsp->bap", anchors, projected.flatten(2)).softmax(1)
    graph = torch.einsum("bsp,bap->bsa", states, assignment)
    moved = F.conv1d(graph.transpose(1, 2), *parameters("SAM.gcn.conv1")).transpose(1, 2) - graph
    moved = F.conv1d(moved, state["SAM.gcn.conv2.weight"]).relu()
    back = torch.einsum("bsa,bap->bsp", moved, assignment).reshape(projected.shape)
    sam = cfm + conv("SAM.conv_extend", back)

    z1, z2 = conv("out_CFM", cfm), conv("out_SAM", sam)
    z1 = F.interpolate(z1, scale_factor=8, mode="bilinear", align_corners=False)
    return z1, F.interpolate(z2, scale_factor=8, mode="bilinear", align_corners=False)


@pytest.mark.parametrize(
    ("variant", "backbone", "sizes"),
    [(B0, "pvt_v2_b0", (352, 224)), (B1, "pvt_v2_b1", (96,)), (B2, "pvt_v2_b2", (352,))],
)
def test_an_authors_checkpoint_gives_the_published_networks_outputs(
    tmp_path: Path, variant: tuple, backbone: str, sizes: tuple[int, ...]
) -> None:
    state = authors_state(variant)
    torch.save(state, tmp_path / "PolypPVT.pth")
    model = load_network(tmp_path / "PolypPVT.pth")
    architecture = model.architecture
    assert architecture == Architecture(backbone, 32, 352)
    assert not model.training
    for size in sizes:
        image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(size))
        with torch.no_grad():
            ours, published = FullSize(model)(image), published_forward(state, image)
        assert (published[0] - published[1]).std() > 0.05  # SAM does something
        for own, theirs in zip(ours, published, strict=True):
            assert theirs.std() > 0.5  # a constant map would agree with anything
            torch.testing.assert_close(own, theirs, atol=1e-4, rtol=0)


def test_an_authors_checkpoint_agrees_to_the_last_digits_in_double_precision(
    tmp_path: Path,
) -> None:
    # float32 rounding hides small differences, for instance in an epsilon
    state = authors_state(B0)
    torch.save(state, tmp_path / "b0.pth")
    model = load_network(tmp_path / "b0.pth").double()
    exact = {key: value.double() for key, value in state.items()}
    image = torch.randn(1, 3, 96, 96, dtype=torch.float64)
    with torch.no_grad():
        for own, theirs in zip(
            FullSize(model)(image), published_forward(exact, image), strict=True
        ):
            torch.testing.assert_close(own, theirs, atol=1e-9, rtol=0)


def test_an_authors_checkpoint_saved_by_data_parallel_loads_too(tmp_path: Path) -> None:
    state = authors_state(B0)
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "b0.pth")
    model = load_network(tmp_path / "b0.pth")
    assert torch.equal(model.head1.weight, state["out_CFM.weight"])


def test_a_saved_network_comes_back_equal_with_its_architecture_and_notes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = from_architecture(TINY).to(memory_format=torch.channels_last)
    path = tmp_path / "run" / "checkpoints" / "best.safetensors"
    save_network(path, model.state_dict(), TINY, {"epoch": "7"})
    for source in (path, tmp_path / "run"):
        loaded = load_network(source)
        architecture = loaded.architecture
        assert architecture == TINY and not loaded.training
        for key, value in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], value), key
    assert read_metadata(path)["epoch"] == "7"
    assert [file.name for file in path.parent.iterdir()] == ["best.safetensors"]


def test_a_checkpoint_may_say_how_it_was_trained(tmp_path: Path) -> None:
    state = from_architecture(TINY).state_dict()
    path = tmp_path / "network.safetensors"
    save_network(path, state, TINY)
    assert known_recipe(path) == {}
    recipe = {"name": "mean", "data": {"root": "here"}}
    save_network(path, state, TINY, {RECIPE: json.dumps(recipe)})
    assert known_recipe(path) == recipe
    for damaged in ("{", "[1]", "3"):
        save_network(path, state, TINY, {RECIPE: damaged})
        with pytest.raises(UserError, match=r"network.safetensors has a damaged recipe"):
            known_recipe(path)


def test_absent_checkpoints_and_unfinished_runs_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent.safetensors does not exist; check the path"):
        load_network(tmp_path / "absent.safetensors")
    with pytest.raises(UserError, match="has not finished its first epoch"):
        load_network(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 500, -10])
def test_a_truncated_checkpoint_is_one_clear_line(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "cut.safetensors"
    save_network(path, from_architecture(TINY).state_dict(), TINY)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"cut\.safetensors is truncated") as caught:
        load_network(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 100, -1000])
def test_a_truncated_authors_checkpoint_is_one_clear_line(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "cut.pth"
    torch.save({"Translayer2_0.conv.weight": torch.randn(32, 32, 1, 1)}, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"cut\.pth is truncated") as caught:
        load_network(path)
    assert "\n" not in str(caught.value)


def test_encoder_weights_are_not_taken_for_a_checkpoint(tmp_path: Path) -> None:
    save_file({"conv_stem.weight": torch.zeros(3)}, tmp_path / "encoder.safetensors")
    with pytest.raises(UserError, match=r"no architecture in its header.*model\.pretrained"):
        load_network(tmp_path / "encoder.safetensors")


def test_weights_of_another_architecture_are_refused_with_the_first_difference(
    tmp_path: Path,
) -> None:
    state = from_architecture(TINY).state_dict()
    wide = Architecture("test_efficientnet", width=16, size=64)
    save_network(tmp_path / "wide.safetensors", state, wide)
    with pytest.raises(UserError, match=r"another architecture.*needed \(16, "):
        load_network(tmp_path / "wide.safetensors")
    unknown = {"architecture": json.dumps({**TINY.to_dict(), "backbone": "no_such_net"})}
    save_file(state, tmp_path / "unknown.safetensors", unknown)
    with pytest.raises(UserError, match="no backbone 'no_such_net'"):
        load_network(tmp_path / "unknown.safetensors")
    save_file(state, tmp_path / "newer.safetensors", {"architecture": '{"family": "unet"}'})
    with pytest.raises(UserError, match="another version of kdas-edge"):
        load_network(tmp_path / "newer.safetensors")


def test_a_pth_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "unet.pth")
    with pytest.raises(UserError, match="another architecture"):
        load_network(tmp_path / "unet.pth")
    short = authors_state(B0)
    del short["SAM.gcn.conv1.weight"]
    torch.save(short, tmp_path / "short.pth")
    with pytest.raises(UserError, match=r"'sam.among_anchors.weight' is missing"):
        load_network(tmp_path / "short.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match="holds no state dict"):
        load_network(tmp_path / "list.pth")


class Payload:
    """What a malicious pickle would carry."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("executed"),))


def test_a_pickle_that_would_run_code_is_refused_and_runs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weights": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="not a checkpoint of weights"):
        load_network(tmp_path / "evil.pth")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_checkpoint_with_a_weight_that_is_no_number_is_refused(
    tmp_path: Path, value: float
) -> None:
    state = from_architecture(TINY).state_dict()
    state["head1.bias"] = torch.full_like(state["head1.bias"], value)
    save_network(tmp_path / "bad.safetensors", state, TINY)
    with pytest.raises(UserError, match=r"NaN or infinity in 'head1\.bias'"):
        load_network(tmp_path / "bad.safetensors")
    # the largest finite numbers are no infinity
    state["head1.bias"] = torch.full_like(state["head1.bias"], torch.finfo(torch.float32).max)
    state["head2.bias"] = torch.full_like(state["head2.bias"], torch.finfo(torch.float32).max)
    save_network(tmp_path / "large.safetensors", state, TINY)
    load_network(tmp_path / "large.safetensors")


@pytest.mark.parametrize(
    "header",
    [
        json.dumps(TINY.to_dict() | {"width": 4096, "size": 64}),
        json.dumps(TINY.to_dict() | {"width": 8, "size": 1e9}),
        "[" * 100_000,
        "7",
        "not json",
    ],
)
def test_a_header_beyond_all_limits_is_one_line(tmp_path: Path, header: str) -> None:
    path = tmp_path / "header.safetensors"
    save_file({"head1.bias": torch.zeros(1)}, path, {"architecture": header})
    with pytest.raises(UserError, match="another version") as caught:
        load_network(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        b"<!DOCTYPE html>",
        b"PK\x03\x04",
        b"PK\x05\x06" + bytes(18),
        b"\x80\x02}q\x00.",
        b"\x80\x02(K\x01K\x02d",
        b"garbage\n.",
        bytes(64),
    ],
)
def test_a_stub_of_a_pickled_checkpoint_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "PolypPVT.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"PolypPVT\.pth") as caught:
        load_network(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_published_runs_are_read_wherever_a_checkpoint_is() -> None:
    published = Path(__file__).resolve().parents[3] / "benchmarks" / "results" / "runs"
    for name in ("student_effb0_352", "student_mnv2_352_last"):
        network = load_network(published / name)
        assert network.architecture.size == 352
        assert next(network.parameters()).dtype == torch.float32
        assert known_recipe(published / name)["name"] == name
        opened = open_model(published / name)
        assert (opened.name, opened.manifest.models[0].path) == (name, "weights.safetensors")
    assert read_lineage(published / "student_effb0_352").files
    assert read_lineage(published / "student_mnv2_352_last" / "weights.safetensors").files
    with pytest.raises(UserError, match="published without weights"):
        load_network(published / "student_mnv2_352")


def test_a_bundle_is_a_checkpoint_where_it_holds_its_torch_network(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "bundle")
    with pytest.raises(UserError, match="without its torch network; give the run or the check"):
        load_network(bundle)
    network = from_architecture(TINY)
    weights = bundle / "torch" / "model.safetensors"
    save_network(weights, network.state_dict(), TINY)

    def add(values: dict) -> None:
        path = "torch/model.safetensors"
        row = {"precision": "fp32", "format": "torch", "preset": "core", "path": path}
        values["models"].append(row)
        values["files"][path] = hashes(bundle)[path].model_dump()
        values["provenance"]["recipe"] = {"name": "n", "teacher_mirrors": 4}

    rewrite_manifest(bundle, add)
    loaded = load_network(bundle).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in network.state_dict().items())
    assert known_recipe(bundle) == {"name": "n", "teacher_tta": 4}
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match="does not match its hash"):
        load_network(bundle)
