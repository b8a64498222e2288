"""Every kind of backbone builds, counts as the paper says, and bad names give one clear line."""

import dataclasses
import os
import socket
import time
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from kdas_edge.errors import UserError
from kdas_edge.models.zoo import (
    Architecture,
    architecture_of,
    build,
    from_architecture,
    multiply_accumulates,
    parameters,
)
from kdas_edge.recipe import ModelRecipe

WEIGHTS = Path(os.environ.get("KDAS_EDGE_WEIGHTS", "../shared/weights"))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def tiny(**changes: object) -> ModelRecipe:
    return ModelRecipe.model_validate({"backbone": "test_efficientnet", "width": 8, **changes})


@pytest.mark.parametrize(
    ("backbone", "millions"),
    [
        ("pvt_v2_b0", 3.65),
        ("tf_efficientnet_b0", 3.84),
        ("tf_efficientnet_lite0", 3.20),
        ("mobilenetv2_100", 2.05),
        ("repvit_m1", 4.96),
        ("mobilenetv4_conv_small", 1.52),
    ],
)
def test_any_backbone_with_four_levels_builds_and_runs(backbone: str, millions: float) -> None:
    model = build(ModelRecipe(backbone=backbone), 64)
    architecture = model.architecture
    assert parameters(model) / 1e6 == pytest.approx(millions, abs=0.01)
    assert architecture.backbone == backbone and architecture.size == 64
    with torch.no_grad():
        z1, z2 = model.eval()(torch.randn(1, 3, 64, 64))
    assert z1.shape == z2.shape == (1, 1, 8, 8)


def test_the_papers_teacher_has_25_million_parameters() -> None:
    assert parameters(from_architecture(Architecture("pvt_v2_b2"))) == pytest.approx(
        25.1e6, rel=2e-3
    )


def test_the_papers_student_costs_about_two_billion_multiply_accumulates() -> None:
    model = from_architecture(Architecture("pvt_v2_b0"))
    # the paper's 2.01 G; ours leaves out normalisation, activations and interpolation
    assert multiply_accumulates(model, 352) == pytest.approx(2.01e9, rel=0.06)


def test_multiply_accumulates_of_a_convolution_are_counted_by_hand_and_keep_the_mode() -> None:
    convolution = torch.nn.Conv2d(3, 8, 3, padding=1).train()
    assert multiply_accumulates(convolution, 16) == 16 * 16 * 8 * 3 * 9
    assert convolution.training


def test_normalisation_is_the_one_the_backbone_was_trained_with() -> None:
    assert (architecture_of("pvt_v2_b0").mean, architecture_of("pvt_v2_b0").std) == IMAGENET
    lite = architecture_of("tf_efficientnet_lite0")
    # (x - 127) / 128 on 0…255
    assert lite.mean == pytest.approx((0.498,) * 3, abs=1e-3)
    assert lite.std == pytest.approx((0.502,) * 3, abs=1e-3)


def test_an_architecture_survives_its_dictionary() -> None:
    architecture = architecture_of("tf_efficientnet_lite0", width=16, size=256)
    assert Architecture.from_dict(architecture.to_dict()) == architecture
    fine = dataclasses.replace(architecture, stride=4)
    assert Architecture.from_dict(fine.to_dict()) == fine


def test_an_architecture_written_before_there_were_strides_has_the_published_one() -> None:
    values = architecture_of("tf_efficientnet_lite0").to_dict()
    del values["stride"]
    assert Architecture.from_dict(values).stride == 8


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": None},
        {"backbone": ["a"]},
        {"surprise": 1},
        {"mean": [0.5]},
        {"mean": [float("nan")] * 3},
        {"std": [0, 1, 1]},
        {"stride": 3},
        # taken for sizes, these would take the memory of the machine
        {"width": 4096},
        {"width": -8},
        {"width": "32"},
        {"size": 0},
        {"size": 1_000_000_000},
        {"size": float("inf")},
    ],
)
def test_a_damaged_architecture_is_refused(change: dict[str, object]) -> None:
    values = {**Architecture("pvt_v2_b0").to_dict(), **change}
    values = {key: value for key, value in values.items() if value is not None}
    with pytest.raises(ValueError, match="not an architecture"):
        Architecture.from_dict(values)


def test_an_unknown_backbone_names_the_nearest_known_one() -> None:
    with pytest.raises(UserError, match=r"no backbone 'pvt_v2_bo'; did you mean 'pvt_v2_b\d'\?"):
        build(ModelRecipe(backbone="pvt_v2_bo"), 64)


@pytest.mark.parametrize(
    ("backbone", "reason"),
    [
        ("test_vit", "only images of 160"),
        ("mambaout_femto", "channels-last"),
        ("convmixer_768_32", r"strides \[7, 7, 7\], needed \[4, 8, 16, 32\]"),
    ],
)
def test_a_backbone_without_four_usable_levels_is_one_clear_line(
    backbone: str, reason: str
) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        build(ModelRecipe(backbone=backbone), 64)
    assert backbone in str(caught.value) and "\n" not in str(caught.value)


