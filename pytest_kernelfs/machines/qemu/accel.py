"""Which accelerator to use: KVM is proved by running a guest, never taken on trust.

A /dev/kvm that exists and opens may still not work: nested or filtered KVM
is seen that creates a machine and then runs nothing, or stops at the first
instruction it must emulate. So the kernel that is to be tested is booted to
the point where it misses its root, within a deadline. The answer is
remembered for this boot of the host, this QEMU and this user.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.machines import lease
from pytest_kernelfs.machines.accelerator import DEADLINE_S, REACHED, Accelerator, Memory, settle
from pytest_kernelfs.machines.guarded import guarded
from pytest_kernelfs.machines.qemu.binary import Qemu

KVM = Path("/dev/kvm")


def choose(preference: str, qemu: Qemu, kernel_image: Path, cache: Cache) -> Accelerator:
    """The accelerator for ``preference``, one of auto, kvm, tcg.

    Raises: ProviderUnavailable if KVM is demanded and does not work.
    """

    def problem() -> str:
        known = remembered_kvm_problem(qemu, cache)
        if known is None:
            known = _kvm_problem(qemu, kernel_image)
            _memory(qemu, cache).remember(known)
        return known

    return settle(preference, problem)


def remembered_kvm_problem(qemu: Qemu, cache: Cache) -> str | None:
    """What was found earlier in this boot of the host: "" for a working KVM, None if nobody looked yet."""
    return _cannot_open() or _memory(qemu, cache).recall()


def _memory(qemu: Qemu, cache: Cache) -> Memory:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    identity: dict[str, str | int] = {
        "boot": boot,
        "qemu": qemu.fingerprint,
        "user": os.getuid(),
        "kvm": _kvm_as_loaded(),
    }
    return Memory(cache, f"{os.getuid()}-{qemu.version}", identity)


def _kvm_as_loaded() -> str:
    """Changes when KVM's device or modules are loaded anew."""
    paths = [KVM, *sorted(Path("/sys/module").glob("kvm*"))]
    return " ".join(f"{path} {path.stat().st_ctime_ns}" for path in paths if path.exists())


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
    folder = lease.make_folder()
    try:
        return _problem_of_guest(qemu, kernel_image, folder / "console")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _problem_of_guest(qemu: Qemu, kernel_image: Path, console: Path) -> str:
    command = [
        str(qemu.path), "-accel", "kvm", "-cpu", "host", "-machine", "q35", "-m", "512M", "-nodefaults",
        "-no-user-config", "-display", "none", "-no-reboot", "-serial", f"file:{console}",
        "-kernel", str(kernel_image), "-append", "console=ttyS0 panic=-1",
    ]  # fmt: skip
    try:
        done = subprocess.run(guarded(command), capture_output=True, timeout=DEADLINE_S, check=False)
    except subprocess.TimeoutExpired:
        return f"{KVM} opens, but a guest on it did not boot within {DEADLINE_S:g} s"
    said = console.read_bytes() if console.exists() else b""
    if REACHED in said:
        return ""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return f"{KVM} opens, but a guest on it fails: {_short(lines[0] if lines else 'it stopped silently')}"


def _short(line: str) -> str:
    text = line.rpartition("qemu-system-x86_64: ")[2]
    return text if len(text) <= 80 else f"{text[:77]}..."
