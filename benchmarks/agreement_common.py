"""One int8 network on every path that can compute it, compared frame by frame.

The reference is the fake-quantised torch network in float32. Beside it OpenVINO and ONNX Runtime on
this machine as it is, and OpenVINO held to older instruction sets by ONEDNN_MAX_CPU_ISA: without
VNNI an int8 product is added up in 16 bits, which can saturate. That the older kernels really ran
is read from OpenVINO's executed graph and from oneDNN's own log, not assumed.

ONNX Runtime has no such switch: its kernels (MLAS) ask the processor alone. On a processor without
VNNI its session option `session.x64quantprecision` avoids saturation at some cost of time.
"""

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kdas_edge.console import info, progress
from kdas_edge.data.layout import Pair, read_pair, test_sets, training_set
from kdas_edge.data.splits import read_split
from kdas_edge.errors import KdasEdgeError, UserError, last_line
from kdas_edge.export.agreement import input_spec
from kdas_edge.export.graph import DeployGraph
from kdas_edge.export.onnx.export import save_onnx, to_onnx
from kdas_edge.export.openvino import save_openvino, to_openvino
from kdas_edge.files import read_json
from kdas_edge.inspect import profile
from kdas_edge.metrics.overlap import dice
from kdas_edge.models.architecture import Architecture
from kdas_edge.runtime.backends import open_file
from kdas_edge.runtime.inputs import preprocess
from kdas_edge.runtime.masks import mask_at_size
from kdas_edge.runtime.targets import cpu_target

Maps = NDArray[np.float32]  # (N, S, S) polyp probabilities

THRESHOLD = 0.5
# what three runtimes must keep to call themselves one model
MASK_LIMIT = 0.005
DICE_LIMIT = 0.002