def test_drop_path_reaches_the_encoder_or_is_refused() -> None:
    model = build(ModelRecipe(backbone="pvt_v2_b0", drop_path=0.1), 64)
    dropped = [m.drop_prob for m in model.modules() if type(m).__name__ == "DropPath"]
    assert max(dropped) == pytest.approx(0.1)
    with pytest.raises(UserError, match="drop path"):
        build(ModelRecipe(backbone="dla46_c", drop_path=0.1), 64)


def test_pretrained_true_says_what_to_do_when_the_hub_is_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"test_efficientnet.*local safetensors file") as caught:
        build(tiny(pretrained=True), 64)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("network", ["no answer", "nobody listens", "no such name"])
def test_pretrained_true_without_a_network_is_refused_within_five_seconds(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if network == "no answer":
            silent.listen()  # connections are taken, and never answered
        port = silent.getsockname()[1]
        host = "hub.invalid" if network == "no such name" else "127.0.0.1"
        monkeypatch.setattr(constants, "ENDPOINT", f"http://{host}:{port}")
        begun = time.monotonic()
        with pytest.raises(UserError, match=r"test_efficientnet.*local safetensors file"):
            build(tiny(pretrained=True), 64)
    assert time.monotonic() - begun < 5
    assert not constants.HF_HUB_OFFLINE


def test_a_local_file_fills_the_encoder_from_half_precision_and_ignores_a_head(
    tmp_path: Path,
) -> None:
    classifier = timm.create_model("test_efficientnet")
    state = {key: value.clone() for key, value in classifier.state_dict().items()}
    save_file({k: v.half() if v.ndim == 4 else v for k, v in state.items()}, tmp_path / "w.st")
    model = build(tiny(pretrained=str(tmp_path / "w.st")), 64)
    stem = model.backbone.state_dict()["conv_stem.weight"]
    assert stem.dtype == torch.float32
    torch.testing.assert_close(stem, state["conv_stem.weight"].half().float())


def test_a_classifier_with_nested_names_fills_a_feature_extractor(tmp_path: Path) -> None:
    state = timm.create_model("pvt_v2_b0").state_dict()
    save_file(state, tmp_path / "b0.safetensors")
    recipe = ModelRecipe(backbone="pvt_v2_b0", pretrained=str(tmp_path / "b0.safetensors"))
    model = build(recipe, 64)
    ours = model.backbone.state_dict()["stages_1.blocks.0.attn.q.weight"]
    assert torch.equal(ours, state["stages.1.blocks.0.attn.q.weight"])


def test_a_file_of_another_backbone_is_refused_with_its_name(tmp_path: Path) -> None:
    save_file(timm.create_model("test_efficientnet").state_dict(), tmp_path / "w.safetensors")
    for backbone in ("pvt_v2_b0", "mobilenetv2_100"):
        with pytest.raises(UserError, match=f"backbone.*{backbone}"):
            build(ModelRecipe(backbone=backbone, pretrained=str(tmp_path / "w.safetensors")), 64)


def test_absent_and_truncated_encoder_files_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        build(tiny(pretrained=str(tmp_path / "absent.safetensors")), 64)
    whole = tmp_path / "whole.safetensors"
    save_file(timm.create_model("test_efficientnet").state_dict(), whole)
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"cut.safetensors is not a whole safetensors file"):
        build(tiny(pretrained=str(tmp_path / "cut.safetensors")), 64)


@pytest.mark.weights
@pytest.mark.parametrize(
    ("backbone", "file"),
    [
        ("tf_efficientnet_b0", "tf_efficientnet_b0.tracer_duts.safetensors"),
        ("mobilenetv2_100", "mobilenetv2_100.imagenet.safetensors"),
        ("tf_efficientnet_lite0", "tf_efficientnet_lite0.imagenet.safetensors"),
    ],
)
def test_the_published_encoder_files_load_whole(backbone: str, file: str) -> None:
    if not (WEIGHTS / file).is_file():
        pytest.skip(f"no {file} in {WEIGHTS}; set KDAS_EDGE_WEIGHTS")
    model = build(ModelRecipe(backbone=backbone, pretrained=str(WEIGHTS / file)), 96)
    random = build(ModelRecipe(backbone=backbone), 96)
    loaded, initial = model.backbone.state_dict(), random.backbone.state_dict()
    moved = [key for key, value in loaded.items() if not torch.equal(value, initial[key])]
    weights = [key for key, value in loaded.items() if value.ndim == 4]
    assert set(weights) <= set(moved)
    with torch.no_grad():
        assert all(z.isfinite().all() for z in model.eval()(torch.randn(1, 3, 96, 96)))
