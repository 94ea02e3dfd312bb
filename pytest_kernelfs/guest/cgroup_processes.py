"""The processes of cgroups: started in one, frozen, killed, waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from functools import partial

from pytest_kernelfs.guest import attributes, oom
from pytest_kernelfs.guest.cgroup_entry import Entry
from pytest_kernelfs.guest.dispatch import GuestError
from pytest_kernelfs.guest.patience import Patience

_POLL_S = 0.005
_LOOK_S = 0.1
_FREEZE_S = 2.0

_started: dict[int, subprocess.Popen[bytes]] = {}
# Killed, and not asked for again; they stay until they were seen to end.
_forgotten: list[subprocess.Popen[bytes]] = []


def start(
    folders: list[str], command: str | list[str], output: str, cwd: str | None, env: dict[str, str] | None
) -> int:
    """Start a command in the cgroup and leave it running; gives its process number.

    What it prints goes to ``output``.out and ``output``.err.
    """
    os.makedirs(os.path.dirname(output), exist_ok=True)
    entry = Entry(folders)
    try:
        with open(output + ".out", "wb") as out, open(output + ".err", "wb") as err, oom.expendable(), entry:
            process = subprocess.Popen(
                ["/bin/sh", "-c", command] if isinstance(command, str) else command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                cwd=cwd,
                env=dict(os.environ, **(env or {})),
                preexec_fn=entry.enter,
            )
    except subprocess.SubprocessError:
        raise GuestError(entry.refusal) from None
    except OSError as error:
        raise GuestError(f"cannot start {command!r}: {error.strerror}") from None
    _started[process.pid] = process
    return process.pid


def wait(pid: int, timeout: float) -> list[float | None]:
    """The exit code of a process that ``start`` gave, and the seconds of waiting for it.

    The code is negative for a signal, and None if it runs on. Raises: GuestError for another process.
    """
    start_s = time.monotonic()
    process = _started.get(pid)
    if process is None:
        raise GuestError(f"process {pid} was not started by this conversation with the machine")
    waiting = Patience(timeout, _LOOK_S)
    rc = process.poll()
    while rc is None and waiting.wait(partial(_await_end, process)):
        rc = process.poll()
    return [rc, time.monotonic() - start_s]


def _await_end(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        pass


def forget(pid: int, output: str) -> None:
    """Kill a process that ``start`` gave, if it still runs, and remove what it printed.

    It is not waited for: frozen in a version 1 cgroup, it ends when that is thawed to be removed.
    """
    process = _started.pop(pid, None)
    if process is not None and process.poll() is None:
        process.kill()
        _forgotten.append(process)
    for end in (".out", ".err"):
        try:
            os.unlink(output + end)
        except FileNotFoundError:
            pass


def add(folders: list[str], pid: int) -> None:
    """Move a process into a cgroup. Raises: GuestError."""
    if pid == os.getpid():
        raise GuestError(
            f"process {pid} serves this machine's calls, as those of vm.call: in a cgroup that is frozen, "
            "short of memory or removed it would answer none; start or fork a process for it"
        )
    for folder in folders:
        try:
            attributes.write(folder + "/cgroup.procs", str(pid))
        except OSError as error:
            raise GuestError(f"process {pid} cannot enter the cgroup {folder}: {error.strerror}") from None


def all_pids(folders: list[str], below: bool = True) -> list[int]:
    """The processes in the cgroups, and in those below them."""
    found: set[int] = set()
    for folder in folders:
        for path, _names, _files in os.walk(folder):
            found.update(int(pid) for pid in _text(path + "/cgroup.procs").split())
            if not below:
                break
    return sorted(found)


def freeze(folders: list[str], frozen: bool, timeout: float) -> None:
    """Freeze or thaw, and wait until it is done. Raises: GuestError."""
    folder = _freezer(folders)
    if folder is None:
        raise GuestError(
            f"{folders[0]} cannot be frozen: it has neither cgroup.freeze (version 2) nor the controller "
            f"freezer (version 1) on kernel {os.uname().release}"
        )
    if not _freeze(folder, frozen, timeout):
        wanted = "frozen" if frozen else "thawed"
        raise GuestError(
            f"{folder} was not {wanted} within {timeout:g} s; in it: {describe(all_pids([folder]))}"
        )


def _freezer(folders: list[str]) -> str | None:
    files = ("cgroup.freeze", "freezer.state")
    return next((path for path in folders if any(os.path.exists(f"{path}/{file}") for file in files)), None)


def _freeze(folder: str, frozen: bool, timeout: float) -> bool:
    waiting = Patience(timeout, _POLL_S)
    while True:
        if os.path.exists(folder + "/cgroup.freeze"):
            _set(folder + "/cgroup.freeze", str(int(frozen)))
            done = f"frozen {int(frozen)}" in _text(folder + "/cgroup.events")
        else:
            wanted = "FROZEN" if frozen else "THAWED"
            # Written again while it is FREEZING, it goes after those that were forked meanwhile.
            _set(folder + "/freezer.state", wanted)
            done = _text(folder + "/freezer.state").strip() == wanted
        if done or not waiting.wait():
            return done


def kill(folders: list[str], timeout: float = 10.0) -> int:
    """Kill all processes in a cgroup and below it, and wait until they are gone; gives how many there were.

    Raises: GuestError, naming those that are left.
    """
    waiting = Patience(timeout, _POLL_S)
    killed: set[int] = set()
    while True:
        pids = all_pids(folders)
        killed.update(pids)
        if not pids:
            _reap()
            return len(killed)
        _kill_once(folders)
        if not waiting.wait():
            raise GuestError(
                f"SIGKILL did not end what is in {folders[0]} within {timeout:g} s: {describe(pids)}"
            )


def _kill_once(folders: list[str]) -> None:
    if os.path.exists(folders[0] + "/cgroup.kill"):
        _set(folders[0] + "/cgroup.kill", "1")
        return
    folder = _freezer(folders)
    if folder is not None:
        # Frozen, they cannot fork faster than they are killed.
        _freeze(folder, True, _FREEZE_S)
    # One of another PID namespace has the number 0 here, which would mean ourselves.
    for pid in filter(None, all_pids(folders)):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    if folder is not None:
        _freeze(folder, False, _FREEZE_S)


def wait_until_empty(folders: list[str], timeout: float) -> float:
    """Wait until no process is left in a cgroup and below it; gives the seconds. Raises: GuestError."""
    start_s = time.monotonic()
    waiting = Patience(timeout, _POLL_S)
    while True:
        pids = all_pids(folders)
        if not pids:
            _reap()
            return time.monotonic() - start_s
        if not waiting.wait():
            raise GuestError(f"{folders[0]} still holds processes after {timeout:g} s: {describe(pids)}")


def _reap() -> None:
    """Take note of children that ended: one that nobody waits for keeps its removed cgroup dying."""
    for process in list(_started.values()):
        process.poll()
    _forgotten[:] = [process for process in _forgotten if process.poll() is None]


def describe(pids: list[int]) -> str:
    """Processes for people: "12 (sleep, S)", with where they wait in the kernel if they are stuck there."""
    shown = []
    for pid in pids[:10]:
        head, _, tail = _text(f"/proc/{pid}/stat").rpartition(")")
        state = tail.split()[0] if tail else "gone"
        waits = f" in {_text(f'/proc/{pid}/wchan')}" if state == "D" else ""
        shown.append(f"{pid} ({head.partition('(')[2] or '?'}, {state}{waits})")
    more = f" and {len(pids) - 10} more" if len(pids) > 10 else ""
    return ", ".join(shown) + more


def _set(path: str, text: str) -> None:
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError as error:
        raise GuestError(f"the kernel refuses {text!r} in {path}: {error.strerror}") from None


def _text(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""
