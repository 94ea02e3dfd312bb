"""What arrives on a channel of execnet, for a loop that waits for other things as well; at both its ends."""

from __future__ import annotations

import collections
import os
import threading
from typing import Any

_END = object()


class Inbox:
    """Keeps what a channel receives until it is taken; ``fileno`` is readable when there is something.

    ``ended`` is true once all is taken of a channel that was closed.
    """

    def __init__(self, channel: Any) -> None:
        self._items: collections.deque[Any] = collections.deque()
        self._guard = threading.Lock()
        self._readable, self._writable = os.pipe()
        os.set_blocking(self._readable, False)
        os.set_blocking(self._writable, False)
        self._open = True
        self.ended = False
        channel.setcallback(self._arrived, _END)

    def _arrived(self, item: Any) -> None:
        """Called by the thread that reads the channel."""
        with self._guard:
            self._items.append(item)
            if self._open:
                try:
                    os.write(self._writable, b"\0")
                except BlockingIOError:
                    pass  # it is readable already

    def fileno(self) -> int:
        return self._readable

    def take(self) -> list[Any]:
        """All that has arrived since, without waiting for more."""
        with self._guard:
            try:
                os.read(self._readable, 1 << 16)
            except BlockingIOError:
                pass
            items = list(self._items)
            self._items.clear()
        if items and items[-1] is _END:
            self.ended = True
            items.pop()
        return items

    def close(self) -> None:
        with self._guard:
            if self._open:
                self._open = False
                os.close(self._readable)
                os.close(self._writable)


class Exchange:
    """The guest's end of a call in which items go both ways."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self.inbox = Inbox(channel)

    def send(self, item: Any) -> None:
        self._channel.send(("item", item))
