"""cgroups, version 1 and 2: hierarchies and controllers, making and removing groups, their files."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Any, NoReturn

from pytest_kernelfs.guest import attributes, dying, syscalls
from pytest_kernelfs.guest.cgroup_processes import all_pids, describe, kill
from pytest_kernelfs.guest.dispatch import GuestError
from pytest_kernelfs.guest.patience import Patience

V1 = "/run/kernelfs/cgroup-v1"
_POLL_S = 0.005
# The kernel takes a version 1 hierarchy apart in the background after its last unmount.
_RETURN_S = 10.0
_SOON_S = 0.5
_FEWER_S = 3.0

_home = _ours = ""


def settle(folder: str, ours: str) -> None:
    """Have all cgroups of version 2 made in ``folder``, on a machine whose init owns the rest of them.

    ``ours`` is the name of the one in it that we are in ourselves.
    """
    global _home, _ours
    _home, _ours = folder, ours
    dying.settle(folder, ours)


def home() -> str:
    """The folder that ``settle`` was told; "" if all of version 2 is ours."""
    return _home


def may_hold(pid: str) -> bool:
    """Whether a process is in a cgroup of ours, which each is where all of version 2 is."""
    if not _home:
        return True
    with open(f"/proc/{pid}/cgroup", errors="replace") as file:
        path = next((line[3:].rstrip("\n") for line in file if line.startswith("0::")), "")
    return f"{dying.hierarchies().get('', '')}{path}/".startswith(f"{_home}/")


def root() -> str:
    """Where cgroups of version 2 are to be made. Raises: GuestError if it is not mounted."""
    found = _home or dying.hierarchies().get("")
    if found is None:
        raise GuestError(f"cgroup version 2 is not mounted in this machine (kernel {_kernel()})")
    return found


def enabled() -> list[str]:
    """The controllers that the root of version 2 gives to its children now."""
    return _words(root() + "/cgroup.subtree_control")


def claim(controller: str, needed: bool) -> list[Any]:
    """The folder of a version 1 hierarchy, which is mounted if it is not, and whether that was done here.

    ``[None, False]`` if this kernel does not have it and it is not ``needed``. Raises: GuestError.
    """
    there = dying.hierarchies().get(controller)
    if there is not None:
        return [there, False]
    target = f"{V1}/{controller}"
    os.makedirs(target, exist_ok=True)
    try:
        syscalls.mount("cgroup", target, "cgroup", 0, controller)
    except OSError as error:
        os.rmdir(target)
        if error.errno != errno.EBUSY and not needed:
            return [None, False]
        _say_why_not(controller, error)
    return [target, True]


def _say_why_not(controller: str, error: OSError) -> NoReturn:
    if error.errno == errno.EBUSY:
        users = [path for path in _tree(root()) if controller in _words(path + "/cgroup.subtree_control")]
        raise GuestError(
            f"the controller {controller} cannot be had in cgroup version 1 while cgroups of version 2 "
            f"use it: it is enabled below {', '.join(users) or 'another hierarchy'}; remove those first"
        ) from None
    if error.errno == errno.EPERM:
        raise GuestError(
            f"no hierarchy of cgroup version 1 can be made for {controller}: this machine is in a cgroup "
            "namespace, and has those alone that were there before"
        ) from None
    has = sorted(name for name in dying.controllers() if name != controller)
    raise GuestError(
        f"kernel {_kernel()} has no controller {controller} for cgroup version 1 ({error.strerror}); "
        f"it has {', '.join(has) or 'none'}, and for version 2 {', '.join(_available())}"
    ) from None


def release(controller: str, target: str) -> bool:
    """Unmount a version 1 hierarchy and wait until version 2 can have its controller again.

    Dying cgroups keep a hierarchy alive, so caches are dropped if some stay. Gives False if it lives on all
    the same.
    """
    if dying.hierarchies().get(controller) != target:
        return True
    left = _wait_for_dying(controller, target, _SOON_S)
    if left:
        dying.drop_caches(3)
        left = _wait_for_dying(controller, target, _FEWER_S)
    syscalls.umount(target)
    os.rmdir(target)
    waiting = Patience(0.0 if left else _RETURN_S, _POLL_S)
    while dying.controllers().get(controller, (0, 0))[0]:
        if not waiting.wait():
            return False
    return True


def _wait_for_dying(controller: str, target: str, most: float) -> int:
    """Wait until no cgroup of a version 1 hierarchy is dying; gives how many still are.

    As long as they become fewer: what a file in memory pins stays.
    """
    least = dying.count_v1(controller, target)
    waiting = Patience(most, _POLL_S)
    while least and waiting.wait():
        left = dying.count_v1(controller, target)
        if left < least:
            least, waiting = left, Patience(most, _POLL_S)
    return least


def make(version: int, folders: list[str], controllers: list[str], adopt: bool = False) -> None:
    """Make a cgroup: one folder in version 2, in version 1 one in each hierarchy.

    In version 2 ``controllers`` are enabled for it all the way down; with ``adopt`` the processes of its
    parent are moved into it first. Raises: GuestError.
    """
    try:
        for folder in folders:
            os.mkdir(folder)
            if version == 1:
                inherit_cpuset(folder)
        if version == 2:
            parent = os.path.dirname(folders[0])
            if adopt:
                _move(parent, folders[0])
            enable(parent, controllers)
    except OSError as error:
        _discard(folders)
        raise GuestError(f"cannot make the cgroup {folders[0]}: {error.strerror}") from None
    except GuestError:
        _discard(folders)
        raise


def _discard(folders: list[str]) -> None:
    for folder in folders:
        try:
            os.rmdir(folder)
        except OSError:
            pass  # it was never made, or holds what was moved into it: the parent's removal takes it along


def inherit_cpuset(folder: str) -> None:
    """A new version 1 cpuset is empty, and no process may enter it."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if os.path.exists(f"{folder}/{name}"):
            write(f"{folder}/{name}", read(f"{os.path.dirname(folder)}/{name}").strip())


