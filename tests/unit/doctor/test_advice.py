"""Which precision suits which device: also for machines that are not at hand."""

import pytest

from kdas_edge.doctor.advice import Machine, advise
from kdas_edge.environment import CPU_FEATURES
from kdas_edge.runtime.targets import RUNTIMES

NONE = dict.fromkeys(CPU_FEATURES, False)
UNKNOWN = dict.fromkeys(CPU_FEATURES, None)
CPUS = {"openvino": ["CPU", "AUTO"], "onnxruntime": ["CPU"]}


def machine(architecture: str, *features: str, devices: dict | None = None) -> Machine:
    assert set(features) <= CPU_FEATURES.keys()
    return Machine(architecture, {**NONE, **dict.fromkeys(features, True)}, devices or CPUS)


def advice(of: Machine) -> dict[str, tuple[str, str, bool]]:
    return {row.target: (row.precision, row.why, row.sure) for row in advise(of)}


def test_an_x86_with_vnni_runs_int8() -> None:
    found = advice(machine("x86_64", "avx2", "avx512", "vnni"))
    assert found["openvino:CPU"][0] == found["onnxruntime:CPU"][0] == "int8"
    assert "VNNI" in found["openvino:CPU"][1] and "bf16" not in found["openvino:CPU"][1]
    assert found["openvino:CPU"][2]
    # AUTO only chooses among the others
    assert "openvino:AUTO" not in found


@pytest.mark.parametrize("feature", ["amx_bf16", "avx512_bf16"])
def test_an_x86_with_bf16_may_also_run_the_fp32_file_in_it(feature: str) -> None:
    found = advice(machine("AMD64", "vnni", feature))
    assert found["openvino:CPU"][0] == "int8" and "precision=bf16" in found["openvino:CPU"][1]
    # ONNX Runtime has no such option on a CPU
    assert "bf16" not in found["onnxruntime:CPU"][1]


def test_amx_is_named_before_vnni() -> None:
    why = advice(machine("x86_64", "vnni", "amx_int8"))["openvino:CPU"][1]
    assert "AMX" in why and "VNNI" not in why


def test_an_x86_without_vnni_is_warned_of_saturation() -> None:
    found = advice(machine("x86_64", "avx2"))
    for target in ("openvino:CPU", "onnxruntime:CPU"):
        precision, why, sure = found[target]
        assert precision == "fp32" and "overflow_fix=enable" in why and not sure


@pytest.mark.parametrize("architecture", ["aarch64", "arm64"])
def test_an_arm_processor_runs_fp16_in_openvino_and_int8_in_onnx_runtime(
    architecture: str,
) -> None:
    found = advice(machine(architecture, "arm_fp16", "arm_dotprod"))
    precision, why, _ = found["openvino:CPU"]
    assert precision == "fp16" and "simulates int8" in why and "precision=f16" in why
    assert found["onnxruntime:CPU"][0] == "int8"
    assert "dot product" in found["onnxruntime:CPU"][1]
    assert "i8mm" in advice(machine(architecture, "arm_i8mm"))["onnxruntime:CPU"][1]


def test_an_old_arm_processor_gains_nothing_from_int8() -> None:
    found = advice(machine("aarch64"))
    assert found["openvino:CPU"][0] == "fp16"
    assert found["onnxruntime:CPU"][0] == "fp32" and not found["onnxruntime:CPU"][2]


def test_an_npu_gets_the_static_preset_and_intel_graphics_fp16() -> None:
    devices = {"openvino": ["CPU", "GPU.0", "GPU.1", "NPU"]}
    found = advice(machine("x86_64", "vnni", devices=devices))
    precision, why, _ = found["openvino:NPU"]
    assert "int8" in precision and "fp16" in precision
    assert "static" in why and "core preset" in why
    for target in ("openvino:GPU.0", "openvino:GPU.1"):
        assert found[target][0].startswith("fp16") and "precision=f16" in found[target][1]


def test_nvidia_gets_fp16_and_int8_only_through_tensorrt() -> None:
    devices = {"onnxruntime": ["CPU", "CUDA", "TensorRT"], "torch": ["cpu", "cuda"]}
    found = advice(machine("x86_64", "vnni", devices=devices))
    assert found["onnxruntime:CUDA"][0] == "fp16" and "TensorRT" in found["onnxruntime:CUDA"][1]
    assert found["onnxruntime:TensorRT"][0] == "fp16, int8"
    assert found["torch:cpu"][0] == "fp32"


@pytest.mark.parametrize("architecture", ["x86_64", "arm64", "riscv64"])
def test_where_the_system_tells_nothing_the_advice_is_to_measure(architecture: str) -> None:
    found = advice(Machine(architecture, UNKNOWN, {"onnxruntime": ["CPU"]}))
    precision, why, sure = found["onnxruntime:CPU"]
    assert "measure" in why and not sure and "fp32" in precision


def test_every_device_that_a_target_can_name_has_a_line_of_advice() -> None:
    devices = {runtime: list(names) for runtime, names in RUNTIMES.items()}
    rows = advise(machine("x86_64", "vnni", devices=devices))
    targets = {f"{runtime}:{name}" for runtime, names in RUNTIMES.items() for name in names}
    assert {row.target for row in rows} == targets - {"openvino:AUTO"}
    assert all(row.why and "\n" not in row.why for row in rows)
