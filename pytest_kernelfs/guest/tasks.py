"""Tasks in uninterruptible sleep (state D): which, for how long, and where in the kernel."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from typing import Any, Tuple  # noqa: UP035  (Python 3.7)

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
    suspects = _sample(kernel_threads)
    while suspects:
        watched = time.monotonic() - start
        if watched >= longer_than:
            return [_describe(key, watched) for key in suspects]
        time.sleep(min(interval, longer_than - watched))
        now = _sample(kernel_threads, only=suspects)
        suspects = {key: seen for key, seen in suspects.items() if now.get(key) == seen}
    return []


def _sample(kernel_threads: bool, only: Iterable[_Task] | None = None) -> dict[_Task, tuple[str, ...]]:
    """(pid, tid, start time) -> context switches, for each task in state D."""
    found: dict[_Task, tuple[str, ...]] = {}
    for pid, tid in _all_tasks() if only is None else [key[:2] for key in only]:
        folder = f"/proc/{pid}/task/{tid}"
        try:
            with open(folder + "/stat", "rb") as file:
                fields = file.read().rsplit(b")", 1)[1].split()
            if fields[0] != b"D" or (int(fields[6]) & _PF_KTHREAD and not kernel_threads):
                continue
            if _waits_in(folder) in _BENIGN:
                continue
            found[pid, tid, int(fields[19])] = _switches(folder)
        except (OSError, IndexError):
            continue  # the task ended while we looked
    return found


def _all_tasks() -> Iterator[tuple[str, str]]:
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                for tid in os.listdir(f"/proc/{pid}/task"):
                    yield pid, tid
            except OSError:
                continue


def _switches(folder: str) -> tuple[str, ...]:
    with open(folder + "/status") as file:
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
        with open(path) as file:
            return file.read().splitlines()
    except OSError:
        return []