def _move(source: str, target: str) -> None:
    for pid in all_pids([source], below=False):
        try:
            write(target + "/cgroup.procs", str(pid))
        except GuestError:
            if os.path.exists(f"/proc/{pid}"):
                raise


def enable(folder: str, controllers: list[str]) -> None:
    """Have a version 2 cgroup, and all above it, give these controllers to their children.

    Raises: GuestError, naming what the kernel has, or the processes that are in the way.
    """
    top = root()
    chain = [top]
    for part in os.path.relpath(folder, top).split(os.sep):
        if part != ".":
            chain.append(f"{chain[-1]}/{part}")
    for path in chain if controllers else []:
        done: list[str] = []
        try:
            for name in controllers:
                if name not in _words(path + "/cgroup.subtree_control"):
                    _enable_one(path, name)
                    done.append(name)
        except GuestError:
            # With some alone, such as cpu, a cgroup that holds processes becomes a threaded one.
            for name in done:
                _take_back(path, name)
            raise


def _enable_one(path: str, controller: str) -> None:
    if controller not in _words(path + "/cgroup.controllers"):
        if dying.is_implicit(controller):
            return
        claimed = dying.hierarchies().get(controller)
        where = f"; a version 1 hierarchy at {claimed} has it" if claimed else ""
        raise GuestError(
            f"kernel {_kernel()} has no controller {controller} for cgroup version 2{where}; "
            f"it has {', '.join(_available()) or 'none'}"
        )
    try:
        attributes.write(path + "/cgroup.subtree_control", "+" + controller)
    except OSError as error:
        inside = all_pids([path], below=False)
        # Not supported it is where cpu or pids, which processes are allowed beside, was enabled before.
        if error.errno in (errno.EBUSY, errno.EOPNOTSUPP) and inside:
            raise GuestError(
                f"cannot enable {controller} below {path}: it holds processes ({describe(inside)}), and in "
                "cgroup version 2 one that gives controllers to its children holds none; start them in a "
                "child, or make the child with move_processes=True"
            ) from None
        raise GuestError(f"cannot enable {controller} below {path}: {error.strerror}") from None


def _take_back(path: str, controller: str) -> None:
    try:
        attributes.write(path + "/cgroup.subtree_control", "-" + controller)
    except OSError:
        pass  # a cgroup that somebody else made below uses it


