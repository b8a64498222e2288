"""A host that embeds the segmenter starts quickly; a runtime is imported when a target needs it."""

import subprocess
import sys

SCRIPT = """
import time
begun = time.thread_time()
from kdas_edge.runtime import Segmenter
taken = time.thread_time() - begun
import sys
heavy = {"torch", "timm", "nncf", "openvino", "onnxruntime", "onnx", "scipy", "typer", "rich", "av"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
print(taken)
"""


def test_the_segmenter_is_imported_in_half_a_second():
    # its time on the processor: what the clock shows on a machine with nothing else to do, where
    # numpy starts its threads beside it
    taken = []
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        taken.append(float(done.stdout))
        if taken[-1] < 0.5:
            break
    assert min(taken) < 0.5, taken
