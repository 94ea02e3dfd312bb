"""Disks for a machine that is given none: loop devices, slowed down by the block controller of cgroups."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Tuple  # noqa: UP035  (Python 3.8)

from pytest_kernelfs.guest import blocks, files, journal, loops, meminfo

_IN_MEMORY = "/run/kernelfs/disks"
_ON_DISK = "/var/tmp"
_V1 = "blkio.throttle."
_V1_FILES = {
    "write_bps": ("write_bps_device",),
    "read_bps": ("read_bps_device",),
    "iops": ("read_iops_device", "write_iops_device"),
}
_V2_KEYS = {"write_bps": ("wbps",), "read_bps": ("rbps",), "iops": ("riops", "wiops")}

Refusable = Tuple[Any, str]  # noqa: UP006   # a value, and "" or why there is none

# Folders of cgroups whose requests are slowed down: (version, the open folder, its path from outside).
_doors: List[Tuple[int, int, str]] = []  # noqa: UP006
# What is held in memory of each disk: its path -> bytes.
_in_memory: Dict[str, int] = {}  # noqa: UP006


def slow_down(version: int, folder: str) -> None:
    """Have limits set in that folder of a cgroup, which is opened now: it may be out of sight later."""
    _doors.append((version, os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), folder))


def attach(size: int, sector_size: int, cache: str, limits: dict[str, int]) -> Refusable:
    """A fresh disk: its path, which is its serial number too.

    ``limits`` are ``write_bps``, ``read_bps`` and ``iops``, 0 for none. The file behind it has no name, and
    is gone with the device.
    """
    refusal = _why_no_limits(limits)
    if refusal:
        return None, refusal
    in_memory = _fits_in_memory(size)
    backing = f"{_IN_MEMORY if in_memory else _ON_DISK}/kernelfs-disk-{os.urandom(4).hex()}"
    journal.note("file", backing)
    blocks.make_sparse(backing, size)
    try:
        path = blocks.attach_loop(backing, sector_size=sector_size)
    finally:
        os.unlink(backing)
    try:
        _announce(path, cache)
        _set_limits(path, limits)
    except BaseException:
        detach(path)
        raise
    if in_memory:
        _in_memory[path] = size
    return path, ""


def _fits_in_memory(size: int) -> bool:
    """Whether what is available can hold all disks twice, should they be filled."""
    available = meminfo.read("MemAvailable")["MemAvailable"]
    return 2 * (size + sum(_in_memory.values())) <= available


def throttle(path: str, limits: dict[str, int]) -> Refusable:
    """Set the limits of a disk from now on."""
    refusal = _why_no_limits(limits)
    if not refusal:
        _set_limits(path, limits)
    return None, refusal


def detach(path: str) -> tuple[None, str]:
    """Take a disk away; one that is gone already is no error."""
    _in_memory.pop(path, None)
    if path not in set(loops.ours(journal.entries())):
        return None, ""
    _set_limits(path, {})
    _announce(path, "writeback")
    blocks.detach_loop(path)
    return None, ""


def _announce(path: str, cache: str) -> None:
    """Whether the disk tells of a volatile write cache: a setting that the device keeps for the next file."""
    file = f"/sys/block/{os.path.basename(path)}/queue/write_cache"
    wanted = {"writeback": "write back", "writethrough": "write through"}[cache]
    if files.text(file) != wanted:
        journal.note("write cache", file, files.text(file), wanted)
        with open(file, "w") as attribute:
            attribute.write(wanted)


def _why_no_limits(limits: dict[str, int]) -> str:
    """What a machine is that cannot slow a disk down; "" if it can, or need not."""
    if _doors or not any(limits.values()):
        return ""
    return (
        "cannot slow disks down: its kernel gives our cgroup no block controller (io of version 2, with "
        "CONFIG_BLK_DEV_THROTTLING, or blkio of version 1)"
    )


def _set_limits(path: str, limits: dict[str, int]) -> None:
    """In each of the cgroups: what version 1 counts in one, it does not count in those above."""
    number = os.stat(path).st_rdev
    device = f"{os.major(number)}:{os.minor(number)}"
    for version, folder, shown in _doors:
        if version == 2:
            words = [f"{key}={limits.get(name) or 'max'}" for name, keys in _V2_KEYS.items() for key in keys]
            if any(limits.values()):
                journal.note("throttle", f"{shown}/io.max", device, "")
            _write(folder, "io.max", f"{device} {' '.join(words)}")
            continue
        for name, ends in _V1_FILES.items():
            for end in ends:
                if limits.get(name):
                    journal.note("throttle", f"{shown}/{_V1}{end}", device, str(limits[name]))
                _write(folder, _V1 + end, f"{device} {limits.get(name, 0)}")


def _write(folder: int, name: str, text: str) -> None:
    handle = os.open(name, os.O_WRONLY, dir_fd=folder)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)
