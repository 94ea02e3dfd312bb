"""Undoes what a journal tells of: what tests made and set on a machine that goes on after them."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, List, Tuple  # noqa: UP035  (Python 3.8)

from pytest_kernelfs.guest import (
    cgroup_processes,
    cgroups,
    dm,
    dynamic_debug,
    files,
    journal,
    knobs,
    loops,
    netns,
    ram_disks,
    syscalls,
    sysctls,
    tenant_cgroups,
    tracing,
)
from pytest_kernelfs.guest.dispatch import GuestError
from pytest_kernelfs.guest.patience import Patience

# linux/fs.h
_THAW = 0xC0045878
_DETACH = 2
_POLL_S = 0.01
_LEAST_S = 0.5
# With a number of its own and no device below it, these can be frozen all the same.
_FREEZABLE = ("btrfs", "bcachefs")

# By how many of its details a thing is known; the others tell what it was.
_NAMED_BY = {"parameter": 2, "throttle": 3, "controller": 2}

Said = Tuple[List[str], List[str]]  # noqa: UP006   # what was removed, and what is left


def tidy(entries: list[journal.Entry], our_loops: Mapping[str, loops.LoopInfo64], patience: float) -> Said:
    """Undo it all; gives what was still there and is no more, and what could not be undone.

    ``our_loops`` are the loop devices of these tests, with what was attached while these were there. What is
    in use has ``patience`` seconds to be let go.
    """
    work = _Work(entries)
    work.undo("throttle", "throttle of {1}", _lift)
    apart = "namespaces" in work.kinds
    waiting = Patience(patience, _POLL_S)
    folders = [folder for (folder,) in work.kinds.get("cgroup", ())]
    work.attempt("processes in the tests' cgroups", _kill, folders, patience)
    work.undo("trace", "trace {}", tracing.drop)
    work.undo("debug", "debug messages", dynamic_debug.set_back)
    work.undo("parameter", "parameter {1} of {0}", _set_back_parameter)
    work.undo("sysctl", "sysctl {1}", _set_back_sysctl, apart)
    if not apart:
        work.undo("netns", "network namespace {}", _remove_netns)
    work.undo("dm", "device {}", _resume)
    for place, _ in work.kinds.get("place", ()) if not apart else ():
        for point, freezable in _mounts_at(place):
            of_tests = point not in (place, tracing.OWN)
            work.attempt(f"mount on {point}", _umount, point, freezable, of_tests)
    _remove_devices(work, our_loops, waiting)
    work.undo("write cache", "write cache in {}", _set_back)
    work.undo("cgroup", "cgroups in {}", _remove_cgroups, waiting)
    work.undo("controller", "controller {1}", tenant_cgroups.take_back)
    work.undo("file", "file {}", _unlink)
    work.undo("link", "link {}", _remove_link)
    work.undo("folder", "folder {}", _rmdir)
    return work.removed, work.left


def hurry(entries: list[journal.Entry], agent: int) -> list[str]:
    """Let go on what waits: no process ends that waits for a slow, suspended or frozen disk.

    File systems are looked for where the process ``agent`` sees them. Gives what there was to do.
    """
    work = _Work(entries)
    work.undo("throttle", "throttle of {1}", _lift)
    work.undo("dm", "device {}", _resume)
    for place, _ in work.kinds.get("place", ()):
        for point, freezable in _mounts_at(place, f"/proc/{agent}/mountinfo"):
            if freezable:
                work.attempt(f"freeze of {point}", _thaw, f"/proc/{agent}/root{point}")
    return work.removed


class _Work:
    """The entries by their kind, and what came of undoing them."""

    def __init__(self, entries: list[journal.Entry]) -> None:
        self.removed: list[str] = []
        self.left: list[str] = []
        self.kinds: dict[str, list[list[Any]]] = {}
        known: set[str] = set()
        for kind, *what in entries:
            # What something was before the first change is what it shall be again.
            key = f"{kind} {what[: _NAMED_BY.get(kind, 1)]}"
            if key not in known:
                known.add(key)
                self.kinds.setdefault(kind, []).insert(0, what)

    def undo(self, kind: str, called: str, function: Callable[..., bool], *more: Any) -> None:
        """All of a kind, the latest first."""
        for what in self.kinds.get(kind, ()):
            self.attempt(called.format(*what), function, *what, *more)

    def attempt(self, called: str, function: Callable[..., bool], *args: Any) -> None:
        try:
            if function(*args):
                self.removed.append(called)
        except (GuestError, OSError) as error:
            self.left.append(f"{called} ({error})")


def _kill(folders: list[str], patience: float) -> bool:
    return bool(folders) and cgroup_processes.kill(folders, patience) > 0


def _set_back_sysctl(group: str, name: str, value: str, apart: bool) -> bool:  # noqa: ARG001  (names it)
    if apart and sysctls.is_of_namespaces(name):
        return False
    try:
        if knobs.read_sysctl(name) == value:
            return False
    except GuestError:
        return False  # it went with its module
    knobs.restore_sysctls([(name, value)])
    return True


def _set_back_parameter(module: str, name: str, value: str) -> bool:
    try:
        if knobs.read_parameter(module, name) == value:
            return False
    except GuestError:
        return False
    knobs.restore_parameter(module, name, value)
    return True


def _remove_netns(name: str) -> bool:
    if not os.path.exists(netns.path_of(name)):
        return False
    netns.remove([name])
    return True


def _resume(name: str) -> bool:
    """Let what waits for a suspended device go on, so that it can be unmounted."""
    dm.resume(name, missing_ok=True)
    return False


def _mounts_at(place: str, mounts: str = "/proc/self/mountinfo") -> Iterator[tuple[str, bool]]:
    """What is mounted there and below, the latest first; nothing if that view of the mounts has gone.

    Each with whether it can be frozen. To open any other only to see might take forever: of FUSE, of a
    network's whose server hangs, of an overlay on such.
    """
    for number, point, fstype in reversed(loops.mounted(mounts)):
        if (point + "/").startswith(place + "/"):
            on_device = os.major(number) != 0 and not fstype.startswith("fuse")
            yield point, on_device or fstype in _FREEZABLE


def _thaw(point: str) -> bool:
    try:
        handle = os.open(point, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False  # its file system was shut down: it cannot be frozen either
    try:
        fcntl.ioctl(handle, _THAW, 0)
    except OSError:
        return False  # it was not frozen
    finally:
        os.close(handle)
    return True


def _umount(point: str, freezable: bool, of_tests: bool) -> bool:
    if freezable:
        _thaw(point)
    try:
        syscalls.umount(point)
    except OSError:
        syscalls.umount(point, _DETACH)
    return of_tests


def _remove_devices(work: _Work, our_loops: Mapping[str, loops.LoopInfo64], waiting: Patience) -> None:
    """They may lie on one another in any order: from above, as they become free."""
    names = {kind: [what[0] for what in work.kinds.get(kind, ())] for kind in ("dm", "null_blk", "zram")}
    there: dict[str, Callable[[], bool]] = {
        **{f"device {name}": partial(dm.remove, name, 0.0) for name in names["dm"]},
        **{f"device {name}": partial(ram_disks.remove_null_blk, name) for name in names["null_blk"]},
        **{f"device {path}": partial(ram_disks.remove_zram, path, 0.0) for path in names["zram"]},
        **{f"loop device {path}": _loop_remover(path, info) for path, info in our_loops.items()},
    }
    in_time = True
    while there:
        for what, remove in list(there.items()):
            try:
                if remove():
                    work.removed.append(what)
            except (GuestError, OSError) as error:
                if in_time:
                    continue
                work.left.append(f"{what} ({error})")
            del there[what]
        in_time = bool(there) and waiting.wait()


def _loop_remover(path: str, before: loops.LoopInfo64) -> Callable[[], bool]:
    """Detached only once, and only what was there ``before``: later the device may be another's."""
    asked = False

    def remove() -> bool:
        nonlocal asked
        if not loops.same(loops.info_of(path), before):
            return asked
        if not asked:
            loops.clear(path)
            asked = True
        if loops.info_of(path) is not None:
            raise GuestError("it is still in use")
        return True

    return remove


