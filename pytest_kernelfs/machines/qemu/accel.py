"""Which accelerator to use: KVM is proved by running a guest, never taken on trust.

A /dev/kvm that exists and opens may still not work: nested or filtered KVM
is seen that creates a machine and then runs nothing, or stops at the first
instruction it must emulate. So the kernel that is to be tested is booted to
the point where it misses its root, within a deadline. The answer is
remembered for this boot of the host, this QEMU and this user.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.errors import InfrastructureError, ProviderUnavailable
from pytest_kernelfs.machines.qemu.binary import Qemu

KVM = Path("/dev/kvm")
# With KVM a kernel misses its root after less than a second; a host under heavy load may need some more.
_DEADLINE_S = 10.0
_REACHED = b"VFS: Unable to mount root fs"


@dataclass(frozen=True)
class Accelerator:
    """``name`` is "kvm" or "tcg"; ``reason`` says why, for people."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name.upper()} ({self.reason})"


def choose(preference: str, qemu: Qemu, kernel_image: Path, cache: Cache) -> Accelerator:
    """The accelerator for ``preference``, one of auto, kvm, tcg.

    Raises: ProviderUnavailable if KVM is demanded and does not work.
    """
    if preference == "tcg":
        return Accelerator("tcg", "as asked")
    problem = remembered_kvm_problem(qemu, cache)
    if problem is None:
        problem = _kvm_problem(qemu, kernel_image)
        _remember(qemu, cache, problem)
    if not problem:
        return Accelerator("kvm", "proved by running a guest")
    if preference == "kvm":
        raise ProviderUnavailable(
            f"--kernelfs-accel=kvm was asked for, but {problem}; "
            "use --kernelfs-accel=auto or tcg, or mend KVM"
        )
    return Accelerator("tcg", problem)


def remembered_kvm_problem(qemu: Qemu, cache: Cache) -> str | None:
    """What was found earlier in this boot of the host: "" for a working KVM, None if nobody looked yet."""
    quick = _cannot_open()
    if quick:
        return quick
    try:
        record = json.loads(_memory(qemu, cache).read_text())
    except (OSError, ValueError):
        return None
    return str(record["problem"]) if record.get("identity") == asdict(_identity(qemu)) else None


@dataclass(frozen=True)
class _Identity:
    boot: str
    qemu: str
    user: int
    kvm: str


def _identity(qemu: Qemu) -> _Identity:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return _Identity(boot, qemu.fingerprint, os.getuid(), _kvm_as_loaded())


def _kvm_as_loaded() -> str:
    """Changes when KVM's device or modules are loaded anew."""
    paths = [KVM, *sorted(Path("/sys/module").glob("kvm*"))]
    return " ".join(f"{path} {path.stat().st_ctime_ns}" for path in paths if path.exists())


def _memory(qemu: Qemu, cache: Cache) -> Path:
    return cache.root / "accel" / f"{os.getuid()}-{qemu.version}.json"


def _remember(qemu: Qemu, cache: Cache, problem: str) -> None:
    record = {"identity": asdict(_identity(qemu)), "problem": problem}
    try:
        cache.write_text(_memory(qemu, cache), json.dumps(record))
    except InfrastructureError:
        pass  # it will be found out again


def _cannot_open() -> str:
    try:
        os.close(os.open(KVM, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return f"{KVM} does not exist"
    except OSError as error:
        return f"{KVM} cannot be opened: {error.strerror}"
    return ""


def _kvm_problem(qemu: Qemu, kernel_image: Path) -> str:
    """Boot the kernel without a root under KVM; "" if it got as far as to miss it."""
    with tempfile.TemporaryDirectory(prefix="kernelfs-kvm-") as folder:
        console = Path(folder) / "console"
        command = [
            str(qemu.path), "-accel", "kvm", "-cpu", "host", "-machine", "q35", "-m", "512M", "-nodefaults",
            "-no-user-config", "-display", "none", "-no-reboot", "-serial", f"file:{console}",
            "-kernel", str(kernel_image), "-append", "console=ttyS0 panic=-1",
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, timeout=_DEADLINE_S, check=False)
        except subprocess.TimeoutExpired:
            return f"{KVM} opens, but a guest on it did not boot within {_DEADLINE_S:g} s"
        said = console.read_bytes() if console.exists() else b""
        if _REACHED in said:
            return ""
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        return f"{KVM} opens, but a guest on it fails: {_short(lines[0] if lines else 'it stopped silently')}"


def _short(line: str) -> str:
    text = line.rpartition("qemu-system-x86_64: ")[2]
    return text if len(text) <= 80 else f"{text[:77]}..."
