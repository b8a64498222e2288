"""A bounded queue between two threads that can be closed, abandoned, or drop its oldest item."""

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Channel(Generic[T]):
    """One thread puts, another iterates.

    Attributes:
        dropped: items that gave way to newer ones.
    """

    def __init__(self, capacity: int, newest_wins: bool = False) -> None:
        """Make an empty channel.

        Args:
            capacity: most items that wait, at least 1.
            newest_wins: `put` never waits: when the channel is full, the oldest item is dropped.
        """
        self.dropped = 0
        self._capacity = capacity
        self._newest_wins = newest_wins
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._abandoned = False
        self._error: BaseException | None = None

    def put(self, item: T) -> bool:
        """Add an item, waiting for room if nothing may be dropped.

        Returns:
            False if the other end has abandoned the channel.
        """
        with self._changed:
            if self._newest_wins:
                if len(self._items) >= self._capacity and not self._abandoned:
                    self._items.popleft()
                    self.dropped += 1
            else:
                self._changed.wait_for(lambda: len(self._items) < self._capacity or self._abandoned)
            if self._abandoned:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def close(self, error: BaseException | None = None) -> None:
        """Say that no item will follow, because of the error if one is given."""
        with self._changed:
            self._closed = True
            self._error = error
            self._changed.notify_all()

    def abandon(self) -> None:
        """Say that no item will be taken any more; a waiting `put` returns."""
        with self._changed:
            self._abandoned = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        """Take the items until the channel is closed and empty, then raise its error, if any."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._closed or self._abandoned)
                if not self._items:
                    if self._error is not None:
                        raise self._error
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
