"""Freed memory is given back to the system."""

import ctypes
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_bundle import make_tiny_bundle

from kdas_edge.bench.memory import resident_bytes
from kdas_edge.runtime.memory import trim_heap

SWAP = """
import sys
import threading
import numpy as np
from kdas_edge.bench.memory import resident_bytes
from kdas_edge.runtime import Segmenter
frame = np.zeros((2160, 3840, 3), np.uint8)
with Segmenter.load(sys.argv[1], target="openvino:CPU:threads=1") as segmenter:
    done = threading.Event()

    def stream():
        while not done.is_set():
            segmenter.segment(frame)

    frames = threading.Thread(target=stream)
    frames.start()
    sizes = []
    for _ in range(6):
        segmenter.swap(sys.argv[1])
        sizes.append(resident_bytes())
    done.set()
    frames.join()
# the first swap also brings what is loaded once
print(max(sizes[1:]) - min(sizes[1:]), sizes[-1] - sizes[0])
"""
BLOCK, COUNT = 100_000, 1000  # below the size from which glibc maps a block of its own


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has malloc_trim")
def test_pages_under_a_block_in_use_are_given_back() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    blocks = [libc.malloc(BLOCK) for _ in range(COUNT)]
    for block in blocks:
        ctypes.memset(block, 1, BLOCK)
    pin = libc.malloc(BLOCK)  # the heap cannot shrink from its end
    for block in blocks:
        libc.free(ctypes.c_void_p(block))
    before = resident_bytes()
    trim_heap()
    after = resident_bytes()
    libc.free(ctypes.c_void_p(pin))
    assert before is not None and after is not None
    assert before - after > BLOCK * COUNT // 2


def test_it_may_be_called_anywhere_at_any_time() -> None:
    trim_heap()
    trim_heap()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has malloc_trim")
def test_a_swap_gives_the_buffers_of_the_old_model_back_while_frames_go_on(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny")
    done = subprocess.run([sys.executable, "-c", SWAP, bundle], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # of a frame of 4K the buffers are 100 MB
    assert all(int(size) < 20e6 for size in done.stdout.split()), done.stdout
