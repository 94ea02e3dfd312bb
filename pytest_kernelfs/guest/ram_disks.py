"""Block devices that live in the machine's memory: null_blk, zram, brd, scsi_debug."""

from __future__ import annotations

import ctypes
import errno
import glob
import os

from pytest_kernelfs.guest import attributes, holders, journal, syscalls
from pytest_kernelfs.guest.dispatch import GuestError
from pytest_kernelfs.guest.patience import Patience

_CONFIGFS = "/sys/kernel/config"
_NULL_BLK = _CONFIGFS + "/nullb"
_ZRAM_CONTROL = "/sys/class/zram-control"
_POLL_S = 0.005
# To see who uses a disk takes a look at all processes.
_LOOK_S = 0.05
# Who is seen to use a disk has no more time to end.
_SEEN_S = 2.0
# Where udev runs, it opens each disk that is new or has changed, and takes its time for that.
_LOOKED_AT_S = 20.0

_libc = ctypes.CDLL(None, use_errno=True)


def mount_configfs() -> bool:
    """Mount configfs; False if it is mounted already."""
    if os.path.isdir(_NULL_BLK):
        return False
    try:
        syscalls.mount("configfs", _CONFIGFS, "configfs")
    except OSError as error:
        raise GuestError(f"null_blk is set up through configfs, which is not there: {error}") from None
    return True


def make_null_blk(name: str, attributes: dict[str, str]) -> str:
    """Make a null_blk device with these attributes of its configfs folder; gives its path."""
    folder = f"{_NULL_BLK}/{name}"
    os.mkdir(folder)
    journal.note("null_blk", name)
    try:
        set_null_blk(name, attributes)
        _set(folder, "power", "1", "null_blk")
        # From 6.3 on, the device has the name of the folder.
        return _appeared([f"/dev/{name}", f"/dev/nullb{_get(folder + '/index')}"])
    except GuestError:
        remove_null_blk(name)
        raise


def remove_null_blk(name: str) -> bool:
    """Remove a null_blk device; False if it is gone already."""
    folder = f"{_NULL_BLK}/{name}"
    try:
        attributes.write(folder + "/power", "0")
        os.rmdir(folder)
    except FileNotFoundError:
        return False
    return True


def set_null_blk(name: str, attributes: dict[str, str]) -> None:
    """Change attributes of a null_blk device in use."""
    for key, value in attributes.items():
        _set(f"{_NULL_BLK}/{name}", key, value, "null_blk")


def make_zram(size: int, algorithm: str) -> str:
    """Make a zram device, "" for the kernel's own algorithm; gives its path."""
    number = _get(_ZRAM_CONTROL + "/hot_add")
    folder = f"/sys/block/zram{number}"
    journal.note("zram", f"/dev/zram{number}")
    try:
        if algorithm:
            _set_algorithm(folder, algorithm)
        _set(folder, "disksize", str(size), "zram")
        return _appeared([f"/dev/zram{number}"])
    except GuestError:
        remove_zram(f"/dev/zram{number}")
        raise


class _Busy:
    """How long to wait while a disk is in use: ``patience`` seconds, and fewer if it is seen by whom."""

    def __init__(self, disk: str, patience: float) -> None:
        self._disk = disk
        self._seen = Patience(min(patience, _SEEN_S), _LOOK_S)
        self._unseen = Patience(patience, _LOOK_S if disk else _POLL_S)
        self.why = "" if disk else "; something may still use its devices"

    def wait(self) -> bool:
        found = holders.of_device(self._disk) if self._disk else []
        if self._disk:
            self.why = f"; in use by {', '.join(found)}" if found else "; nobody is seen to use it"
        return (self._seen if found else self._unseen).wait()


