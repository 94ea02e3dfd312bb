"""What arrives on a channel is kept until it is taken."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pytest_kernelfs.guest.exchange import Exchange, Inbox


class Channel:
    def __init__(self) -> None:
        self.sent: list[Any] = []

    def setcallback(self, callback: Callable[[Any], None], endmarker: object) -> None:
        self.receive, self.end = callback, endmarker

    def send(self, item: Any) -> None:
        self.sent.append(item)


def is_readable(inbox: Inbox) -> bool:
    return bool(select.select([inbox], [], [], 0)[0])


@pytest.fixture
def channel() -> Channel:
    return Channel()


@pytest.fixture
def inbox(channel: Channel) -> Iterator[Inbox]:
    inbox = Inbox(channel)
    yield inbox
    inbox.close()


def test_it_is_readable_while_something_waits(channel: Channel, inbox: Inbox) -> None:
    assert not is_readable(inbox)
    channel.receive(1)
    channel.receive(2)
    assert is_readable(inbox)
    assert inbox.take() == [1, 2]
    assert not is_readable(inbox)
    assert inbox.take() == []
    assert not inbox.ended


def test_the_end_comes_after_the_last_item(channel: Channel, inbox: Inbox) -> None:
    channel.receive(1)
    channel.receive(channel.end)
    assert is_readable(inbox)
    assert not inbox.ended
    assert inbox.take() == [1]
    assert inbox.ended


def test_any_number_of_items_may_wait(channel: Channel, inbox: Inbox) -> None:
    for number in range(100_000):
        channel.receive(number)
    assert inbox.take() == list(range(100_000))
    channel.receive("more")
    assert is_readable(inbox)


def test_what_arrives_after_it_was_closed_harms_nobody(channel: Channel, inbox: Inbox) -> None:
    inbox.close()
    channel.receive("late")
    inbox.close()


def test_the_guests_items_are_told_from_its_answer(channel: Channel) -> None:
    exchange = Exchange(channel)
    exchange.send(("out", b"text"))
    exchange.inbox.close()
    assert channel.sent == [("item", ("out", b"text"))]
