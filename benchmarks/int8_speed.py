"""How fast is int8, against what, and what limits it? Random weights, OpenVINO, one thread.

Speed does not depend on what a network has learnt, so that no training is needed. All candidates
are timed in turns in one process:

- PVTv2-B2 in fp32, the teacher that the paper distils, as exported plainly and by this package;
- each student in fp32 and int8: `plain` quantises the network as it was trained and enlarges both
  maps (what gluing the libraries together gives), the others use this package's deploy form;
- int8 with bf16 for what is left in float; for `pvt_v2_b0` also SmoothQuant, and Hardswish or ReLU
  for GELU (those two change the network and would have to be trained in).

The arithmetic limit is multiply-accumulates divided by the peak rate of one core, which is measured
in the same process on a chain of 1×1 convolutions.

    python benchmarks/int8_speed.py --json benchmarks/results/int8_speed.json
"""

import argparse
import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
from openvino import opset13 as op
from torch import Tensor, nn

from kdas_edge.console import info, table
from kdas_edge.data.synthetic import scene
from kdas_edge.environment import describe
from kdas_edge.export.openvino import to_openvino
from kdas_edge.files import write_json
from kdas_edge.inspect import profile
from kdas_edge.latency import Latency, measure, speedup
from kdas_edge.models.architecture import Architecture
from kdas_edge.models.inputs import normalise
from kdas_edge.models.zoo import build, multiply_accumulates, parameters
from kdas_edge.process import one_line_errors
from kdas_edge.quantize.ptq import post_training_quantize
from kdas_edge.recipe import ModelRecipe, PtqRecipe
from kdas_edge.runtime.backends.openvino import open_file
from kdas_edge.runtime.targets import Target
from kdas_edge.table import number

FRAMES = 2


