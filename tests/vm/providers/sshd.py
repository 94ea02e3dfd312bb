"""A machine that is not ours alone: a kernel, Python, tools, users and an sshd behind a port of this host."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from pytest_kernelfs import Kernel
from pytest_kernelfs.cache import Cache
from pytest_kernelfs.machines.guarded import guarded
from pytest_kernelfs.machines.initramfs.cpio import CpioWriter
from pytest_kernelfs.machines.initramfs.image import build_initramfs
from pytest_kernelfs.machines.initramfs.lift import add_with_symlinks, guest_path, shared_libraries
from pytest_kernelfs.machines.qemu.binary import find_qemu
from pytest_kernelfs.tools import need

_BOOT_S = 300.0
_TRIES = 5
_PAM_MODULE = "pam_permit.so"
_SUDO_PARTS = Path("/usr/libexec/sudo")
# From 9.8 on sshd leaves each session to programs of its own.
_SSHD_PARTS = Path("/usr/lib/openssh")

# What a distribution's own init would have set up: nothing of ours is in it.
_INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm; mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm; mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /tmp
mount -t tracefs tracefs /sys/kernel/tracing; mount -t debugfs debugfs /sys/kernel/debug
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ln -s /proc/self/fd /dev/fd; mkdir -p /run/sshd
modprobe -a -q $(cat /etc/kernelfs/modules) virtio_net
hostname notours
ip link set lo up; ip address add 10.0.2.15/24 dev eth0; ip link set eth0 up
/usr/sbin/sshd -D -e &
while :; do wait; sleep 1; done
"""

_SSHD_CONFIG = """
HostKey /etc/ssh/host_key
UsePAM no
UseDNS no
PasswordAuthentication no
KbdInteractiveAuthentication no
AuthorizedKeysFile /etc/ssh/authorized_keys
MaxStartups 100
StrictModes no
"""

_USERS = (
    ("root", 0, "/root", "/bin/sh"),
    ("sshd", 100, "/run/sshd", "/bin/false"),
    ("tester", 1000, "/tmp", "/bin/sh"),
    ("plain", 1001, "/tmp", "/bin/sh"),
    ("chatty", 1002, "/tmp", "/usr/bin/chatty"),
    ("nobody", 65534, "/", "/bin/false"),
)
_CHATTY = '#!/bin/sh\necho Welcome to the machine\nexec /bin/sh "$@"\n'


