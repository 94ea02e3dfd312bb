"""Which machines are forks, which boot, and what becomes of templates; QEMU's machines are fakes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.kernels import Kernel
from pytest_kernelfs.machines.accelerator import Accelerator
from pytest_kernelfs.machines.admission import Admission, Slot
from pytest_kernelfs.machines.machine import MachineSpec, Settings
from pytest_kernelfs.machines.qemu import provider as providers
from pytest_kernelfs.machines.qemu import template
from pytest_kernelfs.machines.qemu.binary import Qemu
from pytest_kernelfs.machines.qemu.command import Launch
from pytest_kernelfs.machines.qemu.provider import QemuProvider
from pytest_kernelfs.shortage import Shortage
from tests import fake_machine

pytestmark = pytest.mark.usefixtures("news")

SPEC = MachineSpec(1 << 30, 1)
LONG_AGO = 1_000_000.0

Fails = dict[str, Callable[["FakeMachine"], Exception | None]]


class FakeMachine:
    """Does at once what a ``QemuMachine`` does, but for the steps that fail."""

    fails: Fails
    made: list[FakeMachine]

    def __init__(
        self, launch: Launch, slot: Slot, plugs: Sequence[Any] = (), data: Path | None = None
    ) -> None:
        self.launch = launch
        self.slot = slot
        self.data = data
        self.alive = True
        self.was_killed = False
        self._step("start")
        self.made.append(self)
        if launch.memory is not None and not launch.incoming:
            launch.memory.path.write_text(f"memory of machine {len(self.made)}")

    def _step(self, name: str) -> None:
        error = self.fails[name](self) if name in self.fails else None
        if error is not None:
            raise error

    def wait_ready(self, timeout: float) -> None:
        self._step("answer" if self.launch.incoming else "boot")

    def resume(self, state: Path, timeout: float) -> None:
        self._step("resume")

    def suspend(self, state: Path, timeout: float) -> None:
        state.write_bytes(b"state")

    def keep_root(self, folder: Path) -> None:
        pass

    def destroy(self) -> None:
        self.alive = False
        if self.data is not None:
            shutil.rmtree(self.data)


@pytest.fixture(autouse=True)
def fails() -> Fails:
    """What goes wrong: the name of a step, and what it raises for a machine."""
    FakeMachine.fails = {}
    FakeMachine.made = []
    return FakeMachine.fails


@pytest.fixture
def kernels(tmp_path: Path) -> list[Kernel]:
    """Two kernels."""
    image = tmp_path / "vmlinuz"
    image.write_bytes(bytes(1 << 14))
    return [
        replace(fake_machine.kernel(version), image=image, checksum=letter * 64)
        for version, letter in (("6.1.176", "a"), ("7.2.1", "b"))
    ]


@pytest.fixture
def kernel(kernels: list[Kernel]) -> Kernel:
    return kernels[0]


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> QemuProvider:
    monkeypatch.setattr(providers, "QemuMachine", FakeMachine)
    monkeypatch.setattr(providers, "find_qemu", lambda: Qemu(Path("/usr/bin/qemu"), "7.2.22", "fingerprint"))
    monkeypatch.setattr(providers, "choose", lambda *_: Accelerator("tcg", "as asked"))
    monkeypatch.setattr(providers, "build_initramfs", build_initramfs)
    monkeypatch.setattr(Admission, "try_enter", lambda _: Slot(-1))
    return QemuProvider(Settings(tmp_path / "cache"))


def build_initramfs(cache: Cache, kernel: Kernel) -> Path:
    folder = cache.entry("initramfs", kernel.checksum[:32], lambda folder: (folder / "initramfs").touch())
    return folder / "initramfs"


def templates(provider: QemuProvider) -> list[str]:
    """What the memory of each is."""
    return [path.read_text() for path in (provider.cache.root / "templates").glob("*/memory")]


def template_of(provider: QemuProvider) -> Path:
    (folder,) = (provider.cache.root / "templates").iterdir()
    return folder


def boots() -> int:
    return sum(not machine.launch.incoming for machine in FakeMachine.made)


def test_a_kernel_boots_once_and_is_forked_from_then_on(provider: QemuProvider, kernel: Kernel) -> None:
    machines = [provider.start(kernel, SPEC) for _ in range(3)]
    assert [machine.launch.incoming for machine in machines] == [True] * 3
    assert boots() == 1


def busy(_: FakeMachine) -> Exception:
    return Shortage("QEMU did not answer 'migrate-incoming' within 10 s")


@pytest.mark.parametrize(
    ("step", "trouble"),
    [
        ("start", lambda _: InfrastructureError("cannot write a lease in /tmp: the disk is full")),
        ("start", lambda _: OSError("no idea")),
        ("resume", busy),
        ("answer", busy),
    ],
)
@pytest.mark.parametrize("start", ["start", "start_writable", "start_if_quick"])
def test_what_the_host_lacks_is_the_trouble_of_one_machine(
    provider: QemuProvider, kernel: Kernel, fails: Fails, news: list[str], step: str, trouble: Any, start: str
) -> None:
    provider.start(kernel, SPEC)
    before = templates(provider)
    fails[step] = trouble
    for _ in range(2):
        with pytest.raises((InfrastructureError, OSError)):
            getattr(provider, start)(kernel, SPEC)
    assert sum(machine.alive for machine in FakeMachine.made) == 1, "the first"
    del fails[step]
    machine = getattr(provider, start)(kernel, SPEC)
    assert machine.launch.incoming
    assert templates(provider) == before
    assert boots() == 1
    assert news == []


def test_a_copy_that_there_is_no_room_for_costs_no_template(
    provider: QemuProvider, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: Path) -> None:
        raise InfrastructureError("cannot copy a machine's memory: No space left on device")

    provider.start(kernel, SPEC)
    before = templates(provider)
    monkeypatch.setattr(providers, "copy_memory", no_room)
    with pytest.raises(InfrastructureError, match="cannot copy a machine's memory"):
        provider.start_writable(kernel, SPEC)
    assert templates(provider) == before
    assert list((provider.cache.root / "scratch").iterdir()) == []


def once(error: Exception) -> Callable[[FakeMachine], Exception | None]:
    left = [error]
    return lambda _: left.pop() if left else None


@pytest.mark.parametrize("step", ["resume", "answer"])
@pytest.mark.parametrize("start", ["start", "start_writable"])
def test_a_template_that_cannot_be_restored_is_made_anew(
    provider: QemuProvider, kernel: Kernel, fails: Fails, news: list[str], step: str, start: str
) -> None:
    provider.start(kernel, SPEC)
    before = templates(provider)
    fails[step] = once(InfrastructureError("QEMU ended (exit code 1: section footer error)"))
    machine = getattr(provider, start)(kernel, SPEC)
    assert machine.launch.incoming
    assert templates(provider) != before
    assert len(templates(provider)) == 1
    assert boots() == 2
    assert news == []


def test_a_machine_that_the_host_killed_costs_no_template(
    provider: QemuProvider, kernel: Kernel, fails: Fails, news: list[str]
) -> None:
    def kill(machine: FakeMachine) -> Exception:
        machine.was_killed = True
        return InfrastructureError("QEMU ended (exit code -9)")

    provider.start(kernel, SPEC)
    before = templates(provider)
    fails["resume"] = kill
    for _ in range(2):
        with pytest.raises(Shortage, match="exit code -9"):
            provider.start(kernel, SPEC)
    del fails["resume"]
    assert provider.start(kernel, SPEC).launch.incoming
    assert templates(provider) == before
    assert news == []


def test_what_another_made_anew_meanwhile_is_used(
    provider: QemuProvider, kernel: Kernel, fails: Fails, news: list[str]
) -> None:
    def replace_it(_: FakeMachine) -> Exception:
        del fails["resume"]
        record = template_of(provider) / "template.json"
        record.write_text(record.read_text())
        os.utime(record, (1, 1))
        return InfrastructureError("QEMU ended (exit code 1)")

    provider.start(kernel, SPEC)
    before = templates(provider)
    fails["resume"] = replace_it
    assert provider.start(kernel, SPEC).launch.incoming
    assert templates(provider) == before
    assert boots() == 1
    assert news == []


@pytest.mark.parametrize("name", [template.MEMORY, template.STATE, "template.json", "in-use"])
def test_a_template_that_lost_a_file_is_made_anew(provider: QemuProvider, kernel: Kernel, name: str) -> None:
    provider.start(kernel, SPEC)
    (template_of(provider) / name).unlink()
    assert provider.start(kernel, SPEC).launch.incoming
    assert (template_of(provider) / name).exists()
    assert boots() == 2


def test_a_kernel_that_cannot_be_forked_boots_and_others_are_forked(
    provider: QemuProvider, kernels: list[Kernel], fails: Fails, news: list[str]
) -> None:
    bad, good = kernels
    broken = InfrastructureError("QEMU ended (exit code 1: section footer error)")
    fails["resume"] = lambda machine: broken if machine.launch.kernel == bad else None
    machines = [provider.start(bad, SPEC) for _ in range(2)]
    assert [machine.launch.incoming for machine in machines] == [False, False]
    assert provider.start_if_quick(bad, SPEC) is None
    assert templates(provider) == []
    (line,) = news
    assert line == f"kernel {bad.release} cannot be forked, so its machines boot: {broken}"
    assert provider.start(good, SPEC).launch.incoming
    assert provider.start_if_quick(good, SPEC) is not None
    with pytest.raises(InfrastructureError, match="so no machine can be prepared: QEMU ended"):
        provider.start_writable(bad, SPEC)


def test_a_kernel_that_does_not_boot_is_told_each_time(
    provider: QemuProvider, kernel: Kernel, fails: Fails
) -> None:
    fails["boot"] = lambda _: InfrastructureError("did not answer within 120 s")
    for _ in range(2):
        with pytest.raises(InfrastructureError, match="did not answer"):
            provider.start(kernel, SPEC)
    del fails["boot"]
    assert provider.start(kernel, SPEC).launch.incoming, "that may have been the host"


def test_machines_boot_where_a_template_has_no_room(
    provider: QemuProvider, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, news: list[str]
) -> None:
    usage = shutil._ntuple_diskusage(10 << 30, 10 << 30, 9 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert [provider.start(kernel, SPEC).launch.incoming for _ in range(2)] == [False, False]
    (line,) = news
    assert "so its machines boot: there is no room for a template" in line


def test_a_disk_that_fills_while_a_template_is_made_is_no_fault_of_the_kernel(
    provider: QemuProvider, kernel: Kernel, fails: Fails, monkeypatch: pytest.MonkeyPatch, news: list[str]
) -> None:
    def fill(machine: FakeMachine) -> Exception | None:
        if machine.launch.memory is None:
            return None
        usage = shutil._ntuple_diskusage(10 << 30, 10 << 30, 9 << 20)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        return InfrastructureError("QEMU ended while it booted")

    fails["boot"] = fill
    assert not provider.start(kernel, SPEC).launch.incoming
    (line,) = news
    assert "filled up while the kernel booted" in line


def test_an_initial_ramdisk_that_others_removed_is_made_anew(provider: QemuProvider, kernel: Kernel) -> None:
    provider.start(kernel, SPEC)
    for kind in ("initramfs", "templates"):
        shutil.rmtree(provider.cache.root / kind)
    machine = provider.start(kernel, SPEC)
    assert boots() == 2
    assert machine.launch.initramfs.exists()


def test_what_machines_are_made_of_counts_as_used_when_they_are(
    provider: QemuProvider, kernel: Kernel
) -> None:
    provider.start(kernel, SPEC)
    (ramdisk,) = (provider.cache.root / "initramfs").iterdir()
    used = [ramdisk, template_of(provider)]
    for start in (provider.start, provider.start_if_quick):
        for path in used:
            os.utime(path, (LONG_AGO, LONG_AGO))
        start(kernel, SPEC)
        assert used[-1].stat().st_mtime > LONG_AGO
    provider.start(kernel, SPEC)
    assert ramdisk.stat().st_mtime > LONG_AGO


def test_the_memory_of_a_machine_that_can_be_saved_goes_with_it(
    provider: QemuProvider, kernel: Kernel, fails: Fails
) -> None:
    machine = provider.start_writable(kernel, SPEC)
    memory = machine.launch.memory
    assert memory is not None
    assert memory.shared
    assert [memory.path.read_text()] == templates(provider)
    machine.destroy()
    fails["resume"] = busy
    with suppress(Shortage):
        provider.start_writable(kernel, SPEC)
    assert list((provider.cache.root / "scratch").iterdir()) == []
