"""PID 1 of a machine that we booted: prepares the root, then serves one conversation after another.

Every conversation with the host runs in a child process of its own, so that
a call that misbehaves takes at most its conversation with it, and a machine
that was saved while it waited can be talked to by any later host.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from typing import NoReturn

from pytest_kernelfs.guest import conversation, image_boot, netlink, syscalls

PORT_NAME = "kernelfs"
WAITING = "waiting for the host"
_POLL_S = 0.002
_BUSY_S = 0.05
_NO_MESSAGE = struct.pack("!bii", 127, 0, 0)

_MOUNTS = (
    ("proc", "/proc", "proc", ""),
    ("sysfs", "/sys", "sysfs", ""),
    ("devtmpfs", "/dev", "devtmpfs", "mode=0755"),
    ("devpts", "/dev/pts", "devpts", "mode=0620,ptmxmode=0666"),
    ("tmpfs", "/dev/shm", "tmpfs", "mode=1777"),
    ("tmpfs", "/run", "tmpfs", "mode=0755"),
    ("tmpfs", "/tmp", "tmpfs", "mode=1777"),
    ("cgroup2", "/sys/fs/cgroup", "cgroup2", ""),
    ("tracefs", "/sys/kernel/tracing", "tracefs", ""),
    ("debugfs", "/sys/kernel/debug", "debugfs", ""),
)

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
}


class PortIO(conversation.DescriptorIO):
    """The machine's end of the channel.

    The first read waits for a host to connect. A machine is saved while it waits there, with all that a
    conversation needs in place: an emulated processor translates whatever a fork has left to do.
    """

    def __init__(self, last_was_killed: bool = False) -> None:
        super().__init__(-1)
        self._hang_up = last_was_killed

    def read(self, numbytes: int) -> bytes:
        if self.descriptor < 0:
            self.descriptor = _wait_for_host(to_speak=not self._hang_up)
            if self._hang_up:
                # The host still waits for the conversation that was killed, and sees no end of it: a port
                # has no hang-up. What is no message ends its side.
                self.write(_NO_MESSAGE)
        return super().read(numbytes)


def log(message: str) -> None:
    """One line on the serial console, where the host keeps everything."""
    with open("/dev/console", "w") as console:
        console.write(f"kernelfs: {message}\n")


def main() -> NoReturn:
    for_init = dict(os.environ)
    set_environment()
    _mount(_MOUNTS[:1])
    wanted = image_boot.wishes()
    if "root" in wanted:
        image_boot.mount_rest()
        _load_modules()
        image_boot.boot(wanted, for_init, log)
    _mount(_MOUNTS[1:])
    _link_descriptors()
    _load_modules()
    switch_on_loopback()
    conversation.import_all()
    serve()


def set_environment() -> None:
    """The environment of what tests start, and nothing else."""
    os.environ.clear()
    os.environ.update(_ENVIRONMENT)


def serve() -> NoReturn:
    """Serve hosts, one conversation after another."""
    talking, was_killed = 0, False
    while True:
        if not talking:
            talking = fork()
            if not talking:
                conversation.converse_and_exit(PortIO(was_killed), log)
        pid, status = os.wait()
        if pid == talking:
            talking, was_killed = 0, os.WIFSIGNALED(status)


def fork() -> int:
    """As ``os.fork``, as soon as there is room for one more process.

    There may be none for long: tests use up all numbers of processes, or all memory. That is theirs to see;
    were it to end this process, the kernel would panic for it.
    """
    while True:
        try:
            return os.fork()
        except OSError:
            _bury()
            time.sleep(_POLL_S)


def _bury() -> None:
    """Let go of all that has ended: it takes up room, too."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _mount(mounts: tuple[tuple[str, str, str, str], ...]) -> None:
    for source, target, fstype, options in mounts:
        try:
            os.makedirs(target, exist_ok=True)
            syscalls.mount(source, target, fstype, 0, options)
        except OSError as error:
            # Old or small kernels lack some of these; what needs one of them says so itself.
            log(f"cannot mount {target}: {error}")


def _link_descriptors() -> None:
    for name, target in (
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
    ):
        try:
            os.symlink(target, "/dev/" + name)
        except FileExistsError:
            pass


def switch_on_loopback() -> None:
    try:
        netlink.set_up(socket.if_nametoindex("lo"))
    except OSError as error:
        # A small kernel may have no network at all.
        log(f"cannot switch on the loopback interface: {error}")


def _load_modules() -> None:
    """Load what the archive lists; a kernel that has one built in, or not at all, is no error."""
    import subprocess

    try:
        with open("/etc/kernelfs/modules") as file:
            names = file.read().split()
    except FileNotFoundError:
        return
    if names:
        subprocess.call(["modprobe", "-a", "-q", *names], stdin=subprocess.DEVNULL)


def _wait_for_host(to_speak: bool) -> int:
    """The opened port, as soon as a host is connected to its other end, and has spoken."""
    port = _open_port()
    log(WAITING)
    poller = select.poll()
    poller.register(port, select.POLLIN)
    while True:
        # A port whose host is away reports POLLHUP at once, so waiting has to be done here.
        events = dict(poller.poll() if to_speak else poller.poll(0)).get(port, 0)
        if not events & select.POLLHUP and (events & select.POLLIN or not to_speak):
            return port
        time.sleep(_POLL_S)


def _open_port() -> int:
    """The port, as soon as it is there, and free: it has one owner.

    Processes that a killed agent has forked may own it still; to end for that would be to forget that there
    is somebody to be hung up on.
    """
    path = None
    while path is None:
        path = _find_port()
        if path is None:
            time.sleep(_POLL_S)
    while True:
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            time.sleep(_BUSY_S)


def _find_port() -> str | None:
    folder = "/sys/class/virtio-ports"
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return None
    for name in names:
        try:
            with open(f"{folder}/{name}/name") as file:
                if file.read().strip() == PORT_NAME:
                    return "/dev/" + name
        except OSError:
            continue
    return None


if __name__ == "__main__":
    main()
