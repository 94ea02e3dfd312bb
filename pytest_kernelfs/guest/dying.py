"""Dying cgroups: removed, but kept by what is still charged to them or still refers to them."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from pytest_kernelfs.guest import descriptors, meminfo, syscalls
from pytest_kernelfs.guest.dispatch import GuestError
from pytest_kernelfs.guest.patience import Patience

_POLL_S = 0.01
# What is not pinned goes within some 30 ms; whatever is left when nothing went for so long is pinned.
_QUIET_S = 0.5
_SETTLED_S = 8.0
_DENTRIES = 32
_SYNC_S = 10.0
_KEPT_BY = "nr_dying_subsys_"
# The root of a hierarchy has this inode; that of a cgroup namespace within it has another.
_ROOT_INODE = 1
# Version 2 has them in all cgroups, without showing or being told so: implicit_on_dfl in the kernel.
_IMPLICIT = ("perf_event",)

_home = _ours = ""


def settle(folder: str, ours: str) -> None:
    """Count in ``folder`` of version 2 alone; ``ours`` is the cgroup in it that we are in ourselves."""
    global _home, _ours
    _home, _ours = folder, ours


def hierarchies() -> dict[str, str]:
    """Where cgroups are mounted: "" -> the mount of version 2, each version 1 controller -> its mount."""
    found: dict[str, str] = {}
    with open("/proc/mounts", errors="replace") as file:
        for line in file:
            _source, point, fstype, options = line.split()[:4]
            if fstype == "cgroup2":
                found.setdefault("", point)
            elif fstype == "cgroup":
                for name in set(options.split(",")) & set(controllers()):
                    found.setdefault(name, point)
    return found


def controllers() -> dict[str, tuple[int, int]]:
    """What /proc/cgroups has: controller -> (number of its hierarchy, 0 for version 2; cgroups in it)."""
    return {row[0]: (int(row[1]), int(row[2])) for row in _table()}


def is_implicit(controller: str) -> bool:
    """Whether version 2 has this controller, though cgroup.controllers does not show it."""
    ready = [row[0] for row in _table() if (row[1], row[3]) == ("0", "1")]
    return controller in _IMPLICIT and controller in ready


def _table() -> list[list[str]]:
    """Rows of name, number of the hierarchy, number of cgroups, and whether it is enabled (0 or 1)."""
    with open("/proc/cgroups") as file:
        return [line.split() for line in file if not line.startswith("#")]


def counts() -> list[dict[str, Any]]:
    """How many cgroups are dying in each mounted hierarchy: dicts with ``path``, ``name`` and ``dying``.

    For version 2 also ``controllers``: how many of them each controller keeps, where the kernel says it.
    """
    found = []
    for name, path in hierarchies().items():
        if name and not _is_whole(path):
            continue  # how many are dying here alone, the kernel does not tell
        if name:
            found.append(
                {"path": path, "name": f"v1 {name}", "dying": count_v1(name, path), "controllers": {}}
            )
        else:
            top = _home or path
            kept = {
                key[len(_KEPT_BY) :]: value
                for key, value in _stat(top).items()
                if key.startswith(_KEPT_BY) and value
            }
            found.append({"path": top, "name": "v2", "dying": count(2, top), "controllers": kept})
    return found


def count(version: int, path: str) -> int:
    """Version 2: the dying cgroups below ``path``; version 1, and any before 4.14: all of its hierarchy."""
    if version == 2:
        told = _stat(path).get("nr_dying_descendants")
        return _without_folder(0, hierarchies()[""]) if told is None else told
    return sum(
        count_v1(name, point) for name, point in hierarchies().items() if name and _within(path, point)
    )


def count_v1(controller: str, mount: str) -> int:
    """The dying cgroups of a version 1 hierarchy. Raises: GuestError if only a part of it is to be seen."""
    if not _is_whole(mount):
        raise GuestError(
            f"dying cgroups of version 1 cannot be counted below {mount}: in a cgroup namespace, the kernel "
            "tells only of all of the machine"
        )
    return _without_folder(controllers().get(controller, (0, 0))[0], mount)


def parts() -> list[str]:
    """Where those version 1 hierarchies are mounted of which only the cgroups in our namespace are seen."""
    return [path for name, path in hierarchies().items() if name and not _is_whole(path)]


def _is_whole(mount: str) -> bool:
    return os.stat(mount).st_ino == _ROOT_INODE


def _without_folder(hierarchy: int, mount: str) -> int:
    """/proc/cgroups counts all cgroups of a hierarchy, and those that are dying have no folder any more."""
    numbers = [number for where, number in controllers().values() if where == hierarchy]
    return max(0, max(numbers, default=0) - sum(1 for _ in os.walk(mount)))


def _within(path: str, mount: str) -> bool:
    return (path + "/").startswith(mount + "/")


def _stat(path: str) -> dict[str, int]:
    try:
        with open(path + "/cgroup.stat") as file:
            return {name: int(value) for name, value in (line.split() for line in file)}
    except FileNotFoundError:
        return {}  # before 4.14


def at_rest() -> dict[str, int]:
    """How many are dying in each hierarchy, by its name, once those that are only on their way have gone."""
    _settled(total)
    return {each["name"]: each["dying"] for each in counts()}


def watch(at_most: int, within: float, before: dict[str, int]) -> dict[str, Any]:
    """Wait until at most so many cgroups are dying in the machine, those that were ``before`` left out.

    Gives a dict: ``seconds``, ``counts`` and, if there are still more, ``pins`` (see ``_find_pins``). Each
    count has besides how many were ``before``, which are fewer when there were once fewer in all.
    """
    start = time.monotonic()
    waiting = Patience(within, _POLL_S)
    known = dict(before)
    while True:
        now = counts()
        for each in now:
            each["before"] = known[each["name"]] = min(known.get(each["name"], 0), each["dying"])
        waited = time.monotonic() - start
        if sum(each["dying"] - each["before"] for each in now) <= at_most:
            return {"seconds": waited, "counts": now, "pins": {}}
        if not waiting.wait():
            return {"seconds": waited, "counts": now, "pins": _find_pins()}


def _find_pins() -> dict[str, Any]:
    """What keeps dying cgroups, found by taking it away.

    Gives a dict: ``writeback``, ``page_cache`` and ``dentries`` (cgroups that went with a sync, and when
    these caches were dropped), ``left`` (those that did not), ``zombies`` (processes nobody waits for, in
    removed cgroups), ``memory`` (bytes of what else may keep them).
    """
    memory = meminfo.read("Shmem", "Mlocked", "Dirty", "SwapTotal", "SwapFree")
    left = [total()]
    # In a thread: on a frozen or broken file system it never ends.
    flusher = threading.Thread(target=os.sync, daemon=True)
    flusher.start()
    flusher.join(_SYNC_S)
    left.append(_settled(total))
    for cache in (1, 2):
        drop_caches(cache)
        left.append(_settled(total))
    return {
        "writeback": left[0] - left[1],
        "page_cache": left[1] - left[2],
        "dentries": left[2] - left[3],
        "left": left[3],
        "zombies": _zombies(),
        "memory": memory,
    }


def total() -> int:
    """The dying cgroups of the machine."""
    return sum(each["dying"] for each in counts())


def _settled(look: Callable[[], int]) -> int:
    """The count, once it has not changed for a while."""
    last = look()
    left = _SETTLED_S
    quiet = Patience(_QUIET_S, _POLL_S)
    while last and quiet.wait():
        now = look()
        if now != last and left > 0:
            left -= _QUIET_S - quiet.left
            quiet = Patience(_QUIET_S, _POLL_S)
        last = now
    return last


def drop_caches(what: int) -> None:
    """1: page cache, 2: dentries and inodes, 3: both."""
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write(str(what))


def _zombies() -> int:
    found = 0
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                with open(f"/proc/{pid}/stat", errors="replace") as file:
                    ended = file.read().rpartition(")")[2].split()[0] == "Z"
                with open(f"/proc/{pid}/cgroup", errors="replace") as file:
                    found += ended and "(deleted)" in file.read()
            except OSError:
                continue  # it was waited for meanwhile
    return found


def make(version: int, parent: str, number: int, kind: str, place: str, size: int) -> dict[str, Any]:
    """Make ``number`` cgroups below ``parent``, pin each, remove them all, and see how many are dying.

    ``place`` is a folder for what pins: files of ``size`` bytes ("page cache" or "tmpfs", which depends on
    where the folder lies), 32 files each ("dentry"), or nothing ("zombie": a process that ended and is not
    waited for). Gives a dict: ``dying``, and ``keeper``, the process whose end frees the zombies.
    """
    before = count(version, parent)
    folders = [f"{parent}/dying-{index}" for index in range(number)]
    for folder in folders:
        os.mkdir(folder)
    os.makedirs(place, exist_ok=True)
    keeper = _fork_helper(folders, kind, place, size)
    for folder in folders:
        os.rmdir(folder)
    dying = _settled(lambda: count(version, parent) - before)
    return {"dying": dying, "keeper": keeper}


def release(place: str, keeper: int) -> None:
    """Take away what ``make`` pinned cgroups with."""
    shutil.rmtree(place, ignore_errors=True)
    if keeper:
        try:
            # Its zombies become the children of process 1, which waits for them.
            os.kill(keeper, signal.SIGKILL)
            os.waitpid(keeper, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def _fork_helper(folders: list[str], kind: str, place: str, size: int) -> int:
    """One process that visits all the cgroups: to fork for each is slower.

    Gives its number if it has to live on, else 0. Raises: GuestError with its reason.
    """
    reader, writer = os.pipe()
    helper = os.fork()
    if not helper:
        _help_and_exit(writer, folders, kind, place, size)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    if said == "keep":
        return helper
    os.waitpid(helper, 0)
    if said != "done":
        raise GuestError(f"cannot pin cgroups with {kind} in {place}: {said or 'the helper was killed'}")
    return 0


def _help_and_exit(writer: int, folders: list[str], kind: str, place: str, size: int) -> NoReturn:
    os.setsid()
    descriptors.close_all_but(writer)
    try:
        if kind == "zombie":
            _leave_zombies(folders)
            said = "keep"
        else:
            _visit(folders, kind, place, size)
            said = "done"
    except BaseException as error:
        said = f"{error}" or type(error).__name__
    os.write(writer, said.encode())
    os.close(writer)
    while said == "keep":
        signal.pause()
    os._exit(0)


def _visit(folders: list[str], kind: str, place: str, size: int) -> None:
    data = bytes(min(size, 1 << 20))
    for index, folder in enumerate(folders):
        _enter(folder)
        if kind == "dentry":
            os.mkdir(f"{place}/{index}")
            names = [f"{place}/{index}/{file}" for file in range(_DENTRIES)]
            for name in names:
                os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
            continue
        handle = os.open(f"{place}/{index}", os.O_CREAT | os.O_WRONLY)
        left = size
        while left > 0:
            left -= os.write(handle, data[:left])
        os.close(handle)
    # What is dirty cannot be dropped. fsync(2) would not do: it leaves the inode on its cgroup's list of
    # dirty ones, which keeps the cgroup, for another 30 seconds.
    _enter_root(folders[0])
    syscalls.sync_file_system(place)


def _leave_zombies(folders: list[str]) -> None:
    for folder in folders:
        child = os.fork()
        if not child:
            try:
                _enter(folder)
            except OSError as error:
                os._exit(error.errno or 1)
            os._exit(0)
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        if ended is not None and ended.si_status:
            raise OSError(ended.si_status, os.strerror(ended.si_status))


def _enter(folder: str) -> None:
    handle = os.open(folder + "/cgroup.procs", os.O_WRONLY)
    try:
        os.write(handle, b"0")
    finally:
        os.close(handle)


def _enter_root(folder: str) -> None:
    """Leave a cgroup for the root of its hierarchy: the process may outlive the cgroup."""
    if _home and _within(folder, _home):
        _enter(f"{_home}/{_ours}")
        return
    _enter(next(mount for mount in sorted(hierarchies().values(), reverse=True) if _within(folder, mount)))
