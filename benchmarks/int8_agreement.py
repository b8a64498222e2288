"""Are the int8 model in torch, in OpenVINO and in ONNX Runtime one model, with and without VNNI?

A quantised run is exported, and its masks are compared on real frames, spread evenly over the test
sets and the validation images: pixels that differ from the fake-quantised torch network, and Dice
against the ground truth. The limits: 0.5 % of the pixels on average, 0.002 of Dice.

    python benchmarks/int8_agreement.py --int8 runs/student_int8 --data DATA \\
        --json benchmarks/results/int8_agreement.json
"""

import argparse
import tempfile
from pathlib import Path

from agreement_common import HEADINGS, cells, measure, read_frames

from kdas_edge.console import table
from kdas_edge.environment import describe
from kdas_edge.files import write_json
from kdas_edge.process import one_line_errors
from kdas_edge.quantize.qat import load_quantized


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--int8", type=Path, required=True, help="run of kdas-edge quantize")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    quantized = load_quantized(args.int8)
    architecture = quantized.architecture
    with tempfile.TemporaryDirectory(prefix="kdas-edge-agreement-") as scratch:
        folder = Path(scratch)
        frames = read_frames(args.data, args.int8, args.frames, architecture, folder)
        found = measure(quantized, architecture, frames, args.threads, folder)

    count = len(frames.names)
    title = (
        f"{args.int8.name}, {architecture.backbone}, {architecture.size} px, {count} frames, "
        f"against fake-quantised torch (Dice {found['torch']['dice']:.4f})"
    )
    rows = [cells(name, path) for name, path in found["paths"].items()]
    rows.append(cells("openvino against onnxruntime", found["openvino_against_onnxruntime"]))
    table(title, HEADINGS, rows)
    print(f"not switchable: {found['not_switchable']}")
    if args.json:
        result = {
            "run": args.int8.name,
            "backbone": architecture.backbone,
            "size": architecture.size,
            "frames": frames.names,
            "environment": describe(),
            **found,
        }
        write_json(args.json, result)


if __name__ == "__main__":
    with one_line_errors():
        main()