def _set_back(path: str, value: str, ours: str) -> bool:
    """A device that is free may be another's by now, who set it otherwise."""
    if files.text(path) != ours or ours == value:
        return False
    with open(path, "w") as file:
        file.write(value)
    return True


def _lift(path: str, device: str, ours: str) -> bool:
    """What somebody else has set for the device since stays. In version 2 the cgroup is the tests' alone."""
    ours_alone = path.endswith("/io.max")
    set_now = [line.split() for line in files.text(path).splitlines()]
    if not any(words[:1] == [device] and (ours_alone or words[1:] == [ours]) for words in set_now):
        return False
    none = "rbps=max wbps=max riops=max wiops=max" if ours_alone else "0"
    with open(path, "w") as file:
        file.write(f"{device} {none}")
    return True


def _remove_cgroups(folder: str, waiting: Patience) -> bool:
    """True if tests left any in it."""
    if not os.path.isdir(folder):
        return False
    inside = [name for name in os.listdir(folder) if os.path.isdir(f"{folder}/{name}")]
    cgroups.remove([folder], max(waiting.left, _LEAST_S))
    return bool(set(inside) - {"agent"})


def _unlink(path: str) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def _remove_link(path: str) -> bool:
    """One that leads to what the tests brought, and with them goes."""
    if os.path.islink(path) and os.readlink(path).startswith("/run/kernelfs/"):
        os.unlink(path)
    return False


def _rmdir(path: str) -> bool:
    try:
        os.rmdir(path)
    except OSError:
        pass  # somebody else has put something in it, or it is gone
    return False


def end_children(patience: float) -> list[str]:
    """Kill all children of this process, and those of theirs that come to it; gives those that stay.

    It must be a subreaper, or the first process of its namespace.
    """
    waiting = Patience(patience, _POLL_S / 4)
    while True:
        while True:
            try:
                if not os.waitpid(-1, os.WNOHANG)[0]:
                    break
            except ChildProcessError:
                return []
        pids = list(_children(os.getpid()))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        if not waiting.wait():
            return [f"processes {cgroup_processes.describe(pids)}"]


def _children(parent: int) -> Iterator[int]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = files.text(f"/proc/{name}/stat").rpartition(")")[2].split()
            if len(fields) > 1 and int(fields[1]) == parent:
                yield int(name)
