"""Where threads of this process wait in the kernel, looked at now and then while they do."""

from __future__ import annotations

import os
from typing import Any, Tuple  # noqa: UP035  (Python 3.8)

_Place = Tuple[str, Tuple[str, ...]]  # noqa: UP006   # function, its callers

# A look at one thread reads three files, during which others may want the interpreter.
_MOST_AT_ONCE = 8
_MOST_CALLERS = 5
# A thread that has come back from its system call waits here for the interpreter.
_OUR_OWN = "futex"


class Waits:
    """Notes at each look in which kernel function the threads are that are under way.

    Threads are told by a number that the caller gives them. Of many, a few are looked at each time, in turn.
    """

    def __init__(self) -> None:
        self._under_way: dict[int, str] = {}
        self._seen: dict[int, dict[_Place, int]] = {}
        self._turn = 0

    def begin(self, number: int) -> None:
        """The calling thread is under way from now on."""
        self._under_way[number] = "/proc/" + os.readlink("/proc/thread-self")

    def end(self, number: int) -> None:
        del self._under_way[number]

    def look(self) -> None:
        threads = list(self._under_way.items())
        if not threads:
            return
        first = self._turn % len(threads)
        self._turn += _MOST_AT_ONCE
        for number, folder in (threads[first:] + threads[:first])[:_MOST_AT_ONCE]:
            place = _place(folder)
            if number in self._under_way and place[0] and not place[0].startswith(_OUR_OWN):
                counts = self._seen.setdefault(number, {})
                counts[place] = counts.get(place, 0) + 1

    def most(self, number: int) -> dict[str, Any]:
        """Where that thread was seen most: ``place``, ``times`` there, all ``looks`` at it, ``callers``.

        Empty if it was never seen to wait.
        """
        counts = self._seen.get(number)
        if not counts:
            return {}
        place, callers = max(counts, key=lambda seen: counts[seen])
        times = counts[place, callers]
        return {"place": place, "times": times, "looks": sum(counts.values()), "callers": list(callers)}


def _place(folder: str) -> _Place:
    """The function that a thread waits in, and those that called it; "" if it has ended."""
    state = _read(folder + "/stat").rpartition(")")[2].split()[:1]
    if state == ["R"]:
        return "no function: it was running", ()
    frames = [line.split("] ", 1)[-1].split("+", 1)[0] for line in _read(folder + "/stack").splitlines()]
    place = _read(folder + "/wchan").strip()
    # 5.10 has "0" there, but tells it in the stack.
    if place in ("", "0"):
        place = frames[0] if frames else ""
    callers = frames[frames.index(place) + 1 :] if place in frames else frames
    return place, tuple(callers[:_MOST_CALLERS])


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""
