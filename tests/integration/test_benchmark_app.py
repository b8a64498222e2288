"""OpenVINO's own benchmark_app, on the same model and settings, finds the same median."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import yaml
from openvino import opset13 as ops

from kdas_edge.bench.candidates import BenchCandidate, TimedFrame
from kdas_edge.bench.peers import open_peer
from kdas_edge.bench.timing import model_only
from kdas_edge.latency import Warmup, measure
from kdas_edge.runtime.backends import open_backend
from kdas_edge.runtime.targets import parse_target

# many short runs: another load comes and goes within seconds, and moves a median by a third
SIZE, CHANNELS, ROUNDS, ATTEMPTS = 144, 32, 25, 24
APP = shutil.which("benchmark_app", path=str(Path(sys.executable).parent)) or shutil.which(
    "benchmark_app"
)


@pytest.fixture(scope="module")
def row(tmp_path_factory):
    """Some milliseconds of 3×3 convolutions, as a peer on one thread."""
    folder = tmp_path_factory.mktemp("app")
    rng = np.random.default_rng(0)
    x = node = ops.parameter([1, 3, SIZE, SIZE], np.float32, name="x")
    for before, after in ((3, CHANNELS), (CHANNELS, CHANNELS), (CHANNELS, CHANNELS), (CHANNELS, 1)):
        kernel = rng.normal(0, 0.05, (after, before, 3, 3)).astype(np.float32)
        node = ops.convolution(node, ops.constant(kernel), [1, 1], [1, 1], [1, 1], [1, 1])
        node = ops.relu(node) if after > 1 else node
    ov.save_model(ov.Model([node], [x], "stack"), folder / "net.xml", compress_to_fp16=False)
    (folder / "net.yaml").write_text(yaml.safe_dump({"size": SIZE, "output": "logits"}))
    target = parse_target("openvino:CPU:threads=1")
    peer = open_peer(folder / "net.xml", folder / "net.yaml")
    candidate = BenchCandidate.of("net", "peer", "fp32", target, peer)
    candidate.backend = open_backend(peer, "fp32", target)
    return candidate


def ours(row) -> float:
    frames = [TimedFrame(np.zeros((SIZE, SIZE, 3), dtype=np.uint8))]
    candidate = {"net": model_only(row, frames)}
    return 1e3 * measure(candidate, ROUNDS, warmup=Warmup(10, 40))["net"].percentile(50)


def theirs(row) -> float:
    done = subprocess.run(
        [APP, "-m", str(row.bundle.path / "net.xml"), "-d", "CPU", "-api", "sync", "-hint", "none",
         "-nstreams", "1", "-nthreads", "1", "-infer_precision", "f32", "-b", "1",
         "-niter", str(ROUNDS)],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return float(re.search(r"Median:\s*([\d.]+) ms", done.stdout)[1])


@pytest.mark.alone
@pytest.mark.skipif(APP is None, reason="OpenVINO's benchmark_app is not on the path")
def test_the_median_is_that_of_benchmark_app_within_five_per_cent(row):
    assert row.backend.effective["threads"] == 1 and row.backend.effective["precision"] == "f32"
    mine, reference = [], []
    for _ in range(ATTEMPTS):
        # in turns, and of each the median that was least disturbed: what another load adds, it adds
        # to some of them only; a difference of the two programs stays in all. As many of theirs as
        # of ours: the least of more draws is lower
        mine.append(ours(row))
        reference += [theirs(row), theirs(row)]
        mine.append(ours(row))
        if abs(min(mine) / min(reference) - 1) <= 0.05:
            return
    pytest.fail(f"never within 5 %, medians in ms: ours {mine}, benchmark_app {reference}")
