"""Block devices: disks by serial number, loop devices by ioctl, and what reached a disk."""

import ctypes
import errno
import fcntl
import os
import time

from pytest_kernelfs.guest.dispatch import GuestError

# linux/loop.h
_LOOP_CONFIGURE = 0x4C0A
_LOOP_CLR_FD = 0x4C01
_LOOP_CTL_GET_FREE = 0x4C82
_READ_ONLY = 1
_DIRECT_IO = 16


class _LoopInfo64(ctypes.Structure):
    _fields_ = [
        ("device", ctypes.c_uint64),
        ("inode", ctypes.c_uint64),
        ("rdevice", ctypes.c_uint64),
        ("offset", ctypes.c_uint64),
        ("sizelimit", ctypes.c_uint64),
        ("number", ctypes.c_uint32),
        ("encrypt_type", ctypes.c_uint32),
        ("encrypt_key_size", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("file_name", ctypes.c_char * 64),
        ("crypt_name", ctypes.c_char * 64),
        ("encrypt_key", ctypes.c_char * 32),
        ("init", ctypes.c_uint64 * 2),
    ]


class _LoopConfig(ctypes.Structure):
    _fields_ = [
        ("fd", ctypes.c_uint32),
        ("block_size", ctypes.c_uint32),
        ("info", _LoopInfo64),
        ("reserved", ctypes.c_uint64 * 8),
    ]


def find_disk(serial, size, timeout=10.0):
    """The device path of the virtio disk with that serial number, once it has that size in bytes."""
    deadline = time.monotonic() + timeout
    while True:
        for name in os.listdir("/sys/block"):
            if _read("/sys/block/%s/serial" % name) == serial and _size(name) == size:
                path = "/dev/" + name
                if os.path.exists(path):
                    return path
        if time.monotonic() > deadline:
            seen = ", ".join(sorted(os.listdir("/sys/block"))) or "none"
            raise GuestError("no disk with serial %s and %d bytes; block devices: %s" % (serial, size, seen))
        time.sleep(0.002)


def wait_gone(name, timeout=10.0):
    """Wait until a block device has left; False if it is still there in the end."""
    deadline = time.monotonic() + timeout
    while os.path.exists("/sys/block/" + name):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def make_sparse(path, size):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.truncate(size)


def attach_loop(backing, read_only=False, direct_io=False, sector_size=512):
    """Attach a file or device to a free loop device; gives its path.

    LOOP_CTL_GET_FREE only proposes a number, another process may take it
    first: EBUSY from LOOP_CONFIGURE means try the next.
    """
    file = os.open(backing, os.O_RDONLY if read_only else os.O_RDWR)
    try:
        while True:
            path = "/dev/loop%d" % _free_loop()
            if _configure(path, file, backing, read_only, direct_io, sector_size):
                return path
    finally:
        os.close(file)


def _free_loop():
    try:
        control = os.open("/dev/loop-control", os.O_RDWR)
    except OSError as error:
        raise GuestError("no loop devices in this kernel (/dev/loop-control: %s)" % error.strerror) from None
    try:
        return fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
    finally:
        os.close(control)


def _configure(path, file, backing, read_only, direct_io, sector_size):
    config = _LoopConfig(fd=file, block_size=sector_size)
    config.info.flags = (_READ_ONLY if read_only else 0) | (_DIRECT_IO if direct_io else 0)
    config.info.file_name = os.fsencode(backing)[-63:]
    loop = os.open(path, os.O_RDWR)
    try:
        fcntl.ioctl(loop, _LOOP_CONFIGURE, config)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise GuestError("cannot attach %s to %s: %s" % (backing, path, error.strerror)) from None
    finally:
        os.close(loop)
    return True


def detach_loop(path, timeout=5.0):
    """Detach and wait until it is really free: the kernel accepts the request while it is still in use."""
    loop = os.open(path, os.O_RDWR)
    try:
        fcntl.ioctl(loop, _LOOP_CLR_FD)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
    finally:
        os.close(loop)
    backing = "/sys/block/%s/loop/backing_file" % os.path.basename(path)
    deadline = time.monotonic() + timeout
    while os.path.exists(backing):
        if time.monotonic() > deadline:
            raise GuestError("%s is still in use %g s after it was detached" % (path, timeout))
        time.sleep(0.002)


def disk_below(path):
    """The name of the block device below the file system that holds ``path``, following loops; "" if none."""
    number = os.stat(path).st_dev
    for _ in range(8):
        name = os.path.basename(os.path.realpath("/sys/dev/block/%d:%d" % (os.major(number), os.minor(number))))
        if not os.path.exists("/sys/block/" + name):
            return ""
        backing = _read("/sys/block/%s/loop/backing_file" % name)
        if not backing or not os.path.exists(backing):
            return name
        status = os.stat(backing)
        below = status.st_rdev or status.st_dev
        if not os.path.exists("/sys/dev/block/%d:%d" % (os.major(below), os.minor(below))):
            return name
        number = below
    return ""


def bytes_written(name):
    """Bytes written to a block device since it appeared; the unit of its statistics is 512 bytes."""
    return int(_read("/sys/block/%s/stat" % name).split()[6]) * 512


def _size(name):
    return int(_read("/sys/block/%s/size" % name) or 0) * 512


def _read(path):
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""