def remove_zram(path: str, patience: float = _LOOKED_AT_S) -> bool:
    """Remove a zram device; False if it is gone already.

    While it is in use, wait ``patience`` seconds, and not that long for what is seen to use it.
    """
    name = os.path.basename(path)
    folder = f"/sys/block/{name}"
    waiting = _Busy(path, patience)
    while True:
        if not os.path.isdir(folder):
            return False
        try:
            attributes.write(folder + "/reset", "1")
            attributes.write(_ZRAM_CONTROL + "/hot_remove", name[len("zram") :])
            journal.forget("zram", path)
            return True
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.ENOENT):
                return False
            if error.errno != errno.EBUSY or not waiting.wait():
                raise GuestError(f"cannot remove {path}: {error.strerror}{waiting.why}") from None


def zram_usage(path: str) -> tuple[int, int, int]:
    """Bytes: of the data that was stored, of that compressed, of memory used."""
    words = _get(f"/sys/block/{os.path.basename(path)}/mm_stat").split()
    return int(words[0]), int(words[1]), int(words[2])


def find_brd(number: int, size: int) -> str:
    """The path of a brd device, once it is there with that size in bytes."""
    path = _appeared([f"/dev/ram{number}"])
    real = int(_get(f"/sys/block/ram{number}/size")) * 512
    if real != size:
        raise GuestError(
            f"{path} has {real} bytes instead of {size}; a brd that is built into the kernel takes its "
            "size from the kernel's command line"
        )
    return path


def find_scsi_debug(size: int, timeout: float) -> str:
    """The path of the disk of scsi_debug, once the kernel has found it; it looks in the background."""
    pattern = "/sys/bus/pseudo/drivers/scsi_debug/adapter*/host*/target*/*/block/*"
    waiting = Patience(timeout, _POLL_S)
    while True:
        for folder in glob.glob(pattern):
            if int(_get(folder + "/size") or 0) * 512 == size:
                path = "/dev/" + os.path.basename(folder)
                if os.path.exists(path):
                    return path
        if not waiting.wait():
            raise GuestError(
                f"scsi_debug was loaded, but no disk of {size} bytes appeared within {timeout:g} s; "
                f"there are: {', '.join(glob.glob(pattern)) or 'none'}"
            )


def is_loaded(module: str) -> bool:
    """Whether a module is loaded; one that is built in is not."""
    return os.path.exists(f"/sys/module/{module}/initstate")


def unload(module: str, disk: str = "", patience: float = _LOOKED_AT_S) -> bool:
    """Unload a module; False if it is not loaded.

    While it is in use, wait ``patience`` seconds, and not that long for what is seen to use ``disk``, its
    only one.
    """
    waiting = _Busy(disk, patience)
    while _libc.delete_module(module.encode(), os.O_NONBLOCK):
        code = ctypes.get_errno()
        if code == errno.ENOENT:
            return False
        if code not in (errno.EWOULDBLOCK, errno.EBUSY) or not waiting.wait():
            raise GuestError(f"cannot unload the module {module}: {os.strerror(code)}{waiting.why}")
    return True


def _set_algorithm(folder: str, algorithm: str) -> None:
    try:
        attributes.write(folder + "/comp_algorithm", algorithm)
    except OSError:
        known = _get(folder + "/comp_algorithm").replace("[", "").replace("]", "")
        raise GuestError(
            f"zram of this kernel has no algorithm {algorithm!r} at hand; it names: {known}; "
            "others may come with a module (vm.modprobe)"
        ) from None


def _set(folder: str, key: str, value: str, what: str) -> None:
    try:
        attributes.write(f"{folder}/{key}", value)
    except FileNotFoundError:
        known = ", ".join(sorted(os.listdir(folder)))
        raise GuestError(f"{what} of this kernel has no attribute {key!r}; it has: {known}") from None
    except OSError as error:
        raise GuestError(f"{what} refused {key}={value}: {error.strerror}") from None


def _get(path: str) -> str:
    with open(path) as file:
        return file.read().strip()


def _appeared(paths: list[str], timeout: float = 5.0) -> str:
    waiting = Patience(timeout, _POLL_S)
    while True:
        for path in paths:
            if os.path.exists(path):
                return path
        if not waiting.wait():
            raise GuestError(f"none of {', '.join(paths)} appeared within {timeout:g} s")
