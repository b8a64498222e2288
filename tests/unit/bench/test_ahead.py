import threading
import time

import pytest

from kdas_edge.bench.ahead import load_ahead


def test_items_come_in_order_with_what_was_made_of_them():
    assert list(load_ahead(range(20), lambda item: item * item)) == [
        (item, item * item) for item in range(20)
    ]
    assert list(load_ahead([], str)) == []


def test_the_next_item_is_loaded_while_this_one_is_used():
    loaded = threading.Event()

    def load(item):
        if item == 1:
            loaded.set()
        return item

    items = load_ahead(range(3), load)
    assert next(items) == (0, 0)
    assert loaded.wait(10)


def test_only_a_few_items_are_in_memory():
    made = []
    items = load_ahead(range(100), lambda item: made.append(item))
    for used in range(10):
        next(items)
        time.sleep(0.01)
        assert len(made) <= used + 4
    items.close()
    assert len(made) < 20


def test_an_error_comes_at_its_item_and_ends_the_rest():
    made = []

    def load(item):
        if item == 3:
            raise OSError("disc removed")
        made.append(item)
        return item

    items = load_ahead(range(1000), load)
    assert [next(items)[1] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="disc removed"):
        next(items)
    assert len(made) < 10
