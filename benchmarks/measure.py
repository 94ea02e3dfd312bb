"""The measurements; each gives Measurements whose samples are all kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_kernelfs.guest import files
from pytest_kernelfs.kernels import Kernel
from pytest_kernelfs.machines.admission import NO_SLOT
from pytest_kernelfs.machines.initramfs.image import build_initramfs
from pytest_kernelfs.machines.machine import Machine, MachineSpec
from pytest_kernelfs.machines.pool import MachinePool, Wish
from pytest_kernelfs.machines.qemu.binary import find_qemu
from pytest_kernelfs.machines.qemu.command import Launch
from pytest_kernelfs.machines.qemu.machine import QemuMachine
from pytest_kernelfs.machines.qemu.provider import QemuProvider
from pytest_kernelfs.measure import Measurement

_TRIVIAL_TESTS = 25
_PATIENCE_S = 120.0


def first_call(machine: Machine) -> None:
    """A Python call that does nothing."""
    machine.call(files.make_folders, [], timeout=_PATIENCE_S)


def boots(provider: QemuProvider, kernel: Kernel, spec: MachineSpec, count: int) -> list[Measurement]:
    """Cold boots of our own initramfs, up to the first answered call."""
    launch = Launch(
        find_qemu(),
        provider.accelerator(kernel).name,
        kernel,
        build_initramfs(provider.cache, kernel),
        spec,
        scratch=provider.cache.root / "scratch",
    )
    samples = []
    for _ in range(count):
        start = time.monotonic()
        machine = QemuMachine(launch, NO_SLOT)
        try:
            machine.wait_ready(_PATIENCE_S)
            samples.append(time.monotonic() - start)
        finally:
            machine.destroy()
    return [Measurement.of("cold boot to first call", "s", samples)]


def virtme_ng(provider: QemuProvider, kernel: Kernel, count: int) -> list[Measurement]:
    """``vng -r KERNEL -- uname -r``, whole; nothing where it cannot run: it wants /lib/modules."""
    program = Path(sys.executable).with_name("vng")
    if not program.exists():
        print("virtme-ng is not installed: left out")
        return []
    command = [str(program), "-v", "-r", str(kernel.image), "--force-9p"]
    if provider.accelerator(kernel).name == "tcg":
        command.append("--disable-kvm")
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    samples = []
    with _modules_in_place(kernel):
        for _ in range(count):
            start = time.monotonic()
            done = subprocess.run(
                [*command, "--", "uname", "-r"],
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                env=environment,
                check=False,
            )
            if kernel.release not in (done.stdout + done.stderr).split("starting script")[-1]:
                print(f"virtme-ng did not run {kernel.release}: left out")
                return []
            samples.append(time.monotonic() - start)
    return [Measurement.of("vng -r … uname -r", "s", samples)]


@contextmanager
def _modules_in_place(kernel: Kernel) -> Iterator[None]:
    place = Path("/lib/modules") / kernel.release
    if kernel.modules is None or place.exists() or not os.access("/lib/modules", os.W_OK):
        yield
        return
    place.symlink_to(kernel.modules)
    try:
        yield
    finally:
        place.unlink()


def forks(provider: QemuProvider, kernel: Kernel, spec: MachineSpec, count: int) -> list[Measurement]:
    """Forks of a warm template up to the first answered call, and their end."""
    provider.start(kernel, spec).destroy()
    starts, ends = [], []
    for _ in range(count):
        start = time.monotonic()
        # It has answered a call by then: it was told its name and the time.
        machine = provider.start(kernel, spec)
        ready = time.monotonic()
        machine.destroy()
        starts.append(ready - start)
        ends.append(time.monotonic() - ready)
    return [Measurement.of("fork to first call", "s", starts), Measurement.of("teardown", "s", ends)]


def spares(provider: QemuProvider, kernel: Kernel, spec: MachineSpec, count: int) -> list[Measurement]:
    """The same, when the machine was made ahead: from asking for it to the first answered call."""
    pool, wish = MachinePool(provider), Wish(kernel, spec)
    pool.take(wish, "first")
    samples = []
    try:
        for number in range(count):
            pool.expect(wish, 1)
            pool.wait_for_spares()
            pool.release()
            start = time.monotonic()
            vm = pool.take(wish, str(number))
            first_call(vm.machine)
            samples.append(time.monotonic() - start)
            pool.expect(wish, 1)
    finally:
        pool.close()
    return [Measurement.of("spare to first call", "s", samples)]


def memory(provider: QemuProvider, kernel: Kernel, spec: MachineSpec, count: int) -> Measurement:
    """The proportional set size of idle forks that live side by side, in MiB."""
    machines = [provider.start(kernel, spec) for _ in range(count)]
    try:
        return Measurement.of("PSS of an idle fork", "MiB", [_pss(machine.pid) for machine in machines])
    finally:
        for machine in machines:
            machine.destroy()


def _pss(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))


def suites(cache: Path, release: str, matrix: str) -> list[Measurement]:
    """Whole pytest runs from shell to prompt, templates warm."""
    with tempfile.TemporaryDirectory(prefix="kernelfs-bench-") as folder:
        one, tests = Path(folder) / "test_one.py", Path(folder) / "test_many.py"
        body = "    assert vm.run(['true']).succeeded\n"
        one.write_text(f"def test_trivial(vm):\n{body}")
        parameters = f"@pytest.mark.parametrize('number', range({_TRIVIAL_TESTS}))"
        tests.write_text(f"import pytest\n\n{parameters}\ndef test_trivial(vm, number):\n{body}")
        many = [f"--kernel={matrix}"]
        _pytest(cache, one, *many)
        return [
            _run("one test, whole pytest run", cache, one, f"--kernel={release}", times=3),
            _run(f"4 kernels x {_TRIVIAL_TESTS} tests", cache, tests, *many),
            _run(f"4 kernels x {_TRIVIAL_TESTS} tests, isolation session", cache, tests, *many,
                 "--kernelfs-isolation=session"),
        ]  # fmt: skip


def _run(name: str, cache: Path, tests: Path, *options: str, times: int = 1) -> Measurement:
    _pytest(cache, tests, *options) if times > 1 else None
    return Measurement.of(name, "s", [_pytest(cache, tests, *options) for _ in range(times)])


def _pytest(cache: Path, tests: Path, *options: str) -> float:
    pytest = shutil.which("pytest", path=str(Path(sys.executable).parent))
    assert pytest is not None
    command = [
        pytest,
        "-q",
        "-p",
        "no:randomly",
        f"--rootdir={tests.parent}",
        str(tests),
        f"--kernelfs-cache={cache}",
    ]
    start = time.monotonic()
    done = subprocess.run([*command, *options], capture_output=True, text=True, cwd=tests.parent, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return time.monotonic() - start