class PlainGraph(nn.Module):
    """The network as it is written: both maps are enlarged, then added."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        z1, z2 = self.network(image)
        polyp = torch.sigmoid(z1 + z2)
        return torch.cat([1 - polyp, polyp], dim=1)


def convert_plain(network: nn.Module, size: int) -> ov.Model:
    with torch.no_grad():
        return ov.convert_model(
            PlainGraph(network).eval(),
            example_input=torch.zeros(1, 3, size, size),
            input=[1, 3, size, size],
        )


def samples(architecture: Architecture) -> list[Tensor]:
    frames = [torch.from_numpy(scene(seed, architecture.size)[0]) for seed in range(FRAMES)]
    return [normalise(frame.permute(2, 0, 1)[None] / 255, architecture) for frame in frames]


def with_activation(network: nn.Module, make: Callable[[], nn.Module]) -> nn.Module:
    """A copy with another activation in place of every GELU."""
    network = copy.deepcopy(network)
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if "GELU" in type(child).__name__:
                setattr(module, name, make())
    return network


def graphs(backbone: str, network: nn.Module, architecture: Architecture) -> dict[str, Any]:
    """Name to (IR, inference precision) of one student."""
    size, frames = architecture.size, samples(architecture)
    transformer = backbone.startswith("pvt")
    # corrected biases take as long as any others
    recipe = PtqRecipe(
        model_type="transformer" if transformer else "none", fast_bias_correction=False
    )

    def int8(source: nn.Module, setting: PtqRecipe = recipe, arrange: bool = True) -> nn.Module:
        return post_training_quantize(source, frames, setting, "tensor", arrange)

    quantized = to_openvino(int8(network), size)
    found: dict[str, Any] = {
        "fp32 plain": (convert_plain(network, size), "f32"),
        "fp32": (to_openvino(network, size), "f32"),
        "int8 plain": (convert_plain(int8(network, arrange=False), size), "f32"),
        "int8": (quantized, "f32"),
        "int8, float rest in bf16": (quantized, "bf16"),
    }
    if transformer:
        smooth = recipe.model_copy(update={"smooth_quant": 0.95})
        found["int8, SmoothQuant"] = (to_openvino(int8(network, smooth), size), "f32")
        for name, make in (("Hardswish", nn.Hardswish), ("ReLU", nn.ReLU)):
            changed = with_activation(network, make)
            found[f"fp32, {name}"] = (to_openvino(changed, size), "f32")
            found[f"int8, {name}"] = (to_openvino(int8(changed), size), "f32")
    return found


def target(threads: int, precision: str = "f32") -> Target:
    return Target("openvino", "CPU", {"threads": str(threads), "precision": precision})


def runner(model: ov.Model, x: np.ndarray, threads: int, precision: str) -> Callable[[], object]:
    return functools.partial(open_file(model, target(threads, precision)).infer, x)


def peak_chain(quantised: bool, layers: int = 12, channels: int = 256, side: int = 56) -> ov.Model:
    """1×1 convolutions that keep every multiplier busy."""
    rng = np.random.default_rng(0)

    def fake_quantize(node: Any, low: Any, high: Any, levels: int) -> Any:
        ends = [op.constant(np.asarray(v, np.float32)) for v in (low, high, low, high)]
        return op.fake_quantize(node, *ends, levels)

    node = source = op.parameter([1, channels, side, side], ov.Type.f32)
    for _ in range(layers):
        values = rng.normal(0, 0.06, (channels, channels, 1, 1)).astype(np.float32)
        weight: Any = op.constant(values)
        if quantised:
            node = fake_quantize(node, 0.0, 6.0, 256)
            bound = np.abs(values).max((1, 2, 3), keepdims=True)
            weight = fake_quantize(weight, -bound, bound, 255)
        node = op.relu(op.convolution(node, weight, [1, 1], [0, 0], [0, 0], [1, 1]))
    return ov.Model([node], [source])


def peaks(threads: int) -> dict[str, float]:
    """Multiply-accumulates a second in fp32 and int8, the best of many rounds."""
    layers, channels, side = 12, 256, 56
    x = np.random.default_rng(1).random((1, channels, side, side), np.float32)
    chains = {
        name: runner(peak_chain(name == "int8", layers, channels, side), x, threads, "f32")
        for name in ("fp32", "int8")
    }
    work = layers * channels**2 * side**2
    rates = {}
    for name, found in measure(chains, 60, 60).items():
        assert isinstance(found, Latency), found
        rates[name] = work / float(found.samples.min())
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=352)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--teacher", default="pvt_v2_b2")
    parser.add_argument("--students", default="pvt_v2_b0,mobilenetv2_100,tf_efficientnet_lite0")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.manual_seed(0)

    models, built, inputs = {}, {}, {}
    for backbone in (args.teacher, *args.students.split(",")):
        network = build(ModelRecipe(backbone=backbone), args.size)
        architecture = network.architecture
        network.eval()
        models[backbone] = {
            "parameters": parameters(network),
            "multiply_accumulates": multiply_accumulates(network, args.size),
        }
        inputs[backbone] = np.ascontiguousarray(samples(architecture)[0].numpy())
        if backbone == args.teacher:
            found: dict[str, Any] = {
                "fp32 plain": (convert_plain(network, args.size), "f32"),
                "fp32": (to_openvino(network, args.size), "f32"),
            }
        else:
            found = graphs(backbone, network, architecture)
        built |= {(backbone, name): pair for name, pair in found.items()}
        info(f"ready: {backbone}")

    candidates = {
        f"{backbone} {name}": runner(graph, inputs[backbone], args.threads, precision)
        for (backbone, name), (graph, precision) in built.items()
    }
    results = measure(candidates, args.iterations, 600)
    rates = peaks(args.threads)
    rows, cells = [], []
    for backbone, name in built:
        result = results[f"{backbone} {name}"]
        assert isinstance(result, Latency), result
        ratios = {}
        for label, reference in (
            ("teacher_plain", f"{args.teacher} fp32 plain"),
            ("teacher", f"{args.teacher} fp32"),
            ("own_plain", f"{backbone} fp32 plain"),
            ("own", f"{backbone} fp32"),
        ):
            other = results[reference]
            assert isinstance(other, Latency)
            ratios[label] = speedup(other, result)
        kind = "int8" if name.startswith("int8") else "fp32"
        limit = models[backbone]["multiply_accumulates"] / rates[kind]
        share = limit / result.percentile(50)
        rows.append(
            {
                "backbone": backbone,
                "variant": name,
                "latency": result.as_json(),
                "times_as_fast_as": {key: value.as_json() for key, value in ratios.items()},
                "arithmetic_limit_ms": limit * 1e3,
                "share_of_arithmetic_limit": share,
            }
        )
        cells.append(
            [
                f"{backbone} {name}",
                number(result.percentile(50) * 1e3, 1),
                *(number(ratio.value, 2) for ratio in ratios.values()),
                number(limit * 1e3, 1),
                f"{share:.0%}",
            ]
        )
    headings = ["model", "p50 ms", "× teacher plain", "× teacher", "× own plain", "× own fp32"]
    table(
        f"OpenVINO CPU, {args.threads} thread, {args.size}×{args.size}, random weights; peak of "
        f"one core {rates['fp32'] / 1e9:.0f} (fp32) and {rates['int8'] / 1e9:.0f} (int8) G "
        "multiply-accumulates a second",
        [*headings, "limit ms", "of limit"],
        cells,
    )
    profiles = _profiles(built, inputs, args)
    if args.json:
        settings = {key: value for key, value in vars(args).items() if key != "json"}
        write_json(
            args.json,
            {
                "settings": settings,
                "environment": describe(),
                "models": models,
                "peak_multiply_accumulates_per_second": rates,
                "rows": rows,
                "profiles": profiles,
            },
        )


def _profiles(built: dict[Any, Any], inputs: dict[str, Any], args: Any) -> list[dict[str, Any]]:
    """By layer type, each student before and after."""
    found = []
    for backbone in args.students.split(","):
        shown = {}
        for name in ("fp32", "int8 plain", "int8"):
            graph, _ = built[backbone, name]
            layers = profile(graph, inputs[backbone], target(args.threads))
            shown[name] = {group.name: group for group in layers.by_group()}
            found.append({"backbone": backbone, "variant": name, **layers.as_json()})
        groups = sorted(
            {group for groups in shown.values() for group in groups},
            key=lambda group: -max(g[group].milliseconds for g in shown.values() if group in g),
        )
        table(
            f"{backbone}: ms by layer type",
            ["layer type", *shown],
            [
                [
                    group,
                    *(
                        number(g[group].milliseconds, 2) if group in g else ""
                        for g in shown.values()
                    ),
                ]
                for group in groups
            ],
        )
    for entry in found:
        entry.pop("layers", None)  # hundreds of names; the groups are what is compared
    return found


if __name__ == "__main__":
    with one_line_errors():
        main()
