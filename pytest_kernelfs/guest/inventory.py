"""What is in the kernel that a test can leave there: mounts, devices, cgroups, namespaces, swap areas."""

from __future__ import annotations

import os
from typing import Dict  # noqa: UP035  (Python 3.8)

from pytest_kernelfs.guest import cgroups, dying, files, holders, journal, loops, references

State = Dict[str, int]  # noqa: UP006   # what is there -> how often

# Mounted by the kernel itself when somebody looks inside, and by "ip netns" when it is first used.
_AUTOMOUNTS = ("/sys/kernel/debug/tracing", "/proc/sys/fs/binfmt_misc", "/run/netns")
_NAMED_NAMESPACES = "/run/netns/"
# Mounted by systemd for a service or the session of a user.
_SYSTEMD_MOUNTS = ("/run/credentials/", "/run/systemd/", "/run/user/")
# Where tests mount, and have files, on a machine that others use, too: what is elsewhere is not theirs.
_PLACES = ("/run/kernelfs/", "/mnt/", "/tmp/")
_MOUNTINFO = "/proc/self/mountinfo"
_BLOCK = "/sys/block"
_SWAPS = "/proc/swaps"
_NULL_BLK = "/sys/kernel/config/nullb"
# What brd and null_blk make when they are loaded goes with them: no more is left of it than the module. Those
# of null_blk that somebody made have a folder in configfs.
_COME_WITH_MODULES = ("ram", "nullb")


def state() -> State:
    """Everything that a test can leave behind, and how often it is there.

    On a machine that others use too, what can be told from theirs.
    """
    found: State = {}
    mounts = _mounts()
    for point, fstype, source in mounts:
        name = f"mount: {fstype} on {point} (from {source})"
        found[name] = found.get(name, 0) + 1
    for name in [*_block_devices(), *_swap_areas(), *_cgroups(mounts), *_network_namespaces()]:
        found[name] = 1
    if not journal.is_kept():  # the others on such a machine hold them, too
        counts = references.of_filesystems()
        found.update({f"file system still in use: {name}": count for name, count in counts.items()})
    return found


def _mounts() -> list[tuple[str, str, str]]:
    """(mount point, type, source) of each mount in our namespace; escapes such as \\040 are left in."""
    with open(_MOUNTINFO, errors="replace") as file:
        lines = [line.partition(" - ") for line in file]
    rows = [(head.split(), tail.split()[:2]) for head, _, tail in lines]
    visible = _on_fresh_places([head for head, _ in rows])
    found = []
    for head, (fstype, source) in rows:
        point = head[4]
        if journal.is_kept() and not (point + "/").startswith(_PLACES):
            continue
        if visible is not None and head[0] not in visible:
            continue  # mounted by others meanwhile, below what our own tmpfs covers
        if point not in _AUTOMOUNTS and not point.startswith((_NAMED_NAMESPACES, *_SYSTEMD_MOUNTS)):
            found.append((point, fstype, source))
    return found


def _on_fresh_places(rows: list[list[str]]) -> set[str] | None:
    """The ids of the mounts that stand on the tmpfs that tests have at /tmp and the like.

    ``rows`` are as in mountinfo: id, parent, device, root, mount point. None where tests have none of these.
    """
    if not _has_fresh_places():
        return None
    fresh = {
        (target, f"{os.major(device)}:{os.minor(device)}")
        for kind, target, device in (entry[:3] for entry in journal.entries() if entry[0] == "place")
    }
    found = {row[0] for row in rows if (row[4], row[2]) in fresh}
    while True:
        more = {row[0] for row in rows if row[1] in found} - found
        if not more:
            return found
        found |= more


def _has_fresh_places() -> bool:
    """Whether tests have a mount namespace to themselves."""
    return journal.is_kept() and "/tmp" in journal.noted("place")


