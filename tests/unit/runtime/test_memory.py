"""Freed memory is given back to the system."""

import ctypes
import platform

import pytest

from kdas_edge.bench.memory import resident_bytes
from kdas_edge.runtime.memory import trim_heap

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
