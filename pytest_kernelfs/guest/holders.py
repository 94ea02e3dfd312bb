"""Who keeps a mount busy."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator

_BLOCK = "/sys/block"
_MOUNTS = "/proc/self/mounts"
_SWAPS = "/proc/swaps"


def of(target: str) -> list[str]:
    """What is in use below ``target``, as text: processes, mounts and loop devices."""
    return [*_processes(target), *_mounts(target), *_loop_devices(target)]


def of_device(path: str) -> list[str]:
    """The same of a disk and its partitions. Not udev, which looks at each that is new or has changed."""
    name = os.path.basename(path)
    parts = glob.glob(f"{_BLOCK}/{name}/{name}*")
    nodes = [path, *sorted("/dev/" + os.path.basename(part) for part in parts)]
    found = [who for node in nodes for who in _processes(node) if "udev" not in who]
    with open(_MOUNTS, errors="replace") as file:
        rows = [line.split() for line in file]
    found += [f"the {fstype} mounted on {point}" for source, point, fstype, *_ in rows if source in nodes]
    with open(_SWAPS, errors="replace") as file:
        found += [f"swap on {line.split()[0]}" for line in file if line.split()[0] in nodes]
    for folder in (f"{_BLOCK}/{name}", *parts):
        found += [f"/dev/{above}" for above in _names(folder + "/holders")]
    return found


def descends(pid: int, ancestor: int) -> bool:
    """Whether a process was started by another, at whatever remove."""
    while pid > 1 and pid != ancestor:
        try:
            with open(f"/proc/{pid}/stat", errors="replace") as file:
                pid = int(file.read().rpartition(")")[2].split()[1])
        except OSError:
            return False  # it ended while we looked
    return pid == ancestor


def _processes(target: str) -> Iterator[str]:
    """The processes that have a file or folder below ``target`` open, as "pid (command)"."""
    for pid in sorted((name for name in os.listdir("/proc") if name.isdigit()), key=int):
        folder = "/proc/" + pid
        try:
            links = [
                folder + "/cwd",
                folder + "/root",
                *(folder + "/fd/" + fd for fd in os.listdir(folder + "/fd")),
            ]
            if any(_below(_link(link), target) for link in links):
                with open(folder + "/comm", errors="replace") as file:
                    yield f"{pid} ({file.read().strip()})"
        except OSError:
            continue  # it ended while we looked


def _mounts(target: str) -> Iterator[str]:
    with open(_MOUNTS, errors="replace") as file:
        for _, point, fstype, *_ in map(str.split, file):
            if point != target and _below(point, target):
                yield f"the {fstype} mounted on {point}"


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []  # it went while we looked


def _loop_devices(target: str) -> Iterator[str]:
    for path in sorted(glob.glob(f"{_BLOCK}/loop*/loop/backing_file")):
        try:
            with open(path, errors="replace") as file:
                backing = file.read().strip()
        except OSError:
            continue  # it was detached while we looked
        if _below(backing, target):
            yield f"/dev/{path.split('/')[3]} on {backing}"


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""  # closed while we looked, or a kernel thread's


def _below(path: str, target: str) -> bool:
    return (path + "/").startswith(target.rstrip("/") + "/")
