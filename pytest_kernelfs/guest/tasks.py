"""Tasks in uninterruptible sleep (state D): which, for how long, and where in the kernel."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from typing import Any, Tuple  # noqa: UP035  (Python 3.8)

from pytest_kernelfs.guest.patience import Patience, Steps

_Task = Tuple[str, str, int]  # noqa: UP006   # pid, tid, start time

_PF_KTHREAD = 0x00200000
# A parent that waits for its vfork child shows state D and is well.
_BENIGN = ("kernel_clone", "_do_fork", "do_fork")


def stuck(longer_than: float, interval: float = 0.05, kernel_threads: bool = False) -> list[dict[str, Any]]:
    """The tasks that stay in state D, without once being scheduled, for ``longer_than`` seconds from now.

    A task is told from a later one with its number by its start time, and is stuck only if neither its
    voluntary nor its involuntary context switches move: equal states in two samples prove nothing.
    Returns as soon as no task can qualify any more. Gives dicts: ``tid``, ``pid``, ``comm``, ``seconds``,
    ``wchan``, ``syscall``, ``stack`` (a list of lines).
    """
    start = time.monotonic()
    waiting = Patience(longer_than, interval)
    suspects = _sample(kernel_threads)
    while suspects:
        if not waiting.wait():
            watched = time.monotonic() - start
            return [_describe(key, watched) for key in suspects]
        now = _sample(kernel_threads, only=suspects)
        suspects = {key: seen for key, seen in suspects.items() if now.get(key) == seen}
    return []


class _Wait:
    """One task's time in state D, from the look that first saw it to the last that saw it not scheduled."""

    def __init__(self, since: float, switches: tuple[str, ...]) -> None:
        self.since = self.until = since
        self.switches = switches
        self.seconds = 0.0
        self.described: dict[str, Any] | None = None
        self.is_stuck = False
        self._longest_step = 0.0

    def go_on(self, now: float, step: float, stuck_after: float) -> None:
        """It is as it was ``step`` seconds ago."""
        self.until = now
        self.seconds += step
        self._longest_step = max(self._longest_step, step)
        # A step may be so long because the machine stood still: none proves it without others.
        beside_it = self.seconds - self._longest_step
        self.is_stuck = self.seconds >= stuck_after and beside_it >= stuck_after / 2


class Watch:
    """Follows the tasks in state D from one look to the next, which are about ``step`` seconds apart.

    Told are those that stayed in it for ``stuck_after`` seconds without once being scheduled. What the
    machine stood still does not count, see ``patience.Steps``.
    """

    def __init__(
        self, stuck_after: float, kernel_threads: bool = False, most: int = 50, step: float = 0.1
    ) -> None:
        self._stuck_after = stuck_after
        self._kernel_threads = kernel_threads
        self._most = most
        self._steps = Steps(step)
        self._waits: dict[_Task, _Wait] = {}
        self._told: list[_Wait] = []
        self._count = 0
        self._kernels_own: set[str] = set()
        self._forget_at = 0.0

    @property
    def stuck(self) -> list[dict[str, Any]]:
        """Those that were stuck, as they were when they were found to be: dicts as ``stuck()`` gives them.

        With ``since``, the time of the look that first saw it, and ``seconds``, for as long as it lasted. At
        most ``most``: of more those that lasted longest.
        """
        return [
            {**(wait.described or {}), "since": wait.since, "seconds": wait.seconds} for wait in self._told
        ]

    @property
    def not_described(self) -> int:
        """How many more were stuck."""
        return self._count - len(self._told)

    def look(self, now: float) -> tuple[int, float]:
        """How many tasks are in state D now, and for how long the longest of them has been in it."""
        if now >= self._forget_at:
            # Most tasks are the kernel's, which are looked at once a second only: numbers are used again.
            self._kernels_own.clear()
            self._forget_at = now + 1.0
        step = self._steps.passed(now)
        before, self._waits = self._waits, {}
        for key, switches in _sample(self._kernel_threads, kernels_own=self._kernels_own).items():
            wait = before.get(key)
            if wait is None or wait.switches != switches:
                wait = _Wait(now, switches)
            else:
                was_stuck = wait.is_stuck
                wait.go_on(now, step, self._stuck_after)
                if wait.is_stuck and not was_stuck:
                    self._count += 1
            self._waits[key] = wait
        for key, wait in self._waits.items():
            if wait.is_stuck and wait.described is None and self._has_room(wait.seconds, now):
                wait.described = _describe(key, wait.seconds)
                self._told.append(wait)
        return len(self._waits), max((wait.seconds for wait in self._waits.values()), default=0.0)

    def _has_room(self, seconds: float, now: float) -> bool:
        """Whether one that lasts for so long can be told: the shortest that is over makes way for it."""
        if len(self._told) < self._most:
            return True
        over = [wait for wait in self._told if wait.until < now]
        shortest = min(over, key=lambda wait: wait.seconds, default=None)
        if shortest is None or shortest.seconds >= seconds:
            return False
        self._told.remove(shortest)
        return True


