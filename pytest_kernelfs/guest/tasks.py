"""Tasks in uninterruptible sleep (state D): which, for how long, and where in the kernel."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from typing import Any, Tuple  # noqa: UP035  (Python 3.8)

from pytest_kernelfs.guest.patience import Patience

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


class Watch:
    """Follows the tasks in state D from one look to the next.

    ``stuck`` are those that stayed in it for ``stuck_after`` seconds without once being scheduled, as they
    were at that moment: dicts as ``stuck()`` gives them, with ``since`` (the time of the look that first
    saw it), and ``seconds`` counted on for as long as it lasts. At most ``most`` are described;
    ``not_described`` counts the others.
    """

    def __init__(self, stuck_after: float, kernel_threads: bool = False, most: int = 50) -> None:
        self.stuck: list[dict[str, Any]] = []
        self.not_described = 0
        self._stuck_after = stuck_after
        self._kernel_threads = kernel_threads
        self._most = most
        self._since: dict[_Task, tuple[float, tuple[str, ...], dict[str, Any] | None]] = {}
        self._kernels_own: set[str] = set()
        self._forget_at = 0.0

    def look(self, now: float) -> tuple[int, float]:
        """How many tasks are in state D now, and for how long the longest of them has been in it."""
        if now >= self._forget_at:
            # Most tasks are the kernel's, which are looked at once a second only: numbers are used again.
            self._kernels_own.clear()
            self._forget_at = now + 1.0
        seen = _sample(self._kernel_threads, kernels_own=self._kernels_own)
        before, self._since = self._since, {}
        longest = 0.0
        for key, switches in seen.items():
            since, last, described = before.get(key, (now, switches, None))
            if last != switches:
                since, described = now, None
            longest = max(longest, now - since)
            if now - since >= self._stuck_after:
                described = described or self._note(key, since)
                described["seconds"] = now - since
            self._since[key] = since, switches, described
        return len(seen), longest

    def _note(self, key: _Task, since: float) -> dict[str, Any]:
        if len(self.stuck) >= self._most:
            self.not_described += 1
            return {}
        described = {**_describe(key, 0.0), "since": since}
        self.stuck.append(described)
        return described


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