# path -> ONEDNN_MAX_CPU_ISA, what a kernel's name must then hold, and what none may
PATHS: dict[str, tuple[str | None, str, tuple[str, ...]]] = {
    "openvino": (None, "", ()),
    "openvino, AVX-512 without VNNI": ("AVX512_CORE", "avx512", ("vnni", "amx", "avx10")),
    "openvino, AVX2": ("AVX2", "avx2", ("vnni", "amx", "avx10", "avx512")),
}
_WORKER = Path(__file__).with_name("openvino_worker.py")
_ISA = re.compile(r"^onednn_verbose,.*,isa:(.*)$", re.MULTILINE)
# the first creation of each: …create:cache_miss,cpu,convolution,brg_conv_fwd:avx512_core,…,src:u8:…
_PRIMITIVE = re.compile(
    r"^onednn_verbose,.*create:cache_miss,cpu,(?:convolution|inner_product|matmul),([^,]+),"
    r"[^,]*,src:[us]8:",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Frames:
    """Real frames with ground truth.

    Attributes:
        names: `set/name` of each.
        masks: (H, W) bool each, at the size of the image.
        inputs: file of (N, 3, S, S) float32, normalised.
    """

    names: list[str]
    masks: list[NDArray[np.bool_]]
    inputs: Path

    def load(self) -> NDArray[np.float32]:
        """The inputs, not read before they are used."""
        return np.load(self.inputs, mmap_mode="r")


def spread(sets: dict[str, Sequence[Pair]], count: int) -> list[tuple[str, Pair]]:
    """`count` pairs, as many from each set as it has and evenly along it.

    A set that is too small leaves its share to the others.
    """
    left, chosen = count, []
    by_size = sorted(sets.items(), key=lambda item: len(item[1]))
    for index, (name, pairs) in enumerate(by_size):
        share = min(len(pairs), round(left / (len(by_size) - index)))
        positions = np.linspace(0, len(pairs) - 1, share).round().astype(int) if share else []
        chosen += [(name, pairs[position]) for position in positions]
        left -= share
    return chosen


def read_frames(
    data: Path, run: Path, count: int, architecture: Architecture, folder: Path
) -> Frames:
    """Frames of the test sets and of the validation split of `run`, written to `folder`."""
    validation = set(read_split(run / "split.json").validation)
    sets: dict[str, Sequence[Pair]] = {name: found.pairs for name, found in test_sets(data).items()}
    held_out = [pair for pair in training_set(data).pairs if pair.name in validation]
    if held_out:
        sets["validation"] = held_out
    chosen = spread(sets, count)
    if not chosen:
        raise UserError(f"--frames {count}: choose at least one for each of {', '.join(sets)}")
    size = architecture.size
    inputs = folder / "inputs.npy"
    x = np.lib.format.open_memmap(inputs, "w+", np.float32, (len(chosen), 3, size, size))
    masks = []
    for index, (_, pair) in enumerate(chosen):
        image, mask = read_pair(pair)
        x[index] = preprocess(image, input_spec(architecture))[0]
        masks.append(mask)
    x.flush()
    return Frames([f"{name}/{pair.name}" for name, pair in chosen], masks, inputs)


def run_torch(network: nn.Module, frames: Frames) -> Maps:
    """Polyp probabilities of a torch network, float or fake-quantised, in float32."""
    graph = DeployGraph(network).eval()
    x = frames.load()
    maps = []
    with torch.inference_mode(), progress(len(x), "torch") as advance:
        for frame in x:
            maps.append(graph(torch.from_numpy(frame[None].copy()))[0, 1].numpy())
            advance()
    return np.stack(maps)


def run_onnxruntime(
    model: Path, frames: Frames, threads: int
) -> tuple[Maps, dict[str, dict[str, int]]]:
    """Polyp probabilities of an ONNX file on this machine's CPU, and the operators that ran."""
    target = cpu_target(model, threads)
    backend = open_file(model, target)
    x = frames.load()
    maps = []
    with progress(len(x), "onnxruntime") as advance:
        for frame in x:
            maps.append(backend.infer(frame[None])[0, 1])
            advance()
    return np.stack(maps), profile(model, np.array(x[:1]), target, 1, 0).arithmetic_kernels()


def run_openvino(
    model: Path, frames: Frames, threads: int, isa: str | None
) -> tuple[Maps, dict[str, Any]]:
    """Polyp probabilities of an IR, in a process with oneDNN held to an instruction set.

    Args:
        model: the `.xml`.
        frames: what to run it on.
        threads: of the CPU.
        isa: ONEDNN_MAX_CPU_ISA; None for what the processor has.

    Returns:
        The maps, and the evidence: instruction set, int8 primitives of oneDNN, kernels of OpenVINO.
    """
    folder = model.parent
    outputs, report = folder / "maps.npy", folder / "kernels.json"
    environment = {k: v for k, v in os.environ.items() if k != "ONEDNN_MAX_CPU_ISA"}
    environment["ONEDNN_VERBOSE"] = "profile_create"
    if isa is not None:
        environment["ONEDNN_MAX_CPU_ISA"] = isa
    info(f"openvino {isa or ''}: {len(frames.names)} frames")
    done = subprocess.run(
        [sys.executable, _WORKER, model, frames.inputs, outputs, report, str(threads)],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        reason = last_line(done.stderr) or done.returncode
        raise KdasEdgeError(f"OpenVINO failed with {isa}: {reason}")
    found = _ISA.search(done.stdout)
    evidence = {
        "instruction_set": found.group(1).strip() if found else None,
        "onednn_int8_primitives": dict(Counter(_PRIMITIVE.findall(done.stdout))),
        **read_json(report),
    }
    return np.load(outputs), evidence


def wanted_kernels_ran(evidence: dict[str, Any], required: str, forbidden: Sequence[str]) -> bool:
    """Whether int8 kernels ran, some of the path's instruction set and none beyond it."""
    names = [*evidence["onednn_int8_primitives"], *evidence["int8_kernels"]]
    return any(required in name for name in names) and not any(
        word in name for name in names for word in forbidden
    )


def dice_of(maps: Maps, frames: Frames) -> NDArray[np.float64]:
    """(N,) Dice of the deploy protocol, at the size of the image."""
    scores = []
    for probability, mask in zip(maps, frames.masks, strict=True):
        scores.append(dice(mask_at_size(probability, THRESHOLD, *mask.shape), mask))
    return np.array(scores, dtype=np.float64)


def compare(maps: Maps, reference: Maps, frames: Frames) -> dict[str, Any]:
    """How far one path is from another: masks at the network's size, Dice at the image's."""
    differs = ((maps > THRESHOLD) != (reference > THRESHOLD)).mean(axis=(1, 2))
    ours, theirs = dice_of(maps, frames), dice_of(reference, frames)
    pixels = maps.shape[1] * maps.shape[2]
    worst = int(differs.argmax())
    difference = float(ours.mean() - theirs.mean())
    return {
        "disagreement": {
            "mean": float(differs.mean()),
            "worst": float(differs[worst]),
            "worst_frame": frames.names[worst],
            "mean_pixels": float(differs.mean() * pixels),
            "worst_pixels": round(differs[worst] * pixels),
        },
        "probability_difference": {
            "mean": float(np.abs(maps - reference).mean()),
            "largest": float(np.abs(maps - reference).max()),
        },
        "dice": float(ours.mean()),
        "dice_difference": difference,
        "dice_difference_largest_of_a_frame": float(np.abs(ours - theirs).max()),
        "meets_limits": bool(differs.mean() < MASK_LIMIT and abs(difference) < DICE_LIMIT),
    }


def measure(
    quantized: nn.Module, architecture: Architecture, frames: Frames, threads: int, folder: Path
) -> dict[str, Any]:
    """Export a fake-quantised network, run it on every path and compare with torch.

    Returns:
        `torch` (Dice of the reference), `paths` (one entry for each, with the evidence of its
        kernels), `openvino_against_onnxruntime`, `not_switchable`.
    """
    torch.set_num_threads(threads)
    reference = run_torch(quantized, frames)
    save_openvino(to_openvino(quantized, architecture.size), folder / "int8.xml", {})
    save_onnx(to_onnx(quantized, architecture.size), folder / "int8.onnx", {})

    paths: dict[str, Any] = {}
    native: Maps | None = None
    for name, (isa, required, forbidden) in PATHS.items():
        maps, evidence = run_openvino(folder / "int8.xml", frames, threads, isa)
        native = maps if native is None else native
        verified = wanted_kernels_ran(evidence, required, forbidden)
        paths[name] = {**compare(maps, reference, frames), "verified": verified, **evidence}
    onnx_maps, operators = run_onnxruntime(folder / "int8.onnx", frames, threads)
    paths["onnxruntime"] = {
        **compare(onnx_maps, reference, frames),
        "verified": bool(operators["int8_kernels"]),
        **operators,
    }
    assert native is not None
    return {
        "torch": {"dice": float(dice_of(reference, frames).mean())},
        "paths": paths,
        "openvino_against_onnxruntime": compare(native, onnx_maps, frames),
        "not_switchable": "onnxruntime: MLAS chooses its kernels by the processor alone",
    }


def cells(name: str, path: dict[str, Any]) -> list[str]:
    """A row of the table; see `HEADINGS`."""
    masks = path["disagreement"]
    verdict = "ok" if path["meets_limits"] else "NO"
    if not path.get("verified", True):
        verdict = "other kernels ran"
    kernels = path.get("onednn_int8_primitives") or path.get("int8_kernels", {})
    return [
        name,
        f"{100 * masks['mean']:.3f}",
        f"{100 * masks['worst']:.2f}",
        f"{path['probability_difference']['mean']:.4f}",
        f"{path['dice']:.4f}",
        f"{path['dice_difference']:+.4f}",
        verdict,
        ", ".join(sorted(kernels, key=lambda kernel: -kernels[kernel])[:2]),
    ]


HEADINGS = ["path", "pixels %", "worst %", "mean |Δp|", "Dice", "Δ Dice", "limits", "int8 kernels"]
