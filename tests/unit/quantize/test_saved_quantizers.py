"""A quantised network survives the disk, without a pickle, and a damaged one is named."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_student import SIZE, TinyStudent
from torch import nn

from kdas_edge.errors import UserError
from kdas_edge.models.checkpoints import BEST, load_network, save_network
from kdas_edge.quantize.ptq import post_training_quantize
from kdas_edge.quantize.qat import CONFIG, load_quantized, save_config
from kdas_edge.quantize.toolkit import check_compiler
from kdas_edge.recipe import PtqRecipe


@pytest.fixture
def saved(student: TinyStudent, student_int8: nn.Module, tmp_path: Path) -> Path:
    save_network(tmp_path / BEST, student_int8.state_dict(), student.architecture)
    save_config(tmp_path / CONFIG, student_int8)
    return tmp_path


def test_a_restored_network_gives_the_same_maps(
    student: TinyStudent, student_int8: nn.Module, saved: Path
) -> None:
    restored = load_quantized(saved)
    assert restored.architecture == student.architecture and not restored.training
    with torch.no_grad():
        for x in student.inputs(student.frames[:3]):
            for ours, theirs in zip(restored(x), student_int8(x), strict=True):
                torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)


def test_quantisation_is_visible_but_small_and_leaves_the_float_network_alone(
    student: TinyStudent, student_int8: nn.Module
) -> None:
    with torch.no_grad():
        x = torch.cat(student.inputs(student.frames))
        plain, quantised = sum(student.network(x)), sum(student_int8(x))
    assert not torch.equal(plain, quantised)
    assert ((plain > 0) != (quantised > 0)).float().mean() < 0.05
    assert not any("nncf" in key for key in student.network.state_dict())


def test_a_shared_quantiser_is_stored_once_and_restored_everywhere(
    student: TinyStudent, student_int8: nn.Module, saved: Path
) -> None:
    stored = load_file(saved / BEST)
    shared = [name for name, _ in student_int8.named_parameters(remove_duplicate=False)]
    distinct = [name for name, _ in student_int8.named_parameters()]
    assert len(shared) > len(distinct), "the network has no shared quantiser to test with"
    assert len({tensor.data_ptr() for tensor in student_int8.state_dict().values()}) == len(
        student_int8.state_dict()
    )
    assert stored.keys() == student_int8.state_dict().keys()
    restored = load_quantized(saved)
    again = dict(restored.named_parameters(remove_duplicate=False))
    before = dict(student_int8.named_parameters(remove_duplicate=False))
    assert again.keys() == before.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(again[name], tensor, msg=name)


def test_the_gradient_reaches_weights_and_ranges(
    student: TinyStudent, student_int8: nn.Module
) -> None:
    z1, z2 = student_int8(torch.cat(student.inputs(student.frames[:2])))
    (z1.square().mean() + z2.square().mean()).backward()
    with_gradient = {n for n, p in student_int8.named_parameters() if p.grad is not None}
    student_int8.zero_grad()
    assert "head2.weight" in with_gradient
    assert any(name.endswith("_input_range_param_storage") for name in with_gradient)
    assert any(name.endswith("_scale_param_storage") for name in with_gradient)


def test_a_truncated_checkpoint_is_named(saved: Path) -> None:
    content = (saved / BEST).read_bytes()
    (saved / BEST).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"best.safetensors is truncated"):
        load_quantized(saved)


def test_a_configuration_of_another_network_is_refused(saved: Path) -> None:
    config = json.loads((saved / CONFIG).read_text())
    key = next(iter(config))
    config[key] = config[key][:-5]
    (saved / CONFIG).write_text(json.dumps(config))
    with pytest.raises(UserError, match="do not fit"):
        load_quantized(saved)


def test_a_configuration_cannot_load_foreign_code(saved: Path) -> None:
    config = json.loads((saved / CONFIG).read_text())
    key = next(iter(config))
    config[key][0] |= {"module_path": "subprocess", "module_cls_name": "Popen"}
    (saved / CONFIG).write_text(json.dumps(config))
    with pytest.raises(UserError, match="do not fit"):
        load_quantized(saved)


def test_a_float_run_is_no_quantised_run(student: TinyStudent, tmp_path: Path) -> None:
    student.save(tmp_path / BEST)
    load_network(tmp_path)
    with pytest.raises(UserError, match="not a finished quantised run"):
        load_quantized(tmp_path)


def test_smooth_quant_can_be_switched_on(student: TinyStudent) -> None:
    recipe = PtqRecipe(smooth_quant=0.9, preset="performance", model_type="none")
    network = post_training_quantize(student.network, student.inputs(student.frames[:2]), recipe)
    with torch.no_grad():
        assert network(student.inputs(student.frames[:1])[0])[1].shape == (
            1,
            1,
            SIZE // 8,
            SIZE // 8,
        )


def test_a_missing_compiler_is_said_on_the_cpu_and_refused_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    check_compiler(cuda=False)
    assert "missing: g++" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"missing: .*nvcc"):
        check_compiler(cuda=True)
