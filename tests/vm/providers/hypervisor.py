"""A libvirtd of a test's own, in mount, network and PID namespaces of its own.

All that machines send over their networks stays inside, and whatever ends the test run ends libvirtd, its
helpers and all machines along with it. Commands, such as a whole inner run of pytest, run inside with
``Hypervisor.run`` or with the words of ``Hypervisor.inside`` before them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_kernelfs.machines.guarded import guarded
from pytest_kernelfs.machines.lease import ProcessId

URI = "qemu:///system"
_SOCKET = "run/libvirt/libvirt-sock"
_PATIENCE_S = 300.0
_NEEDED = ("libvirtd", "unshare", "nsenter", "mount", "ip")
_SBIN = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])

# As root, or libvirt asks an unreadable /dev/kvm again and again before it defines a machine.
_QEMU_CONF = 'stdio_handler = "file"\nsecurity_driver = "none"\nuser = "root"\ngroup = "root"\n'
_DAEMON_CONF = 'unix_sock_rw_perms = "0777"\nauth_unix_rw = "none"\n'

# A shell as the first process reaps what nobody waits for; without it, to end a machine takes 2 s.
_FIRST_PROCESS = """
set -e
mount --make-rprivate /
mount -t proc proc /proc
# Without the control groups of the host: libvirt would make some for machines, and leave them.
umount -l /sys
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -p /run/libvirt /run/lock
for pair in lib:/var/lib/libvirt etc:/etc/libvirt log:/var/log/libvirt cache:/var/cache/libvirt; do
    mkdir -p "${pair#*:}"
    mount --bind "$1/${pair%%:*}" "${pair#*:}"
done
ip link set lo up
set +e
libvirtd -p /run/libvirt/self.pid 2>> "$1/libvirtd.log" &
while :; do wait; sleep 1; done
"""


class Hypervisor:
    """A running libvirtd; ``folder`` holds its files, and is to be short, for sockets."""

    uri = URI

    def __init__(self, folder: Path) -> None:
        """Start it and wait until it listens."""
        self.folder = folder
        # What machines' disks lie in has to be entered by whoever runs them.
        folder.chmod(0o755)
        for name in ("lib/images", "etc", "log", "cache"):
            (folder / name).mkdir(parents=True)
        (folder / "etc/qemu.conf").write_text(_QEMU_CONF)
        (folder / "etc/libvirtd.conf").write_text(_DAEMON_CONF)
        self._first: ProcessId | None = None
        own = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]
        with (folder / "namespaces.log").open("wb") as log:
            self._process = subprocess.Popen(
                guarded([*own, "sh", "-c", _FIRST_PROCESS, "first", str(folder)]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, "PATH": _SBIN},
                start_new_session=True,
            )
        try:
            self.init = self._until(self._find_init)
            self._first = ProcessId.of(self.init)
            self._until(self._listens)
        except BaseException:
            self.close()
            raise

    def _find_init(self) -> int | None:
        """The first process inside, by its number outside."""
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children and Path(f"/proc/{pid}/comm").read_text() == "unshare\n" else None

    def _listens(self) -> bool:
        try:
            return Path(f"/proc/{self.init}/root/{_SOCKET}").is_socket() and bool(self.daemon)
        except OSError:
            return False

    def _until(self, happened: Callable[[], int | None]) -> int:
        deadline = time.monotonic() + _PATIENCE_S
        while not (found := happened()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                told = "".join(path.read_text()[-2000:] for path in sorted(self.folder.glob("*.log")))
                raise RuntimeError(f"libvirtd did not start: {told}")
            time.sleep(0.01)
        return found

    @property
    def inside(self) -> list[str]:
        """What to put before a command that is to run inside; it ends when this process of nsenter does."""
        entered = ["nsenter", f"--target={self.init}", "--mount", "--net", "--pid", f"--wd={Path.cwd()}"]
        return [*entered, "--", "setpriv", "--pdeathsig", "KILL", "--"]

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float = 300.0,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside; standard error comes with standard output. A failure is no error."""
        placed = ["env", f"--chdir={cwd}", *command] if cwd is not None else list(command)
        return subprocess.run(
            [*self.inside, *placed],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": _SBIN, **(env or {})},
            text=True,
            timeout=timeout,
            check=False,
        )

    def virsh(self, *words: str) -> str:
        """What virsh prints. Raises: AssertionError if it fails."""
        done = self.run(["virsh", "--quiet", "--connect", URI, *words], timeout=300)
        assert done.returncode == 0, done.stdout
        return done.stdout.strip()

    @property
    def daemon(self) -> int | None:
        """libvirtd's process, by its number outside; None if it does not run."""
        return next(iter(self.processes("libvirtd")), None)

    def machines(self) -> list[int]:
        """The processes of all machines inside, by their numbers outside."""
        return self.processes("qemu-system-")

    def processes(self, name: str) -> list[int]:
        """The processes inside whose program's name begins so, by their numbers outside."""
        found = []
        mine = Path(f"/proc/{self.init}/ns/pid").readlink()
        for path in Path("/proc").glob("[0-9]*"):
            try:
                program = (path / "exe").readlink().name
                if program.startswith(name) and (path / "ns/pid").readlink() == mine:
                    found.append(int(path.name))
            except OSError:
                continue
        return found

    def kill_daemon(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send libvirtd a signal, SIGKILL unless told; its machines run on."""
        daemon = self.daemon
        assert daemon is not None
        os.kill(daemon, number)
        if number == signal.SIGKILL:
            self._until(lambda: self.daemon is None)

    def start_daemon(self) -> None:
        """Start libvirtd again after ``kill_daemon``, and wait until it listens."""
        Path(f"/proc/{self.init}/root/{_SOCKET}").unlink(missing_ok=True)
        done = self.run(["libvirtd", "-d", "-p", "/run/libvirt/self.pid"])
        assert done.returncode == 0, done.stdout
        self._until(self._listens)

    def close(self) -> None:
        """End everything inside; what is left is ``folder``."""
        if self._process.poll() is None:
            # Everything in a PID namespace ends with its first process, which ends with unshare.
            self._process.kill()
        self._process.wait()
        deadline = time.monotonic() + _PATIENCE_S
        while self._first is not None and self._first.alive and time.monotonic() < deadline:
            time.sleep(0.005)


@contextmanager
def running() -> Iterator[Hypervisor]:
    """A Hypervisor with a folder of its own, both gone afterwards; skips the test where there can be none."""
    if os.geteuid():
        pytest.skip("only root can make the namespaces that a libvirtd of the test's own needs")
    missing = [name for name in _NEEDED if shutil.which(name, path=_SBIN) is None]
    if missing:
        pytest.skip(f"the host lacks {', '.join(missing)}: run 'kernelfs setup --for-tests'")
    folder = Path(tempfile.mkdtemp(prefix="kfs-lv-", dir="/tmp"))
    try:
        hypervisor = Hypervisor(folder)
        try:
            yield hypervisor
        finally:
            hypervisor.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
