"""`kdas-edge doctor`: what this machine can do, and one line of advice for what it cannot.

Torch is not imported: its absence must be tellable on the device, and its import takes seconds.
"""

import importlib.metadata
import importlib.util
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kdas_edge import environment
from kdas_edge.doctor.advice import Machine, advise
from kdas_edge.doctor.findings import MachineFinding, Verdict
from kdas_edge.doctor.tuning import tuning
from kdas_edge.runtime.backends import runtime_devices

SCHEMA = "kdas-edge/doctor/1"


@dataclass(frozen=True)
class Diagnosis:
    """What this machine can do.

    Attributes:
        environment: of `environment.describe`.
        devices: per runtime.
        findings: one for each thing that was looked at.
    """

    environment: dict[str, Any]
    devices: dict[str, list[str]]
    findings: list[MachineFinding]

    def as_json(self) -> dict[str, Any]:
        """A JSON object of schema `SCHEMA`."""
        return {"schema": SCHEMA, **asdict(self)}


def examine() -> Diagnosis:
    """Look at processor, runtimes, packages, compilers and settings of the machine."""
    described = environment.describe()
    devices = {name: _devices(name) for name in ("openvino", "onnxruntime", "torch")}
    findings = [
        *_processor(described),
        *_runtimes(devices),
        *versions(),
        *_precisions(described, devices),
        *_compilers(devices),
        *_extras(),
        *tuning(described),
    ]
    return Diagnosis(described, devices, findings)


def _devices(runtime: str) -> list[str]:
    """Devices of a runtime; torch's are told from the driver, without importing torch."""
    if runtime != "torch":
        return runtime_devices(runtime)
    if importlib.util.find_spec("torch") is None:
        return []
    return ["cpu", "cuda"] if _torch_is_cuda_build() and _nvidia_driver() else ["cpu"]


def _processor(described: dict[str, Any]) -> list[MachineFinding]:
    features: dict[str, bool | None] = described["cpu_features"]
    present = [name for name, value in features.items() if value]
    findings = [
        MachineFinding(
            "processor",
            "name",
            f"{described['cpu']}, {described['cpus_usable']} of {described['cpus_logical']} usable",
        )
    ]
    if all(value is None for value in features.values()):
        return [
            *findings,
            MachineFinding(
                "processor",
                "features",
                "unknown",
                "note",
                "this system does not tell; measure int8 against fp32 with kdas-edge bench",
            ),
        ]
    return [
        *findings,
        MachineFinding(
            "processor", "features", ", ".join(present) or "none that speeds up int8 or bf16"
        ),
    ]


def _precisions(described: dict[str, Any], devices: dict[str, list[str]]) -> list[MachineFinding]:
    """Which precision suits each device that was found, and why."""
    machine = Machine(described["machine"], described["cpu_features"], devices)
    return [
        MachineFinding(
            "precision", row.target, row.precision, "ok" if row.sure else "note", advice=row.why
        )
        for row in advise(machine)
    ]


def _runtimes(devices: dict[str, list[str]]) -> list[MachineFinding]:
    remedies = {
        "openvino": "pip install kdas-edge",
        "onnxruntime": "pip install kdas-edge",
        "torch": "only for training and torch targets: pip install 'kdas-edge[train]'",
    }
    findings = []
    for runtime, found in devices.items():
        version = _version("onnxruntime-gpu" if runtime == "onnxruntime" else runtime) or _version(
            runtime
        )
        if not found:
            verdict: Verdict = "note" if runtime == "torch" else "missing"
            findings.append(
                MachineFinding("runtimes", runtime, "not installed", verdict, remedies[runtime])
            )
            continue
        advice = ""
        if runtime == "onnxruntime" and "CUDA" not in found and _nvidia_driver():
            advice = "an NVIDIA GPU is present: install onnxruntime-gpu instead of onnxruntime"
        if runtime == "torch" and "cuda" not in found and _nvidia_driver():
            advice = "an NVIDIA GPU is present, but this torch is a CPU build"
        findings.append(
            MachineFinding(
                "runtimes",
                runtime,
                f"{version or 'version unknown'}: {', '.join(found)}",
                "note" if advice else "ok",
                advice,
            )
        )
    return findings


def versions(distribution: str = "kdas-edge") -> Iterator[MachineFinding]:
    """Every package of the base install against the version that is asked for.

    Args:
        distribution: whose requirements; another one for tests.
    """
    # comes with ONNX Runtime, whose absence doctor must be able to tell
    if importlib.util.find_spec("packaging") is None:
        return
    from packaging.requirements import Requirement

    try:
        stated = importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        advice = "run it from an installed package: pip install kdas-edge"
        yield MachineFinding("versions", distribution, "not installed", "note", advice)
        return
    for text in stated:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        found = _version(wanted.name)
        if found is None and wanted.name == "onnxruntime":
            found = _version("onnxruntime-gpu")
        if found is None:
            advice = f"pip install '{wanted.name}{wanted.specifier}'"
            yield MachineFinding("versions", wanted.name, "not installed", "missing", advice)
        elif not wanted.specifier.contains(found, prereleases=True):
            advice = (
                f"tested with {wanted.specifier}: pip install '{wanted.name}{wanted.specifier}'"
            )
            yield MachineFinding("versions", wanted.name, found, "note", advice)
        else:
            yield MachineFinding("versions", wanted.name, found)


def _compilers(devices: dict[str, list[str]]) -> list[MachineFinding]:
    """NNCF compiles its quantisers at first use; only quantisation-aware training needs them."""
    if _version("nncf") is None:
        return []
    wanted = {"g++": "apt-get install g++", "ninja": "pip install ninja"}
    if "cuda" in devices["torch"]:
        wanted["nvcc"] = "install the CUDA toolkit of torch's version, or quantise on the CPU"
    findings = []
    for program, remedy in wanted.items():
        path = shutil.which(program)
        if path is None and program == "ninja" and _version("ninja") is not None:
            path = "in this Python environment"
        findings.append(
            MachineFinding("compilers", program, path or "not found")
            if path
            else MachineFinding(
                "compilers",
                program,
                "not found",
                "missing",
                f"kdas-edge quantize needs it once, to compile NNCF's quantisers: {remedy}",
            )
        )
    return findings


def _extras() -> list[MachineFinding]:
    findings = []
    for extra, modules, verbs in (
        ("report", ("altair", "jinja2", "vl_convert"), "report"),
        ("train", ("torch", "timm", "lightning_fabric", "nncf", "onnx"), "train … export"),
    ):
        absent = [name for name in modules if importlib.util.find_spec(name) is None]
        findings.append(
            MachineFinding(
                "packages",
                f"extra {extra}",
                f"without {', '.join(absent)}" if absent else "installed",
                "note" if absent else "ok",
                f"for {verbs}: pip install 'kdas-edge[{extra}]'" if absent else "",
            )
        )
    return findings


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch_is_cuda_build() -> bool:
    """A CUDA build of torch requires NVIDIA's or its own CUDA packages, and ships the library."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    return any((Path(spec.origin).parent / "lib").glob("*torch_cuda*"))


def _nvidia_driver() -> bool:
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()