def restore(before: list[str]) -> None:
    """Take back from the root's children all controllers but those that they had ``before``."""
    top = _home or dying.hierarchies().get("")
    if top is None or any(os.path.isdir(f"{top}/{name}") for name in os.listdir(top) if name != _ours):
        return  # others use them
    for controller in _words(top + "/cgroup.subtree_control"):
        if controller not in before:
            try:
                attributes.write(top + "/cgroup.subtree_control", "-" + controller)
            except OSError as error:
                raise GuestError(f"cannot take {controller} back from {top}: {error.strerror}") from None


def remove(folders: list[str], patience: float = 10.0) -> dict[str, int]:
    """Kill what is left in a cgroup and below it, and remove the whole tree.

    Gives a dict: ``killed`` (processes), ``retries`` (how often rmdir was answered with EBUSY).
    Raises: GuestError, naming what keeps it busy.
    """
    there = [folder for folder in folders if os.path.isdir(folder)]
    killed = kill(there, patience)
    waiting = Patience(patience, _POLL_S)
    retries = 0
    for folder in there:
        for path in [*reversed(list(_tree(folder))), folder]:
            while not _rmdir(path):
                retries += 1
                if not waiting.wait():
                    raise GuestError(
                        f"rmdir {path}: still busy after {patience:g} s and {retries} retries; "
                        f"in it: {describe(all_pids([path])) or 'no process'}"
                    )
    return {"killed": killed, "retries": retries}


def _rmdir(path: str) -> bool:
    """False if it is busy; one that is gone already is removed."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise GuestError(f"rmdir {path}: {error.strerror}") from None
        return False
    return True


def _tree(folder: str) -> Iterator[str]:
    """All cgroups below one, parents before their children."""
    for path, names, _files in os.walk(folder):
        for name in names:
            yield f"{path}/{name}"


def write(path: str, text: str, device: str = "") -> None:
    """Write a file of a cgroup; the number of ``device`` goes before the text. Raises: GuestError."""
    if device:
        number = _number_of(device)
        text = f"{os.major(number)}:{os.minor(number)} {text}"
    try:
        attributes.write(path, text)
    except FileNotFoundError:
        _say_absent(path)
    except OSError as error:
        raise GuestError(f"the kernel refuses {text!r} in {path}: {error.strerror}") from None


def _number_of(device: str) -> int:
    try:
        return os.stat(device).st_rdev
    except OSError as error:
        raise GuestError(f"a limit for {device}: {error.strerror}; give a disk of the test") from None


def write_all(writes: list[list[str]]) -> None:
    """Write several files, each given as (path, text, device)."""
    for path, text, device in writes:
        write(path, text, device)


def read(path: str) -> str:
    """The content of a file of a cgroup. Raises: GuestError."""
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        _say_absent(path)
    except OSError as error:
        raise GuestError(f"cannot read {path}: {error.strerror}") from None


def read_some(folders: list[str], names: list[str]) -> dict[str, str]:
    """Those of the named files that are there, in whichever of the folders: name -> content."""
    paths = [(name, f"{folder}/{name}") for folder in folders for name in names]
    return {name: read(path) for name, path in paths if os.path.exists(path)}


def _say_absent(path: str) -> NoReturn:
    folder, name = os.path.split(path)
    if not os.path.isdir(folder):
        raise GuestError(f"the cgroup {folder} is gone")
    prefix = name.split(".")[0] + "."
    has = sorted(other for other in os.listdir(folder) if other.startswith(prefix))
    if has:
        reason = f"kernel {_kernel()} does not have it, only {', '.join(has)}"
    else:
        reason = f"it has no controller {prefix[:-1]}; name it in 'controllers' when the cgroup is made"
    raise GuestError(f"there is no file {name} in {folder}: {reason}")


def _available() -> list[str]:
    return _words(root() + "/cgroup.controllers")


def _kernel() -> str:
    return os.uname().release


def _words(path: str) -> list[str]:
    try:
        with open(path, errors="replace") as file:
            return file.read().split()
    except OSError:
        return []