def _sample(
    kernel_threads: bool, only: Iterable[_Task] | None = None, kernels_own: set[str] | None = None
) -> dict[_Task, tuple[str, ...]]:
    """(pid, tid, start time) -> context switches, for each task in state D.

    What is in ``kernels_own`` is passed over, and kernel threads that are not looked for are added to it.
    """
    found: dict[_Task, tuple[str, ...]] = {}
    own: set[str] = set() if kernels_own is None else kernels_own
    for pid, tid, fields in _every_task(kernel_threads, own) if only is None else _again(only):
        if not fields or fields[0] != b"D":
            continue
        folder = f"/proc/{pid}/task/{tid}"
        try:
            benign = _waits_in(folder) in _BENIGN
            # Once more, because one that has gone on meanwhile waits nowhere.
            if not benign and _fields(folder + "/stat")[:1] == [b"D"]:
                found[pid, tid, int(fields[19])] = _switches(folder)
        except OSError:
            continue  # the task ended while we looked
    return found


def _every_task(kernel_threads: bool, kernels_own: set[str]) -> Iterator[tuple[str, str, list[bytes]]]:
    """(pid, tid, fields) of all tasks. A machine has many: what is not needed is not read."""
    for pid in os.listdir("/proc"):
        if not pid.isdigit() or pid in kernels_own:
            continue
        fields = _fields(f"/proc/{pid}/stat")
        if fields and int(fields[6]) & _PF_KTHREAD and not kernel_threads:
            kernels_own.add(pid)
        elif fields and fields[17] == b"1":
            yield pid, pid, fields
        else:
            for tid in _threads(pid):
                yield pid, tid, _fields(f"/proc/{pid}/task/{tid}/stat")


def _again(tasks: Iterable[_Task]) -> Iterator[tuple[str, str, list[bytes]]]:
    for pid, tid, _ in tasks:
        yield pid, tid, _fields(f"/proc/{pid}/task/{tid}/stat")


def _threads(pid: str) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def _fields(path: str) -> list[bytes]:
    """What stands behind the command in a stat file, the state first; nothing of a task that has ended."""
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            return os.read(handle, 4096).rpartition(b")")[2].split()
        finally:
            os.close(handle)
    except OSError:
        return []


def _switches(folder: str) -> tuple[str, ...]:
    with open(folder + "/status", errors="replace") as file:
        return tuple(line.split()[1] for line in file if "ctxt_switches" in line)


def _describe(key: _Task, seconds: float) -> dict[str, Any]:
    # Never cmdline or maps: they take the lock of the task's memory, which a stuck task may hold.
    pid, tid, _start = key
    folder = f"/proc/{pid}/task/{tid}"
    return {
        "pid": int(pid),
        "tid": int(tid),
        "comm": _first_line(folder + "/comm"),
        "seconds": seconds,
        "wchan": _waits_in(folder),
        "syscall": _first_line(folder + "/syscall"),
        "stack": _lines(folder + "/stack"),
    }


def _waits_in(folder: str) -> str:
    """The kernel function that a task waits in; 5.10 has "0" in wchan, but tells it in the stack."""
    wchan = _first_line(folder + "/wchan")
    if wchan not in ("", "0"):
        return wchan
    top = _first_line(folder + "/stack")
    return top.split("] ", 1)[-1].split("+", 1)[0]


def _first_line(path: str) -> str:
    lines = _lines(path)
    return lines[0] if lines else ""


def _lines(path: str) -> list[str]:
    try:
        with open(path, errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []
