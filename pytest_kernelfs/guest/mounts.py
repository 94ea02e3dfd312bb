"""Mounting, and unmounting under the stopwatch."""

from __future__ import annotations

import errno
import os
import threading
import time
from typing import Any, NoReturn

from pytest_kernelfs.guest import blocks, holders, kmsg, meminfo, syscalls, waiting
from pytest_kernelfs.guest.dispatch import GuestError
from pytest_kernelfs.guest.patience import Patience


def mount(source: str, target: str, fstype: str, options: str = "") -> None:
    """Mount, with options as for mount(8); an error carries the kernel's errno and what it logged."""
    flags, data = syscalls.split_options(options)
    os.makedirs(target, exist_ok=True)
    _mount(source, target, fstype, flags, data, f"mount -t {fstype} -o '{options}' {source} {target}")


def remount(target: str, options: str) -> None:
    """Change the options of a mount, as mount(8) does: what is not named of its flags stays as it is."""
    current = [option for option in _options_of(target) if option in syscalls.MOUNT_FLAGS]
    flags, data = syscalls.split_options(",".join([*current, options]))
    said = f"mount -o 'remount,{options}' {target}"
    _mount("none", target, "none", flags | syscalls.REMOUNT, data, said)


def _mount(source: str, target: str, fstype: str, flags: int, data: str, shown: str) -> None:
    log = kmsg.open_at_end()
    try:
        syscalls.mount(source, target, fstype, flags, data)
    except OSError as error:
        raise GuestError(f"{shown}: {error.strerror}; {kmsg.heard(log)}") from None
    finally:
        os.close(log)


def _options_of(target: str) -> list[str]:
    """The options of the topmost mount at ``target``; empty if nothing is mounted there."""
    with open("/proc/self/mounts", errors="replace") as file:
        found = [fields[3] for fields in map(str.split, file) if fields[1] == target]
    return found[-1].split(",") if found else []


def is_mounted(target: str) -> bool:
    """Whether something is mounted there, whoever did it."""
    return bool(_options_of(target))


def umount(target: str, patience: float = 2.0) -> bool:
    """Unmount; False if nothing was mounted there. What keeps it busy has ``patience`` seconds to end."""
    busy = Patience(patience)
    while True:
        try:
            syscalls.umount(target)
            return True
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return False
            if error.errno == errno.EBUSY and busy.wait():
                continue
            _say_why_not(target, error)


def _say_why_not(target: str, error: OSError) -> NoReturn:
    found = ", ".join(holders.of(target)) or "no process, mount or loop device that shows"
    raise GuestError(f"umount {target}: {error.strerror}; held by {found}") from None


def umount_timed(targets: list[str], backing: list[str], parallel: bool) -> dict[str, Any]:
    """Unmount all targets, each call timed with CLOCK_MONOTONIC around umount2(2) itself.

    ``backing`` is a path for each target that lies on the file system written back to. In parallel,
    one thread per target waits at a barrier; otherwise one after another in the given order.
    Gives a dict, with lists in the order of the targets: ``seconds``, ``errors`` (text or ""), ``holders``
    (who keeps a busy one), ``waited`` (where the umount was seen to wait, see ``waiting.Waits.most``), and
    ``written`` (device -> bytes that reached the disk meanwhile), ``watch`` (samples of Dirty and Writeback).
    """
    devices = sorted({blocks.disk_below(path) for path in backing} - {""})
    before = {device: blocks.bytes_written(device) for device in devices}
    seconds = [0.0] * len(targets)
    errors = [""] * len(targets)
    busy: list[int] = []
    waits = waiting.Waits()
    barrier = threading.Barrier(len(targets))

    def one(index: int) -> None:
        waits.begin(index)
        if parallel:
            barrier.wait()
        start = time.monotonic()
        try:
            syscalls.umount(targets[index])
        except OSError as error:
            errors[index] = error.strerror or str(error)
            if error.errno == errno.EBUSY:
                busy.append(index)
        seconds[index] = time.monotonic() - start
        waits.end(index)

    with meminfo.Watch(beside=waits.look) as watch:
        if parallel:
            threads = [threading.Thread(target=one, args=(index,)) for index in range(len(targets))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        else:
            for index in range(len(targets)):
                one(index)
    written = {device: blocks.bytes_written(device) - before[device] for device in devices}
    return {
        "seconds": seconds,
        "errors": errors,
        "holders": [holders.of(target) if index in busy else [] for index, target in enumerate(targets)],
        "waited": [waits.most(index) for index in range(len(targets))],
        "written": written,
        "watch": watch.samples,
    }
