"""Where tests work on a machine that runs already: namespaces of their own, or folders apart."""

from __future__ import annotations

import ctypes
import os

from pytest_kernelfs.guest import cgroups, init, journal, loops, syscalls, tenant_cgroups, tracing
from pytest_kernelfs.guest.dispatch import GuestError
from pytest_kernelfs.guest.tenant_cgroups import Own

ROOT = "/run/kernelfs"
# linux/sched.h
_NEW_PIDS = 0x20000000
_OWN = {
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "UTS": 0x04000000,
    "IPC": 0x08000000,
    "network": 0x40000000,
}
# linux/mount.h, linux/fs.h
_RECURSIVE, _SLAVE, _DETACH = 1 << 14, 1 << 19, 2
_CGROUPS = "/sys/fs/cgroup"
# Beside our own, these show what is of the namespaces, or are where tests put what they need for a while.
_FRESH = (
    ("proc", "/proc", "proc", ""),
    ("sysfs", "/sys", "sysfs", ""),
    ("devpts", "/dev/pts", "devpts", "mode=0620,ptmxmode=0666"),
    ("tmpfs", "/dev/shm", "tmpfs", "mode=1777"),
    ("tmpfs", "/run", "tmpfs", "mode=0755"),
    ("tmpfs", "/tmp", "tmpfs", "mode=1777"),
    ("tmpfs", "/mnt", "tmpfs", "mode=0755"),
    ("tracefs", "/sys/kernel/tracing", "tracefs", ""),
    ("debugfs", "/sys/kernel/debug", "debugfs", ""),
)
# Without them there is no telling the tests' own from the machine's.
_NEEDED = ("/proc", "/sys", "/run", "/tmp", "/mnt")

_libc = ctypes.CDLL(None, use_errno=True)


def own_processes() -> None:
    """The processes that are forked from now on are in a PID namespace of their own. Raises: GuestError."""
    _unshare(_NEW_PIDS, "PID")


def enter_namespaces(own: list[Own]) -> str:
    """In the first process of the PID namespace: have the others as well, and fresh mounts in them.

    ``own`` are the cgroups that it is in. Gives the folder to mount below. Raises: GuestError.
    """
    for name, flag in _OWN.items():
        _unshare(flag, name)
    tenant_cgroups.settle(own)
    # What is unmounted outside goes here, too: we keep nobody's file system busy.
    syscalls.mount("none", "/", "none", _RECURSIVE | _SLAVE)
    _drop([target for _, target, _, _ in _FRESH])
    for source, target, fstype, options in _FRESH:
        try:
            syscalls.mount(source, target, fstype, 0, options)
        except OSError as error:
            if target in _NEEDED:
                raise GuestError(f"cannot mount a fresh {fstype} on {target}: {error.strerror}") from None
            continue
        if fstype == "tmpfs":
            journal.note("place", target, os.stat(target).st_dev)
    _mount_cgroups(own)
    init.switch_on_loopback()
    os.mkdir(ROOT)
    return "/mnt"


def _unshare(flag: int, name: str) -> None:
    if _libc.unshare(flag):
        reason = os.strerror(ctypes.get_errno())
        raise GuestError(f"the kernel gives no {name} namespace: {reason}")


def _drop(places: list[str]) -> None:
    """Let go of what is mounted at these places and below, in our view of the mounts."""
    for point in reversed(_mounted_below(places)):
        try:
            syscalls.umount(point, _DETACH)
        except OSError:
            continue  # it went with one above it


def _mounted_below(places: list[str]) -> list[str]:
    """What is mounted at these places and below, the latest last."""
    points = [point for _number, point in loops.mount_points("/proc/self/mountinfo")]
    return [point for point in points if any((point + "/").startswith(place + "/") for place in places)]


def _mount_cgroups(own: list[Own]) -> None:
    """Each hierarchy as our namespace shows it: with our cgroup for its root."""
    version_1 = [each for each in own if each.version == 1]
    if version_1:
        syscalls.mount("tmpfs", _CGROUPS, "tmpfs", 0, "mode=0755")
    for each in own:
        target = f"{_CGROUPS}/{os.path.basename(each.mount)}" if version_1 else _CGROUPS
        os.makedirs(target, exist_ok=True)
        if each.version == 1:
            syscalls.mount("cgroup", target, "cgroup", 0, each.controllers)
        else:
            syscalls.mount("cgroup2", target, "cgroup2")
            cgroups.settle(target, tenant_cgroups.AGENT)
        if "memory" in each.controllers.split(",") or each.version == 2:
            tenant_cgroups.count_dirty(target)


def take_folders(own: list[Own]) -> str:
    """Where all is seen by the others on the machine: a file system of our own, to work in.

    Gives the folder to mount below. Raises: GuestError.
    """
    tenant_cgroups.settle(own)
    there = _mounted_below([ROOT])
    if there:
        raise GuestError(f"something is mounted on {there[0]} already, and it is not known who did that")
    if not os.path.isdir(ROOT):
        journal.note("folder", ROOT)
        os.mkdir(ROOT, 0o755)
    journal.note("place", ROOT, 0)  # its number is not known yet; unnoted, it would be in everybody's way
    try:
        syscalls.mount("tmpfs", ROOT, "tmpfs", 0, "mode=0755")
    except OSError as error:
        raise GuestError(f"cannot mount a tmpfs on {ROOT}: {error.strerror}") from None
    journal.note("place", ROOT, os.stat(ROOT).st_dev)
    if not tracing.is_mounted():
        os.mkdir(tracing.OWN)
        try:
            syscalls.mount("tracefs", tracing.OWN, "tracefs")
        except OSError:
            pass  # a test that traces is told
    mounts = ROOT + "/mnt"
    os.mkdir(mounts)
    return mounts
