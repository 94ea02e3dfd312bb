"""Checks a file system that is not mounted, replaying its log first if that is not empty."""

from __future__ import annotations

import errno
import os
import re
import signal
import struct
import time
from typing import Any

from pytest_kernelfs.guest import commands, kmsg, syscalls
from pytest_kernelfs.guest.dispatch import GuestError

_XFS_DIRTY = b"valuable metadata changes in a log"
# Mount options with which a log stays as it is, whatever their value.
_KEEP_THE_LOG = ("ro", "norecovery", "noload", "nologreplay", "rescue")
# What a mount that replays answers when it is the device that does not let it. EIO may also be for a log that
# makes no sense (btrfs; ext4 on older kernels): there the kernel has to say, too, that the device failed.
_NOT_THE_FILE_SYSTEM = (errno.EIO, errno.EROFS, errno.EACCES, errno.ENXIO, errno.ENODEV, errno.EBUSY)
# It says so ten times in five seconds at most (DEFAULT_RATELIMIT_INTERVAL); an unmount may have used them up.
_QUIET_S = 5.5
# How the kernel tells that a device did not read or write: the block layer and its cache, XFS, jbd2. XFS says
# much the same of blocks that make no sense, with other numbers than that of EIO.
_IO_ERROR = r"\berror(,| on) dev {0},|XFS \({0}\): .*I/O error.* -?5\b|JBD2: Failed to read block at offset"
# What btrfs counts for a device; it tells first, for information, what it has counted in earlier mounts.
_BTRFS_COUNTS = r"BTRFS (\w+) \(device {0}\b[^)]*\): bdev \S+ errs: (wr \d+, rd \d+, flush \d+),"


def check(
    kind: str, device: str, command: list[str], options: str, scratch: str, timeout: float
) -> dict[str, Any]:
    """Run ``command`` on the device. A log that is not empty is replayed by mounting at ``scratch``.

    Gives a dict: ``rc`` (None if nothing was run), ``output`` (text), ``replay`` ("" or why the log could not
    be replayed although the device works), ``skipped`` ("" or why there was nothing to be run), ``unable``
    ("" or why the checker's word would mean nothing).
    """
    obstacle = _obstacle(device)
    if obstacle:
        return _result(skipped=obstacle)
    raw = None if kind in ("ext4", "btrfs") else _run(command, device, timeout)
    if _is_dirty(kind, device, raw):
        replay, skipped = _replay(kind, device, options, scratch)
        if replay or skipped:
            return _result(replay=replay, skipped=skipped)
        raw = _run(command, device, timeout) if raw else None
        if _is_dirty(kind, device, raw):
            return _result(unable="its log is not empty, although it was mounted again to replay it")
    raw = raw or _run(command, device, timeout)
    output = (raw["stdout"] + raw["stderr"]).decode("utf-8", "replace")
    return _result(raw["rc"], output, unable=_why_unable(command[0], raw["rc"], output))


def _is_dirty(kind: str, device: str, raw: dict[str, Any] | None) -> bool:
    """Whether the log is not empty: the superblock tells, or for xfs what the checker said."""
    if raw is None:
        return _log_in_use(kind, device)
    return kind == "xfs" and _XFS_DIRTY in raw["stdout"] + raw["stderr"]


def _why_unable(tool: str, rc: int, output: str) -> str:
    """Why it did not come to a judgement, if so. No checker gives 126 or 127 itself."""
    if rc == 127:
        return f"the guest has no {tool}, or not all that it needs: {output.strip()}"
    if rc == 126:
        return f"{tool} cannot be run in the guest: {output.strip()}"
    if rc < 0:
        return f"{tool} was killed by {_signal_name(-rc)} before it came to an end"
    return ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _result(
    rc: int | None = None, output: str = "", replay: str = "", skipped: str = "", unable: str = ""
) -> dict[str, Any]:
    return {"rc": rc, "output": output, "replay": replay, "skipped": skipped, "unable": unable}


def _run(command: list[str], device: str, timeout: float) -> dict[str, Any]:
    raw = commands.run([*command, device], timeout)
    if raw["rc"] is None:
        said = (raw["stdout"] + raw["stderr"])[-1000:].decode("utf-8", "replace")
        raise GuestError(f"{' '.join(command)} {device} did not end within {timeout:g} s; it said: {said}")
    return raw


def _obstacle(device: str) -> str:
    """Why the device cannot be checked, if so: it is gone, cannot be read, or somebody else works on it."""
    try:
        handle = os.open(device, os.O_RDONLY | os.O_EXCL)
    except OSError as error:
        return f"{device}: {error.strerror}"
    try:
        os.pread(handle, 4096, 0)
    except OSError as error:
        return f"{device}: {error.strerror}"
    finally:
        os.close(handle)
    return ""


def _log_in_use(kind: str, device: str) -> bool:
    """Whether its superblock says that there is something to replay."""
    with open(device, "rb") as file:
        if kind == "ext4":
            file.seek(1024)
            block = file.read(1024)
            magic, needs_recovery = block[0x38:0x3A] == b"\x53\xef", block[0x60] & 4
            return magic and bool(needs_recovery)
        file.seek(65536)
        block = file.read(4096)
        return block[64:72] == b"_BHRfS_M" and struct.unpack_from("<Q", block, 96)[0] != 0


def _replay(kind: str, device: str, options: str, scratch: str) -> tuple[str, str]:
    """Mount and unmount; gives what is wrong with the log, and why it could not even be tried."""
    kept = [option for option in options.split(",") if option.partition("=")[0] not in _KEEP_THE_LOG]
    flags, data = syscalls.split_options(",".join(kept))
    os.makedirs(scratch, exist_ok=True)
    try:
        refusal, said = _mounted(kind, device, scratch, flags, data)
        if _is_unexplained(device, refusal, said):
            time.sleep(_QUIET_S)
            refusal, said = _mounted(kind, device, scratch, flags, data)
    finally:
        os.rmdir(scratch)
    if refusal is None:
        return "", ""
    if refusal.errno in _NOT_THE_FILE_SYSTEM and not _is_unexplained(device, refusal, said):
        return "", f"{device}: {refusal.strerror}"
    return f"{refusal.strerror}; the kernel said: {' | '.join(said[-4:]) or 'nothing'}", ""


def _mounted(kind: str, device: str, scratch: str, flags: int, data: str) -> tuple[OSError | None, list[str]]:
    """Mount and unmount; gives what was refused, if so, and what the kernel logged meanwhile."""
    log = kmsg.open_at_end()
    try:
        syscalls.mount(device, scratch, kind, flags, data)
        syscalls.umount(scratch)
    except OSError as error:
        return error, [record["text"] for record in kmsg.read_from(log)]
    finally:
        os.close(log)
    return None, []


def _is_unexplained(device: str, refusal: OSError | None, said: list[str]) -> bool:
    """Whether it was EIO, and the kernel did not say that the device failed."""
    return refusal is not None and refusal.errno == errno.EIO and not _did_fail(device, said)


def _did_fail(device: str, said: list[str]) -> bool:
    """Whether the kernel said that the device did not read or write."""
    name = re.escape(os.path.basename(os.path.realpath(device)))
    before = "wr 0, rd 0, flush 0"
    for text in said:
        counted = re.search(_BTRFS_COUNTS.format(name), text)
        if counted and counted[1] == "info":
            before = counted[2]
        elif (counted and counted[2] != before) or re.search(_IO_ERROR.format(name), text):
            return True
    return False
