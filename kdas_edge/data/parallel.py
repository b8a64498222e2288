"""Reading and writing many files with threads: decoding releases the interpreter lock."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from kdas_edge.console import progress
from kdas_edge.environment import usable_cpus

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# more threads than this wait for the disk, and hold images in memory meanwhile
WORKERS = min(8, usable_cpus())


def parallel_map(
    function: Callable[[_Item], _Result],
    items: Sequence[_Item],
    description: str,
    workers: int = WORKERS,
) -> list[_Result]:
    """Apply a function to all items with threads and a progress bar; results in their order.

    The first error cancels what has not begun and is raised.
    """
    results: list[_Result] = []
    with (
        ThreadPoolExecutor(max(1, workers)) as pool,
        progress(len(items), description) as advance,
    ):
        for result in pool.map(function, items):
            results.append(result)
            advance()
    return results
