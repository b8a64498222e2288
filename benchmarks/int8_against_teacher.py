"""How much faster is the paper's int8 student than its fp32 teacher? Random weights, one thread.

Speed does not depend on what a network has learnt, so that no training is needed: PVTv2-B2 in fp32
against PVTv2-B0 and MobileNetV2 students in fp32 and int8 (post-training), OpenVINO, 352×352, one
thread, explicit fp32 arithmetic for what is not quantised, all candidates interleaved.

    python benchmarks/int8_against_teacher.py --json benchmarks/results/int8_against_teacher.json
"""

import argparse
from pathlib import Path

import numpy as np
import openvino as ov
import torch

from kdas_edge.console import info, table
from kdas_edge.data.synthetic import scene
from kdas_edge.distill.engine import normalise
from kdas_edge.environment import describe
from kdas_edge.export.openvino import to_openvino
from kdas_edge.files import write_json
from kdas_edge.latency import Latency, measure, speedup
from kdas_edge.models.zoo import build, multiply_accumulates, parameters
from kdas_edge.quantize.ptq import post_training_quantize
from kdas_edge.recipe import ModelRecipe, PtqRecipe


def compile_model(model: ov.Model, threads: int) -> ov.CompiledModel:
    return ov.Core().compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=352)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--teacher", default="pvt_v2_b2")
    parser.add_argument("--students", default="pvt_v2_b0,mobilenetv2_100")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.manual_seed(0)

    candidates, models = {}, {}
    for backbone in (args.teacher, *args.students.split(",")):
        network, architecture = build(ModelRecipe(backbone=backbone), args.size)
        network.eval()
        models[backbone] = {
            "parameters": parameters(network),
            "multiply_accumulates": multiply_accumulates(network, args.size),
        }
        frames = torch.stack(
            [torch.from_numpy(scene(seed, args.size)[0]).permute(2, 0, 1) for seed in range(8)]
        )
        samples = [normalise(frame[None] / 255, architecture) for frame in frames]
        x = np.ascontiguousarray(samples[0].numpy())
        graphs = {"fp32": to_openvino(network, args.size)}
        if backbone != args.teacher:
            kind = "transformer" if backbone.startswith("pvt") else "none"
            quantized = post_training_quantize(network, samples, PtqRecipe(model_type=kind))
            graphs["int8"] = to_openvino(quantized, args.size)
        for precision, graph in graphs.items():
            request = compile_model(graph, args.threads).create_infer_request()
            candidates[f"{backbone} {precision}"] = lambda r=request, x=x: r.infer(
                [x], share_inputs=True, share_outputs=True
            )
            info(f"ready: {backbone} {precision}")

    results = measure(candidates, args.iterations, 600)
    reference = results[f"{args.teacher} fp32"]
    assert isinstance(reference, Latency)
    rows, cells = [], []
    for name, result in results.items():
        assert isinstance(result, Latency), result
        ratio = speedup(reference, result)
        own = results[f"{name.split()[0]} fp32"]
        assert isinstance(own, Latency)
        against_own = speedup(own, result)
        rows.append(
            {
                "name": name,
                "latency": result.as_json(),
                "against_teacher_fp32": ratio.as_json(),
                "against_own_fp32": against_own.as_json(),
            }
        )
        cells.append(
            [
                name,
                f"{result.percentile(50) * 1e3:.1f}",
                f"{result.percentile(90) * 1e3:.1f}",
                f"{ratio.value:.2f} ({ratio.low:.2f}–{ratio.high:.2f})",
                f"{against_own.value:.2f}",
            ]
        )
    title = f"OpenVINO CPU, {args.threads} thread, {args.size}×{args.size}, random weights"
    table(title, ["model", "p50 ms", "p90 ms", "× teacher fp32 (95 %)", "× own fp32"], cells)
    if args.json:
        settings = {key: value for key, value in vars(args).items() if key != "json"}
        result = {"settings": settings, "environment": describe(), "models": models, "rows": rows}
        write_json(args.json, result)


if __name__ == "__main__":
    main()
