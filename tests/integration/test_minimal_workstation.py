"""A machine with the extra `distill` alone trains and distils: no NNCF, no runtime, no exporter."""

import subprocess
import sys
from pathlib import Path

from hidden_modules import without

ROOT = Path(__file__).resolve().parents[2]
LACKING = (
    "nncf", "openvino", "onnxruntime", "onnx", "onnxscript", "torchao", "cyclonedx", "altair",
    "jinja2", "vl_convert", "highdicom", "pydicom",
)  # fmt: skip
SCRIPT = (
    without(LACKING)
    + """
from kdas_edge.cli import main
for words in sys.argv[1].split(";"):
    sys.argv = ["kdas-edge", *words.split()]
    try:
        main()
    except SystemExit as end:
        if end.code:
            sys.exit(f"{words}: exit {end.code}")
"""
)


def test_train_distil_and_evaluate_without_what_a_gpu_machine_lacks(
    scenes: Path, tmp_path: Path
) -> None:
    common = (
        f"--data {scenes} --out {tmp_path} engine.threads=1 data.size=64 "
        "model.backbone=mobilenetv2_100 model.width=16 model.pretrained=false "
        "schedule.epochs=1 schedule.batch_size=8"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            SCRIPT,
            f"train --name teacher {common};"
            f"distill --name student --teacher {tmp_path}/teacher loss.variant=kdas {common};"
            f"eval {tmp_path}/student --data {scenes}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "student/checkpoints/best.safetensors").is_file()
