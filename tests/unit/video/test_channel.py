import threading

import pytest

from kdas_edge.video.channel import Channel


def in_thread(work) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_everything_arrives_in_order_although_the_channel_is_small():
    channel: Channel[int] = Channel(2)

    def put() -> None:
        for number in range(200):
            channel.put(number)
        channel.close()

    thread = in_thread(put)
    assert list(channel) == list(range(200))
    thread.join(5)
    assert channel.dropped == 0 and not thread.is_alive()


def test_who_puts_waits_for_room():
    channel: Channel[int] = Channel(1)
    channel.put(0)
    done = threading.Event()
    thread = in_thread(lambda: (channel.put(1), done.set()))
    assert not done.wait(0.05)
    assert next(iter(channel)) == 0
    assert done.wait(5)
    thread.join(5)


def test_the_newest_wins_and_what_gave_way_is_counted():
    channel: Channel[int] = Channel(1, newest_wins=True)
    for number in range(5):
        assert channel.put(number)
    channel.close()
    assert list(channel) == [4]
    assert channel.dropped == 4


def test_an_error_comes_after_the_items_before_it():
    channel: Channel[int] = Channel(3)
    channel.put(1)
    channel.close(ValueError("the source broke"))
    items = iter(channel)
    assert next(items) == 1
    with pytest.raises(ValueError, match="broke"):
        next(items)


@pytest.mark.parametrize("newest_wins", [False, True])
def test_who_puts_into_an_abandoned_channel_is_told(newest_wins):
    channel: Channel[int] = Channel(1, newest_wins)
    channel.put(0)
    told: list[bool] = []
    thread = in_thread(lambda: told.append(channel.put(1) and channel.put(2)))
    channel.abandon()
    thread.join(5)
    assert not channel.put(3)
    assert list(channel) == []


def test_who_waits_for_an_item_is_woken_by_the_other_end():
    channel: Channel[int] = Channel(1)
    found: list[list[int]] = []
    thread = in_thread(lambda: found.append(list(channel)))
    channel.abandon()
    thread.join(5)
    assert found == [[]]
