"""Which precision suits which device, and why: rules as data in, advice out.

Nothing is measured here. The rules say where to begin; `kdas-edge bench` on the device decides.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

X86 = ("x86_64", "amd64", "i386", "i686")
ARM = ("aarch64", "arm64", "armv7l", "armv8l")


@dataclass(frozen=True)
class Machine:
    """What the rules look at.

    Attributes:
        architecture: as `platform.machine()` says, e.g. `x86_64` or `aarch64`.
        features: of `environment.cpu_features`; None for what the system does not tell.
        devices: runtime to its devices in the words of a target, e.g. `{"openvino": ["CPU"]}`.
    """

    architecture: str
    features: Mapping[str, bool | None] = field(default_factory=dict)
    devices: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def has(self, *names: str) -> bool:
        """True if any of these features is there."""
        return any(self.features.get(name) for name in names)

    @property
    def tells_features(self) -> bool:
        """False on a system that does not tell its processor's features."""
        return any(value is not None for value in self.features.values())

    @property
    def is_x86(self) -> bool:
        """An Intel or AMD processor."""
        return self.architecture.lower() in X86

    @property
    def is_arm(self) -> bool:
        """An Arm processor."""
        return self.architecture.lower() in ARM


@dataclass(frozen=True)
class Advice:
    """What to try first on one device.

    Attributes:
        target: runtime and device.
        precision: of the model file, the best first, e.g. `int8` or `fp16, int8`.
        why: one line, with the target's options to set.
        sure: False where the machine does not tell enough, or where int8 gains little.
    """

    target: str
    precision: str
    why: str
    sure: bool = True


def advise(machine: Machine) -> list[Advice]:
    """Advice for every device of a machine, in the order of its runtimes.

    A device without a rule (OpenVINO's AUTO, which only chooses among the others) has none.
    """
    found = []
    for runtime, devices in machine.devices.items():
        for device in devices:
            rule = _RULES.get((runtime, device.partition(".")[0]))
            if rule is not None:
                precision, why, sure = rule(machine)
                found.append(Advice(f"{runtime}:{device}", precision, why, sure))
    return found


_Rule = Callable[[Machine], tuple[str, str, bool]]


def _openvino_cpu(machine: Machine) -> tuple[str, str, bool]:
    if machine.is_arm:
        why = "OpenVINO simulates int8 in float on Arm, which makes it slower, not faster; "
        if machine.has("arm_fp16"):
            return "fp16", why + "fp16 arithmetic is native here: option precision=f16", True
        return "fp16", why + "fp16 halves the file; with option precision=f16 if it is faster", True
    if not machine.tells_features:
        return "int8", "this system does not tell its features: measure int8 against fp32", False
    if not machine.is_x86:
        return "fp32", f"no int8 kernels are known for {machine.architecture}: measure both", False
    half = (
        "; or the fp32 file with option precision=bf16, which needs no quantising"
        if machine.has("amx_bf16", "avx512_bf16")
        else ""
    )
    if machine.has("amx_int8"):
        return "int8", f"AMX multiplies whole tiles of 8-bit numbers{half}", True
    if machine.has("vnni"):
        return "int8", f"VNNI does four 8-bit products where fp32 does one{half}", True
    return (
        "fp32",
        "no VNNI or AMX: int8 gains little, and its 16-bit sums can saturate; a model that is to "
        f"run in int8 here wants overflow_fix=enable when it is quantised{half}",
        False,
    )


def _onnxruntime_cpu(machine: Machine) -> tuple[str, str, bool]:
    caution = "only layers between two quantisers run in int8: kdas-edge export says how many do"
    if machine.is_arm:
        if machine.has("arm_i8mm", "arm_dotprod"):
            name = "i8mm" if machine.has("arm_i8mm") else "dot products"
            return "int8", f"int8 kernels use this processor's {name}; {caution}", True
        if machine.tells_features:
            return "fp32", "no dot products or i8mm: int8 gains little; measure both", False
    elif machine.is_x86:
        if machine.has("vnni", "amx_int8"):
            return "int8", f"VNNI kernels; {caution}, and in which it is not faster", True
        if machine.tells_features:
            return (
                "fp32",
                "no VNNI: int8 gains little, and its 16-bit sums can saturate unless it was "
                "quantised with overflow_fix=enable",
                False,
            )
    return "int8, fp32", "this system does not tell its features: measure both", False


def _openvino_gpu(machine: Machine) -> tuple[str, str, bool]:
    return (
        "fp16, int8",
        "Intel graphics compute fp16 at twice the rate of fp32 (option precision=f16), and int8 "
        "faster still where they have DP4A or XMX (Iris Xe, Arc and later)",
        True,
    )


def _openvino_npu(machine: Machine) -> tuple[str, str, bool]:
    return (
        "int8, fp16",
        "an NPU wants static shapes, so the core preset, not camera; it has no fp32 arithmetic, "
        "and is built for int8",
        True,
    )


def _cuda(machine: Machine) -> tuple[str, str, bool]:
    return (
        "fp16",
        "tensor cores compute fp16; CUDA's execution provider has no int8 convolutions and would "
        "convert to and fro: for int8 use TensorRT",
        True,
    )


def _tensorrt(machine: Machine) -> tuple[str, str, bool]:
    return (
        "fp16, int8",
        "tensor cores compute both, but TensorRT takes QuantizeLinear/DequantizeLinear pairs only "
        "with zero point 0 and one range per tensor; fp16 needs neither",
        True,
    )


def _direct_ml(machine: Machine) -> tuple[str, str, bool]:
    return "fp16", "graphics compute fp16 at up to twice the rate of fp32", True


def _core_ml(machine: Machine) -> tuple[str, str, bool]:
    return "fp16", "the Neural Engine computes fp16; quantiser nodes fall back to the CPU", True


def _torch_cpu(machine: Machine) -> tuple[str, str, bool]:
    return "fp32", "the reference that others are compared with, not a way to deploy", True


def _torch_cuda(machine: Machine) -> tuple[str, str, bool]:
    return "fp32", "for training and comparison; option precision=f16 or bf16 is faster", True


_RULES: dict[tuple[str, str], _Rule] = {
    ("openvino", "CPU"): _openvino_cpu,
    ("openvino", "GPU"): _openvino_gpu,
    ("openvino", "NPU"): _openvino_npu,
    ("onnxruntime", "CPU"): _onnxruntime_cpu,
    ("onnxruntime", "CUDA"): _cuda,
    ("onnxruntime", "TensorRT"): _tensorrt,
    ("onnxruntime", "DirectML"): _direct_ml,
    ("onnxruntime", "CoreML"): _core_ml,
    ("onnxruntime", "OpenVINO"): _openvino_cpu,
    ("torch", "cpu"): _torch_cpu,
    ("torch", "cuda"): _torch_cuda,
}
