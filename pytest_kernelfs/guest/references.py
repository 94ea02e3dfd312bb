"""How often the kernel's modules are held: references that nothing explains keep one loaded for good."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Mapping
from typing import Dict  # noqa: UP035  (Python 3.8)

from pytest_kernelfs.guest import cgroups, files, filesystems, journal

Counts = Dict[str, int]  # noqa: UP006   # module -> how often it is held other than by modules

# The host brings modules that a machine was not given, below a folder of this name.
BROUGHT = "/run/kernelfs/modules"
_MODULES = "/proc/modules"
# Mounted inside the kernel for whatever registers with it, and mounted by the machine when somebody looks.
_ALWAYS_HELD = ("configfs", "binfmt_misc")
# A reference to one of these has a mount, a device or an open file for it. Those of others need not: a rule
# of a firewall, a queueing discipline, a cipher that another module looked up are set up, and stay.
_JUDGED = re.compile(r"kernel/(fs|drivers/(block|md|mtd|nvme|scsi|target))/")
_OUT_OF_TREE = "O"
# linux/major.h: memory (null, zero, kmsg), terminals.
_HARMLESS_MAJORS = {1, 4, 5, *range(136, 144)}
_OUR_PORT = "/dev/vport"
_HOLDING = ("socket:", "anon_inode:", "/sys/", "/proc/")


def counted() -> Counts:
    """How often each module is held other than by modules."""
    found: Counts = {}
    for line in files.text(_MODULES).splitlines():
        name, _size, count, users, status = line.split()[:5]
        # A kernel that cannot unload modules counts nothing, and shows "-". One that is being loaded holds
        # itself. Among the users stands "[permanent]" for a module that has no exit.
        if count.isdigit() and status == "Live":
            holders = [user for user in users.strip("-").split(",") if user and not user.startswith("[")]
            found[name] = int(count) - len(holders)
    return found


def of_filesystems() -> Counts:
    """The same of the modules of file systems: each superblock holds its own once.

    A superblock whose mount is gone from sight (unmounted lazily, in a lost namespace) shows only here.
    """
    known = filesystems.kinds()
    return {name: count for name, count in counted().items() if name in known and name not in _ALWAYS_HELD}


def unexplained(before: Mapping[str, int]) -> list[str]:
    """The modules that are held more often than ``before``, as text, if nothing is there that may hold them.

    To be asked when no mount and no device is there that was not. Only modules of file systems and of block
    devices are judged, and those that do not come with the kernel; and none on a machine that others use, or
    whose init starts what it likes.
    """
    if journal.is_kept() or cgroups.home():
        return []
    known = {*filesystems.kinds(), *_ALWAYS_HELD}
    more = {
        name: count - max(before.get(name, 0), 0)
        for name, count in counted().items()
        if name not in known and count > max(before.get(name, 0), 0)
    }
    paths = _paths() if more else {}
    held = {name: count for name, count in more.items() if _is_judged(name, paths)}
    if not held or _some_process_may_hold_them():
        return []
    return [
        f"module still in use: {name} ({count} reference{'' if count == 1 else 's'} more than before, and "
        "no module, mount, device or process to be seen that holds it)"
        for name, count in sorted(held.items())
    ]


def _is_judged(name: str, paths: Mapping[str, str]) -> bool:
    """One that came from nowhere we know of is the user's own."""
    if _OUT_OF_TREE in files.text(f"/sys/module/{name}/taint"):
        return True
    return name not in paths or _JUDGED.match(paths[name]) is not None


def _paths() -> dict[str, str]:
    """Module -> its path below the folder of all modules, such as kernel/fs/xfs/xfs.ko."""
    lines = files.text(f"/lib/modules/{os.uname().release}/modules.dep").splitlines()
    known = [line.partition(":")[0] for line in lines]
    brought = glob.glob(f"{BROUGHT}/**/*.ko", recursive=True)
    known += [os.path.relpath(path, BROUGHT) for path in brought]
    return {os.path.basename(path).partition(".")[0].replace("-", "_"): path for path in known}


def _some_process_may_hold_them() -> bool:
    """Whether a process has something open that is neither an ordinary file nor a pipe nor a terminal.

    Such a file holds a module, and which one cannot be told of all.
    """
    return any(_holds(pid) for pid in os.listdir("/proc") if pid.isdigit())


def _holds(pid: str) -> bool:
    try:
        opened = [f"/proc/{pid}/fd/{number}" for number in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return False  # it ended while we looked
    return any(map(_is_special, opened)) or _maps_a_device(pid)


def _is_special(link: str) -> bool:
    try:
        target = os.readlink(link)
        if not target.startswith("/dev/"):
            # To look at other files themselves may take for ever, on a file system that does not answer.
            return target.startswith(_HOLDING)
        status = os.stat(link)
    except OSError:
        return False  # closed while we looked, such as what the files of this process were listed with
    if not stat.S_ISCHR(status.st_mode):
        return stat.S_ISBLK(status.st_mode)
    return os.major(status.st_rdev) not in _HARMLESS_MAJORS and not target.startswith(_OUR_PORT)


def _maps_a_device(pid: str) -> bool:
    """Whether it has mapped a device, whose file it may have closed."""
    lines = [line.split(None, 5) for line in files.text(f"/proc/{pid}/maps").splitlines()]
    paths = [words[5] for words in lines if len(words) > 5]
    return any(path.startswith("/dev/") and not path.startswith(("/dev/zero", "/dev/shm/")) for path in paths)