def _block_devices() -> list[str]:
    """Loop devices with something attached, device-mapper devices, and others that somebody set up."""
    found = []
    entries = journal.entries()
    our_loops, our_names = list(loops.ours(entries)), journal.noted("dm")
    places = _places_of_files()
    for name in os.listdir(_BLOCK):
        if name.startswith("loop"):
            backing = files.text(f"{_BLOCK}/{name}/loop/backing_file")
            if backing and (f"/dev/{name}" in our_loops or backing.startswith(places)):
                found.append(f"loop device: /dev/{name} on {backing}")
        elif name.startswith("dm-"):
            called = files.text(f"{_BLOCK}/{name}/dm/name")
            if not journal.is_kept() or called in our_names:
                found.append(f"device-mapper device: {called} (/dev/{name})")
        elif _was_set_up(name):
            found.append(f"block device: /dev/{name}")
    return found + [f"null_blk device: {name} (in configfs)" for name in _null_blk_devices()]


def _places_of_files() -> tuple[str, ...]:
    """Where a file lies that a test has attached to a loop device by a command of its own.

    Where tests have a mount namespace to themselves, the paths of others' files may look the same.
    """
    if not journal.is_kept():
        return ("",)
    return () if _has_fresh_places() else _PLACES


def _null_blk_devices() -> list[str]:
    """Those that somebody made; to be seen while configfs is mounted."""
    if not os.path.isdir(_NULL_BLK):
        return []
    names = [name for name in os.listdir(_NULL_BLK) if os.path.isdir(f"{_NULL_BLK}/{name}")]
    return [name for name in names if not journal.is_kept() or name in journal.noted("null_blk")]


def _was_set_up(name: str) -> bool:
    """Whether it is no device of the machine's, and has a size: a zram, an array of md, a connected nbd."""
    if name.startswith(_COME_WITH_MODULES) or files.text(f"{_BLOCK}/{name}/size") in ("", "0"):
        return False
    if journal.is_kept():
        return f"/dev/{name}" in journal.noted("zram")
    return os.path.realpath(f"{_BLOCK}/{name}").startswith("/sys/devices/virtual/")


def _swap_areas() -> list[str]:
    """What the kernel swaps to. On a machine that others use, they are theirs."""
    if journal.is_kept():
        return []
    lines = files.text(_SWAPS).splitlines()[1:]
    return [f"swap area: {line.split()[0]}" for line in lines]


def _cgroups(mounts: list[tuple[str, str, str]]) -> list[str]:
    """All cgroups; on a machine whose init makes others as it likes, those in the folder for ours."""
    found = []
    everywhere = [point for point, fstype, _source in mounts if fstype in ("cgroup", "cgroup2")]
    tops = [cgroups.home()] if cgroups.home() else everywhere
    for top in [*tops, *dying.parts()] if journal.is_kept() else tops:
        for folder, names, _files in os.walk(top):
            found += [f"cgroup: {folder}/{name}" for name in names]
    return found


def _network_namespaces() -> list[str]:
    """Named namespaces, and those that a process lives in which is not ours."""
    found = []
    try:
        names = os.listdir(_NAMED_NAMESPACES)
    except FileNotFoundError:
        names = []
    if journal.is_kept():
        names = [name for name in names if name in journal.noted("netns")]
    found += [f"network namespace: {name}" for name in names]
    if not os.path.exists("/proc/self/ns/net"):
        return found  # a kernel without them
    ours = os.readlink("/proc/self/ns/net")
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                if os.readlink(f"/proc/{pid}/ns/net") != ours and _may_be_a_tests(pid):
                    found.append(f"network namespace: of process {pid} ({files.text(f'/proc/{pid}/comm')})")
            except OSError:
                continue  # it ended, or is a kernel thread
    return found


def _may_be_a_tests(pid: str) -> bool:
    """Whether a process may be one that a test left: not one of a service that the machine runs."""
    if journal.is_kept():
        return holders.descends(int(pid), os.getppid())
    return cgroups.may_hold(pid)
