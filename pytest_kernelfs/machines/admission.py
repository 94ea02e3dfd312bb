"""Room for machines: how many may live at once on this host, over all processes of a user.

Each machine holds a slot: a locked file, which the system unlocks when the
process dies. A machine also waits until the host has memory for what a fork
is known to touch, so that many workers on a small host wait for each other
instead of swapping.

Of those who wait, one holds a lock that says so: nobody overtakes them, and
machines that are kept ahead go (see ``spares``).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final

from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.machines.lease import base_folder

# What a fork that does some work takes of its own; idle it is a fifth of that.
_NEEDED = 256 << 20
_MACHINES_PER_CORE = 8
_POLL_S = 0.05
_WAITING = "waiting"

Notice = Callable[[str], None]


@final
class Slot:
    """The right to run one machine, held until it is released."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def release(self) -> None:
        """Give it back; may be called again."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    @contextmanager
    def given_back_on_failure(self) -> Iterator[Slot]:
        """Give it back if the block fails."""
        try:
            yield self
        except BaseException:
            self.release()
            raise


# For a machine whose room somebody else holds.
NO_SLOT = Slot(-1)


@final
class Admission:
    """``limit`` is the most machines at once; None derives it from the host's memory and cores."""

    def __init__(self, memory: int, limit: int | None, notice: Notice) -> None:
        self._limit = limit or default_limit(memory)
        self._notice: Notice | None = notice

    def enter(self, patience: float) -> Slot:
        """Wait up to ``patience`` seconds for room.

        Raises: InfrastructureError if there is none by then.
        """
        deadline = time.monotonic() + patience
        return self.try_enter() or self._wait(deadline, patience)

    def try_enter(self) -> Slot | None:
        """A slot if there is room right now that nobody waits for."""
        return None if somebody_waits() else self._claim()

    def _wait(self, deadline: float, patience: float) -> Slot:
        waiting = _open(_WAITING)
        try:
            while True:
                _lock(waiting)  # unless another who waits has it, by whom we are seen as well
                time.sleep(_POLL_S)  # in which those who waited before have a look
                slot = self._claim()
                if slot is not None:
                    return slot
                reason = self._reason()
                if self._notice is not None:
                    self._notice(f"waiting for room for a machine: {reason}")
                    self._notice = None
                if time.monotonic() > deadline:
                    raise InfrastructureError(
                        f"there was no room for a machine within {patience:g} s: {reason}; run fewer workers "
                        "(-n), give machines less --kernelfs-memory, or end what else uses the memory"
                    )
        finally:
            os.close(waiting)

    def _claim(self) -> Slot | None:
        if available_memory() < _NEEDED:
            return None
        for number in range(self._limit):
            handle = _open(str(number))
            if _lock(handle):
                return Slot(handle)
            os.close(handle)
        return None

    def _reason(self) -> str:
        free = available_memory()
        if free < _NEEDED:
            return f"{free >> 20} MiB of memory are available, a machine needs {_NEEDED >> 20}"
        return f"{self._limit} machines are running, the most for this host (--kernelfs-max-vms)"


def somebody_waits() -> bool:
    """Whether a process of this user, this one included, waits for room right now."""
    handle = _open(_WAITING)
    try:
        return not _lock(handle, fcntl.LOCK_SH)  # who asks is in nobody's way
    finally:
        os.close(handle)


def _open(name: str) -> int:
    folder = base_folder() / "slots"
    folder.mkdir(mode=0o700, exist_ok=True)
    return os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _lock(handle: int, how: int = fcntl.LOCK_EX) -> bool:
    """Lock a file until it is closed; False if somebody else holds it. Again is no error."""
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def default_limit(memory: int) -> int:
    """As many machines of ``memory`` bytes as four fifths of the host's memory could hold, within reason."""
    fit = int(_meminfo("MemTotal") * 0.8) // memory
    return max(2, min(fit, _MACHINES_PER_CORE * (os.cpu_count() or 1)))


def available_memory() -> int:
    """Bytes that the host, or the control group we run in, can still give."""
    return min(_meminfo("MemAvailable"), _cgroup_room())


def _meminfo(name: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    return 1 << 62


def _cgroup_room() -> int:
    """What memory.max of our control group leaves; containers are limited that way."""
    folder = Path("/sys/fs/cgroup")
    try:
        most = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        reclaimable = sum(
            int(line.split()[1])
            for line in (folder / "memory.stat").read_text().splitlines()
            if line.startswith("inactive_file ")
        )
    except (OSError, ValueError):
        return 1 << 62
    return int(most) - used + reclaimable if most.isdecimal() else 1 << 62