class SshdMachine:
    """A running machine. Users: root; tester may use sudo; plain may not; the shell of chatty greets.

    ``config`` is an ssh configuration that knows the machine as ``notours``, and other names that fail.
    """

    def __init__(self, kernel: Kernel, cache: Cache, accel: str, *, memory: int = 1536) -> None:
        self.kernel = kernel
        self.folder = Path(tempfile.mkdtemp(prefix="kfs-sshd-", dir="/tmp"))
        # Nobody listens at its port, nor can anybody else while it is bound.
        self._closed = socket.socket()
        try:
            self._closed.bind(("127.0.0.1", 0))
            self._boot(cache, accel, memory)
        except BaseException:
            self._closed.close()
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def _boot(self, cache: Cache, accel: str, memory: int) -> None:
        for name in ("host_key", "other_host_key", "key", "wrong_key"):
            subprocess.run(
                [str(need("ssh-keygen")), "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)],
                check=True,
            )
        shutil.copyfile(build_initramfs(cache, self.kernel), self._initramfs)
        with self._initramfs.open("ab") as file:
            self._add(CpioWriter(file))
        self.config = self.folder / "config"
        self.console_file = self.folder / "console"
        self._accel, self._memory = accel, memory
        self.boot()

    @property
    def _initramfs(self) -> Path:
        return self.folder / "initramfs"

    def boot(self) -> None:
        """Start it, also after ``kill``: with the same keys, forgetful of all else. Wait until it is up."""
        for _ in range(_TRIES):
            self._start()
            if self._has_its_port():
                break
        try:
            self._wait_until_up()
        except BaseException:
            self.kill()
            raise

    def _start(self) -> None:
        self.console_file.unlink(missing_ok=True)
        self.port = _free_port()
        self.config.write_text(self._configuration())
        qemu = find_qemu()
        processor = ["-cpu", "host"] if self._accel == "kvm" else ["-cpu", "max"]
        self._process = subprocess.Popen(
            guarded(
                [
                    str(qemu.path), "-name", "kernelfs-sshd", "-nodefaults", "-no-user-config",
                    "-display", "none", "-no-reboot", "-machine", "q35", "-accel", self._accel, *processor,
                    "-m", f"{self._memory}M", "-smp", "1",
                    "-kernel", str(self.kernel.boot_image), "-initrd", str(self._initramfs),
                    "-append", "console=ttyS0 panic=-1 rdinit=/sshd-init net.ifnames=0 random.trust_cpu=on",
                    "-serial", f"file:{self.console_file}", "-device", "virtio-rng-pci",
                    # The machine reaches nothing; only its sshd is reached, from this host.
                    "-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:22",
                    "-device", "virtio-net-pci,netdev=net",
                ]
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )  # fmt: skip

    def _has_its_port(self) -> bool:
        """False if QEMU ended before it began: somebody else has taken the port since it was free."""
        deadline = time.monotonic() + _BOOT_S
        while not self.console() and time.monotonic() < deadline:
            if self._process.poll() is not None:
                return False
            time.sleep(0.02)
        return True

    def _add(self, archive: CpioWriter) -> None:
        sshd, sudo = need("sshd"), need("sudo")
        modules = [path for path in _SUDO_PARTS.glob("*.so") if path.stem in ("sudoers", "libsudo_util")]
        pam = _pam_module()
        parts = [sshd, *_SSHD_PARTS.glob("sshd-*")]
        programs = [*parts, sudo, *modules, pam]
        for path in (*parts, *modules, pam, *shared_libraries(programs)):
            add_with_symlinks(archive, path)
        archive.file(guest_path(sudo), sudo.read_bytes(), 0o4755)
        archive.file("etc/sudoers", b"tester,chatty ALL=(ALL) NOPASSWD: ALL\n", 0o440)
        for service in ("sudo", "other"):
            lines = [f"{kind} required {_PAM_MODULE}" for kind in ("auth", "account", "session")]
            archive.file(f"etc/pam.d/{service}", "\n".join([*lines, ""]).encode())
        users = [f"{name}:x:{uid}:{uid}:{name}:{home}:{shell}" for name, uid, home, shell in _USERS]
        archive.file("etc/passwd", "\n".join([*users, ""]).encode())
        archive.file("etc/group", "".join(f"{name}:x:{uid}:\n" for name, uid, *_ in _USERS).encode())
        archive.file("etc/ssh/sshd_config", _SSHD_CONFIG.encode())
        archive.file("etc/ssh/host_key", (self.folder / "host_key").read_bytes(), 0o600)
        archive.file("etc/ssh/authorized_keys", (self.folder / "key.pub").read_bytes())
        archive.file("usr/bin/chatty", _CHATTY.encode(), 0o755)
        archive.file("sshd-init", _INIT.encode(), 0o755)
        if self.kernel.config is not None:
            archive.file(f"boot/config-{self.kernel.release}", self.kernel.config.read_bytes())
        archive.finish()

    def _configuration(self) -> str:
        """Names for it: the right one first; in ssh's configuration the first value found counts."""
        for name, key in (("known", "host_key"), ("other", "other_host_key")):
            text = (self.folder / f"{key}.pub").read_text()
            (self.folder / name).write_text(f"[127.0.0.1]:{self.port} {text}")
        (self.folder / "empty").touch()
        return f"""
Host stranger
  UserKnownHostsFile {self.folder}/empty
Host impostor
  UserKnownHostsFile {self.folder}/other
Host intruder
  IdentityFile {self.folder}/wrong_key
Host nosudo
  User plain
Host withsudo
  User tester
Host chatty
  User chatty
Host nothinghere
  Port {self._closed.getsockname()[1]}
Host nowhere
  HostName no-such-host.invalid
Host * !intruder
  IdentityFile {self.folder}/key
Host *
  HostName 127.0.0.1
  Port {self.port}
  User root
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile {self.folder}/known
  GlobalKnownHostsFile /dev/null
"""

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + _BOOT_S
        while not self._greets():
            assert self._process.poll() is None, f"the machine ended:\n{self.console()[-2000:]}"
            assert time.monotonic() < deadline, f"the machine did not come up:\n{self.console()[-2000:]}"
            time.sleep(0.05)

    def _greets(self) -> bool:
        """Whether its sshd talks; QEMU takes connections before that, and drops them."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=20.0) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def console(self) -> str:
        return self.console_file.read_text(errors="replace") if self.console_file.exists() else ""

    def freeze(self) -> None:
        """It answers nothing more, and nobody is told: as if its cable were pulled."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Its end, with its connections closed."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self.kill()
        self._closed.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _free_port() -> int:
    """A port of this host's loopback that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _pam_module() -> Path:
    found = next(iter(sorted(Path("/usr/lib").glob(f"**/security/{_PAM_MODULE}"))), None)
    assert found is not None, f"{_PAM_MODULE} is not on this host"
    return found
