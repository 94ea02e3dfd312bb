"""What makes a fork a machine of its own: name, clock, random numbers."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import struct
import time

from pytest_kernelfs.guest import audit

# linux/random.h
_RNDADDENTROPY = 0x40085203
_RNDRESEEDCRNG = 0x5207


def set_clock(now: float) -> None:
    """Take the host's time, in seconds since the epoch."""
    time.clock_settime(time.CLOCK_REALTIME, now)


def adopt(name: str, now: float, entropy: bytes) -> int:
    """Take a host name, the host's time (seconds since the epoch), and random numbers of one's own.

    Gives the number of the first record in the kernel's log that is this machine's own.

    Machines that were saved with the same memory would otherwise draw the
    same numbers: kernels before 5.18 know nothing of vmgenid, and the others
    hear of it some time later.
    """
    socket.sethostname(name)
    set_clock(now)
    handle = os.open("/dev/urandom", os.O_WRONLY)
    try:
        bits = 8 * len(entropy)
        fcntl.ioctl(handle, _RNDADDENTROPY, struct.pack(f"ii{len(entropy)}s", bits, len(entropy), entropy))
        fcntl.ioctl(handle, _RNDRESEEDCRNG)
    finally:
        os.close(handle)
    random.seed(int.from_bytes(entropy, "little"))
    return audit.own_log_begins(f"kernelfs: this is {name}")
