"""How much room is used, and whether it comes back."""

from __future__ import annotations

import os
import stat
import time
from typing import Any

from pytest_kernelfs.guest import loops, syscalls
from pytest_kernelfs.guest.dispatch import GuestError
from pytest_kernelfs.guest.patience import Patience

_POLL_S = 0.05
_MOUNTS = "/proc/self/mountinfo"


def used(path: str, sync: bool) -> dict[str, Any]:
    """``used`` bytes, ``how`` they were counted, and ``place`` and ``device``, to look at again later.

    Of a folder: those of the file system that holds it (statfs); its ``place`` is the mount point, which is
    there still if the folder is deleted. Of a file: those that are allocated to it (st_blocks), which for a
    sparse file behind a loop device or in a thin pool is what was ever written and not discarded.
    ``sync`` writes dirty data back first. ``device`` is the number of the device that deleted files are on.

    Raises: GuestError for a device, and what is not there.
    """
    status = _status(path)
    if stat.S_ISBLK(status.st_mode):
        raise GuestError(
            f"{path} is a device, which does not tell what is used of it; name the mount of the file system "
            "on it, or the file behind it"
        )
    if sync:
        syscalls.sync_file_system(path)
        status = _status(path)
    if stat.S_ISREG(status.st_mode):
        taken, how, place = status.st_blocks * 512, "allocated blocks of the file", path
    else:
        # Of the mount point, now as later: a folder with a project quota would tell of the project alone.
        place, how = _mount_point(path), "statfs"
        room = os.statvfs(place)
        taken = (room.f_blocks - room.f_bfree) * room.f_frsize
    return {"used": taken, "how": how, "place": place, "device": status.st_dev}


def _status(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except FileNotFoundError:
        raise GuestError(
            f"there is no {path} (any more), and nothing tells what is used of it; to see what comes back "
            "when a file is deleted, name the mount or a folder that it lies in"
        ) from None


def _mount_point(path: str) -> str:
    """Where that is mounted which holds ``path``."""
    points = {point for _number, point in loops.mount_points(_MOUNTS)}
    place = os.path.realpath(path)
    while place != "/" and place not in points:
        place = os.path.dirname(place)
    return place


def wait_until_used(place: str, at_most: int, within: float, sync: bool, device: int) -> dict[str, Any]:
    """Wait until no more than ``at_most`` bytes are used, up to ``within`` seconds.

    ``place`` and ``device`` are as ``used`` gave them. Gives ``used``, ``seconds`` and, if it did not come so
    far, ``held``: files that were deleted and are still open, as (bytes, path, "pid (command)").
    """
    # How long to look is the user's to say, but nobody's speed is judged by it: space that the last look
    # finds free is free however late that look was. What frees it works in the background, and needs the
    # time that the machine has, not that which its host takes away.
    waiting = Patience(within, _POLL_S)
    start = time.monotonic()
    while True:
        now = used(place, sync)["used"]
        seconds = time.monotonic() - start
        if now <= at_most:
            return {"used": now, "seconds": seconds, "held": []}
        if not waiting.wait():
            return {"used": now, "seconds": seconds, "held": deleted_but_open(device)}


def deleted_but_open(device: int) -> list[tuple[int, str, str]]:
    """The files on a file system that have no name any more, and a process that has them open."""
    found: dict[tuple[str, int], tuple[int, str, str]] = {}
    for pid in (name for name in os.listdir("/proc") if name.isdigit()):
        folder = f"/proc/{pid}"
        try:
            for fd in os.listdir(folder + "/fd"):
                link = f"{folder}/fd/{fd}"
                status = os.stat(link)
                if status.st_dev == device and status.st_nlink == 0 and stat.S_ISREG(status.st_mode):
                    with open(folder + "/comm", errors="replace") as file:
                        holder = f"{pid} ({file.read().strip()})"
                    size = status.st_blocks * 512
                    found[pid, status.st_ino] = size, os.readlink(link).replace(" (deleted)", ""), holder
        except OSError:
            continue  # the process ended while we looked
    return sorted(found.values(), reverse=True)
