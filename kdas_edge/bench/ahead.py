"""Reading the next image while the model is busy with this one."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")

# one is used, one is ready, one is being made; memory holds no more
_DEPTH = 2


def load_ahead(
    items: Iterable[Item], load: Callable[[Item], Loaded]
) -> Iterator[tuple[Item, Loaded]]:
    """Yield each item with what `load` makes of it, loaded in a second thread, in order.

    Decoding and filters release Python's lock, so that on two cores they cost an accuracy pass no
    time of its own.

    Args:
        items: for example pairs of files.
        load: called in one other thread, in the order of the items.

    Raises:
        Exception: what `load` raised, when its item is due.
    """
    waiting: deque[tuple[Item, Future[Loaded]]] = deque()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead") as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(load, item)))
                if len(waiting) > _DEPTH:
                    ready, future = waiting.popleft()
                    yield ready, future.result()
            while waiting:
                ready, future = waiting.popleft()
                yield ready, future.result()
        finally:
            # an error, or a caller that stops early, must not wait for what is not needed
            for _, future in waiting:
                future.cancel()
