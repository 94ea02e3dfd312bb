"""Network namespaces under names that ip(8) knows, joined in pairs."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import socket
import struct
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from pytest_kernelfs.guest import journal, netlink, syscalls
from pytest_kernelfs.guest.dispatch import GuestError, compile_source
from pytest_kernelfs.guest.patience import Patience

FOLDER = "/run/netns"
INTERFACE = "veth0"
ADDRESSES = ("10.0.0.1", "10.0.0.2")
_PREFIX = 24
# Locally administered.
_HARDWARE = (b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02")
# linux/sched.h, linux/mount.h, linux/sockios.h, linux/if.h
_CLONE_NEWNS = 0x00020000
_CLONE_NEWNET = 0x40000000
_BIND = 4096
_PRIVATE = 0x4000 | 1 << 18
_SIOCGIFFLAGS = 0x8913
_IFF_RUNNING = 0x40
_PATIENCE_S = 5.0
_POLL_S = 0.002
# Short, so that of a stall in which the machine stood still itself hardly anything counts.
_STALL_STEP_S = 0.004

_libc = ctypes.CDLL(None, use_errno=True)


def path_of(name: str) -> str:
    return f"{FOLDER}/{name}"


def enter(name: str) -> None:
    """Bring the calling thread, and what it starts, into a namespace."""
    try:
        handle = os.open(path_of(name), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise GuestError(f"there is no network namespace {name}") from None
    try:
        _check(_libc.setns(handle, _CLONE_NEWNET))
    finally:
        os.close(handle)


def inside(name: str, function: Callable[[], Any]) -> Any:
    """What ``function`` gives in a namespace: called in a thread of its own, as namespaces are of threads."""

    def enter_and_call() -> Any:
        enter(name)
        return function()

    return _in_thread(enter_and_call)


def _in_thread(function: Callable[[], Any]) -> Any:
    outcome: list[Any] = []

    def body() -> None:
        try:
            outcome.extend((function(), None))
        except BaseException as error:
            outcome.extend((None, error))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def create_pair(left: str, right: str, queues: int) -> bool:
    """Make two namespaces, joined by interfaces that are up, have addresses and so many queues.

    False, and nothing made, if the kernel does not know veth. Raises: GuestError.
    """
    os.makedirs(FOLDER, exist_ok=True)
    made = []
    try:
        for name in (left, right):
            _in_thread(partial(_create, name))
            made.append(name)
        inside(left, lambda: _join(right, queues))
        for own, (name, other) in enumerate(((left, 1), (right, 0))):
            inside(name, partial(_configure, own, other))
        for name in (left, right):
            inside(name, _wait_until_running)
    except BaseException as error:
        remove(made)
        if isinstance(error, OSError) and error.errno == errno.EOPNOTSUPP:
            return False
        raise
    return True


def _create(name: str) -> None:
    path = path_of(name)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0o444))
    except FileExistsError:
        raise GuestError(f"there is a network namespace {name} already, which is not of this test") from None
    journal.note("netns", name)  # not before: that one is another's
    try:
        _check(_libc.unshare(_CLONE_NEWNET))
        syscalls.mount("/proc/thread-self/ns/net", path, "none", _BIND)
    except OSError as error:
        os.unlink(path)
        raise GuestError(
            f"cannot make a network namespace: {error.strerror}; the kernel needs CONFIG_NET_NS"
        ) from None


def _join(right: str, queues: int) -> None:
    peer = os.open(path_of(right), os.O_RDONLY | os.O_CLOEXEC)
    try:
        netlink.add_veth(INTERFACE, _HARDWARE[0], INTERFACE, _HARDWARE[1], peer, queues)
    finally:
        os.close(peer)


def _configure(own: int, other: int) -> None:
    index = socket.if_nametoindex(INTERFACE)
    netlink.set_up(socket.if_nametoindex("lo"))
    netlink.add_address(index, ADDRESSES[own], _PREFIX)
    netlink.set_up(index)
    netlink.add_neighbour(index, ADDRESSES[other], _HARDWARE[other])


def _wait_until_running() -> None:
    """Until the kernel has noticed that the other end is up, it drops what is sent."""
    waiting = Patience(_PATIENCE_S, _POLL_S)
    request = struct.pack("16sH14x", INTERFACE.encode(), 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        while True:
            flags = struct.unpack_from("H", fcntl.ioctl(handle, _SIOCGIFFLAGS, request), 16)[0]
            if flags & _IFF_RUNNING:
                return
            if not waiting.wait():
                raise GuestError(f"the interface {INTERFACE} has no carrier after {_PATIENCE_S:g} s")


def remove(names: list[str]) -> None:
    """Remove namespaces, with the interfaces and the processes in them; those that are gone are no error."""
    for name in names:
        path = path_of(name)
        try:
            if _is_namespace(path):
                _end_processes(path)
                # At once and here: with the namespace it would go some time later.
                inside(name, _delete_interface)
                syscalls.umount(path)
            os.unlink(path)
        except FileNotFoundError:
            continue


def _is_namespace(path: str) -> bool:
    return os.stat(path).st_dev == os.stat("/proc/self/ns/net").st_dev


def _delete_interface() -> None:
    for index, interface in socket.if_nameindex():
        if interface == INTERFACE:
            netlink.delete_link(index)


def _end_processes(path: str) -> None:
    waiting = Patience(_PATIENCE_S, _POLL_S)
    while True:
        pids = _processes_in(path)
        if not pids:
            return
        if not waiting.wait():
            raise GuestError(f"SIGKILL does not end the processes {pids} in the network namespace {path}")
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def _processes_in(path: str) -> list[int]:
    inode = os.stat(path).st_ino
    found = []
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                if os.stat(f"/proc/{pid}/ns/net").st_ino == inode:
                    found.append(int(pid))
            except OSError:
                continue  # it ended
    return found


def call_source(name: str, source: str, function: str, args: list[Any]) -> Any:
    """Run a function that came as source, in a namespace."""
    return inside(name, lambda: compile_source(source, function)(*args))


def netem(name: str, delay_ns: int, jitter_ns: int, loss: float, rate: int, limit: int) -> bool:
    """Set netem on what a namespace sends; see ``netlink.set_netem``. False if the kernel has none."""
    return _if_known(name, lambda index: netlink.set_netem(index, delay_ns, jitter_ns, loss, rate, limit))


def clear(name: str) -> None:
    """Let pass what a namespace sends."""
    inside(name, lambda: netlink.delete_qdisc(socket.if_nametoindex(INTERFACE)))


def stall(name: str, seconds: float, limit: int, queue: int) -> bool:
    """Hold back for ``seconds`` what a namespace sends, or one queue of it, then send it all in its order.

    A ``queue`` below 0 stands for all. At most ``limit`` bytes are held. The time in which the machine itself
    stands still does not count, as nobody sends then. False if the kernel has no plug.
    """
    if not _if_known(name, lambda index: netlink.set_plug(index, limit, queue)):
        return False
    try:
        waiting = Patience(seconds, _STALL_STEP_S)
        while waiting.wait():
            pass
    finally:
        inside(name, lambda: netlink.release_plug(socket.if_nametoindex(INTERFACE), queue))
    return True


def steer(name: str, processor: int) -> None:
    """Have what arrives in a namespace handled on a processor, or where it was sent if that is below 0."""
    if processor >= 0:
        online = sorted(os.sched_getaffinity(1))
        if processor not in online:
            raise GuestError(
                f"the machine has no processor {processor}, but {online}; one that is started for the test "
                "has more with the marker vm(cpus=2)"
            )
    inside(name, partial(_steer, 1 << processor if processor >= 0 else 0))


def _steer(mask: int) -> None:
    """In this thread's own view of the mounts, where /sys shows the namespace: that goes with the thread."""
    _check(_libc.unshare(_CLONE_NEWNS))
    syscalls.mount("none", "/", "none", _PRIVATE)
    syscalls.mount("sysfs", "/sys", "sysfs")
    folder = f"/sys/class/net/{INTERFACE}/queues"
    try:
        for queue in os.listdir(folder):
            if queue.startswith("rx-"):
                with open(f"{folder}/{queue}/rps_cpus", "w") as file:
                    file.write(f"{mask:x}")
    except FileNotFoundError:
        raise GuestError("this kernel does not steer received packets; it needs CONFIG_RPS") from None


def _if_known(name: str, change: Callable[[int], None]) -> bool:
    def apply() -> None:
        change(socket.if_nametoindex(INTERFACE))

    try:
        inside(name, apply)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise GuestError(
            f"the kernel refused to set that on {INTERFACE} in {name}: {error.strerror}"
        ) from None
    return True


def _check(result: int) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
