"""The provider local for real: this host's kernel, in namespaces, and nothing left of it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_kernelfs.errors import GuestCommandError, ProviderUnavailable, Unsupported
from pytest_kernelfs.guest import knobs, mounts
from pytest_kernelfs.machines.local.provider import LocalProvider
from pytest_kernelfs.machines.machine import DiskSpec, MachineSpec, Settings
from pytest_kernelfs.machines.tenant.machine import TenantMachine
from pytest_kernelfs.machines.vm import VM
from pytest_kernelfs.resources.cgroup import CgroupFactory
from pytest_kernelfs.resources.disk import DiskFactory
from pytest_kernelfs.resources.filesystem_factory import FilesystemFactory
from pytest_kernelfs.resources.loop import LoopDeviceFactory
from pytest_kernelfs.resources.netns import NetnsPairFactory
from pytest_kernelfs.resources.stack import Resources
from pytest_kernelfs.resources.sysctl import Sysctl
from tests.vm.providers.here import Traces, processes_with, until

pytestmark = pytest.mark.usefixtures("this_host")
MIB = 1 << 20
SPEC = MachineSpec(1 << 30, 1)
# Processes are told by that, from those of others and of earlier runs.
SLEEP = f"47{os.getpid():08d}.15"
NAMESPACES = ("mnt", "cgroup", "net", "pid", "ipc", "uts")


@pytest.fixture
def provider(tmp_path: Path) -> LocalProvider:
    return LocalProvider(Settings(tmp_path / "cache"), allowed=True)


@pytest.fixture
def machine(provider: LocalProvider) -> Iterator[TenantMachine]:
    machine = provider.start(provider.own_kernel(), SPEC)
    assert isinstance(machine, TenantMachine)
    yield machine
    machine.destroy()


@pytest.fixture
def here(machine: TenantMachine) -> VM:
    return VM(machine)


def test_it_is_this_kernel_in_other_namespaces(here: VM) -> None:
    system = os.uname()
    assert here.kernel.release == system.release
    assert here.run("uname -rv").stdout.strip() == f"{system.release} {system.version}"
    told = here.run("for name in mnt cgroup net pid ipc uts; do readlink /proc/self/ns/$name; done").stdout
    ours = {str(Path(f"/proc/self/ns/{name}").readlink()) for name in NAMESPACES}
    assert len(set(told.split()) - ours) == len(NAMESPACES)
    assert int(here.run("ls -d /proc/[0-9]* | wc -l").stdout) < 10
    assert here.run("ls /sys/class/net").stdout.split() == ["lo"]
    cgroups = [line.split(":", 2) for line in here.run("cat /proc/self/cgroup").stdout.splitlines()]
    assert {path for _, kind, path in cgroups if not kind.startswith("name=")} <= {"/", "/agent"}


def test_what_it_mounts_and_writes_is_not_seen_outside(here: VM) -> None:
    here.guest(mounts.mount, "tmpfs", "/mnt/there", "tmpfs")
    here.put(b"x", "/tmp/kernelfs-is-here")
    here.run("hostname somewhere-else", check=True)
    assert "/mnt/there" in here.run("cat /proc/mounts").stdout
    assert "/mnt/there" not in Path("/proc/mounts").read_text()
    assert not Path("/tmp/kernelfs-is-here").exists()
    assert os.uname().nodename != "somewhere-else"


def test_its_disks_are_as_fast_as_they_are_to_be(here: VM) -> None:
    resources = Resources(here)
    disk = DiskFactory(resources)(size="128M", write_bps="4M")
    ext4 = filesystems(resources)("ext4", on=disk)

    def seconds() -> float:
        start = time.monotonic()
        ext4.write("file", "8M")
        ext4.sync()
        return time.monotonic() - start

    slow = seconds()
    assert slow > 1.5
    disk.throttle()
    # A host that has much else to do may be slow itself, now and then.
    assert any(seconds() < 0.7 * slow for _ in range(10))
    direct = "dd if=/dev/zero of={} bs=1M count=8 oflag=direct status=none"
    disk.throttle(write_bps="8M")
    ext4.umount()
    assert here.run(direct.format(disk.path), check=True).duration > 0.7
    disk.throttle(iops=16)
    read = f"dd if={disk.path} of=/dev/null bs=4k count=16 iflag=direct status=none"
    assert here.run(read, check=True).duration > 0.5
    resources.close()


def test_disks_are_of_the_size_and_kind_that_was_asked_for(here: VM) -> None:
    machine = here.machine
    path = machine.attach_disk(DiskSpec(8 * MIB, cache="writethrough", sector_size=4096))
    queue = f"/sys/block/{Path(path).name}/queue"
    facts = here.run(
        f"cat {queue}/write_cache {queue}/logical_block_size; blockdev --getsize64 {path}"
    ).stdout
    assert facts.splitlines() == ["write through", "4096", str(8 * MIB)]
    machine.detach_disk(path)
    machine.detach_disk(path)
    other = machine.attach_disk(DiskSpec(8 * MIB))
    assert here.run(f"cat /sys/block/{Path(other).name}/queue/write_cache").stdout.strip() == "write back"


def test_after_its_teardown_nothing_is_left_to_do(machine: TenantMachine) -> None:
    resources = Resources(VM(machine))
    use_much(resources)
    traces = Traces.of(machine.pid)
    resources.close()
    machine.destroy()
    assert machine.leftovers == []
    assert traces.first("cgroup")
    assert {"sysctl", "throttle", "file"} <= {entry[0] for entry in traces.entries}
    traces.assert_nothing_remains()


def test_what_tests_left_is_taken_down_and_told(machine: TenantMachine) -> None:
    resources = Resources(VM(machine))
    use_much(resources)
    resources.vm.run("truncate -s 8M /tmp/by-hand && losetup -f /tmp/by-hand", check=True)
    resources.vm.run(f"setsid sleep {SLEEP} > /dev/null 2>&1 &", check=True)
    traces = Traces.of(machine.pid)
    until("its process", lambda: len(processes_with(SLEEP)) == 1)
    machine.destroy()
    told = " ".join(machine.leftovers)
    assert len(re.findall(r"loop device /dev/loop\d+", told)) == 3
    assert "throttle of 7:" in told
    assert "sysctl vm.swappiness" in told
    assert not processes_with(SLEEP)
    traces.assert_nothing_remains()


def filesystems(resources: Resources) -> FilesystemFactory:
    return FilesystemFactory(resources, LoopDeviceFactory(resources))


def use_much(resources: Resources) -> None:
    """One of each, so that there is something to be left."""
    disk = DiskFactory(resources)(size="64M", write_bps="50M", cache="writethrough")
    filesystems(resources)("ext4", on=disk).write("file", "1M")
    filesystems(resources)("xfs", on=LoopDeviceFactory(resources)(size="400M")).write("file", "1M")
    Sysctl(resources)["vm.swappiness"] = 17 if Sysctl(resources)["vm.swappiness"] != 17 else 18
    NetnsPairFactory(resources)()
    try:
        CgroupFactory(resources)(version=1, controllers=["pids"]).create("child")
    except GuestCommandError:
        CgroupFactory(resources)(version=2, controllers=["pids"]).create("child")


def test_what_waits_for_a_frozen_or_slow_disk_ends_too(machine: TenantMachine) -> None:
    resources = Resources(VM(machine))
    frozen = filesystems(resources)("ext4", on=LoopDeviceFactory(resources)(size="64M"))
    slow = filesystems(resources)("ext4", on=DiskFactory(resources)(size="128M", write_bps="64K"))
    slow.write("dirty", "16M")
    here = resources.vm
    here.run(["fsfreeze", "-f", frozen.path], check=True)
    here.run(f"setsid dd if=/dev/zero of={frozen.path}/x bs=1M count=1 > /dev/null 2>&1 &", check=True)
    until("a writer in state D", lambda: "percpu_rwsem" in here.run("cat /proc/[0-9]*/wchan").stdout)
    traces = Traces.of(machine.pid)
    start = time.monotonic()
    machine.destroy()
    # What is dirty takes the disk more than four minutes.
    assert time.monotonic() - start < 120.0
    assert f"freeze of {frozen.path}" in machine.leftovers
    traces.assert_nothing_remains()


def test_sysctls_of_namespaces_are_not_set_outside(machine: TenantMachine) -> None:
    before = Path("/proc/sys/kernel/shmmni").read_text()
    machine.call(knobs.write_sysctls, [("kernel.shmmni", "1234")], timeout=10)
    machine.destroy()
    assert Path("/proc/sys/kernel/shmmni").read_text() == before
    assert machine.leftovers == []


def test_one_machine_after_another_starts_fresh(provider: LocalProvider) -> None:
    for _ in range(2):
        machine = provider.start(provider.own_kernel(), SPEC)
        try:
            vm = VM(machine)
            assert not vm.run(["test", "-e", "/tmp/of-the-one-before"]).succeeded
            vm.put(b"x", "/tmp/of-the-one-before")
        finally:
            machine.destroy()


def test_what_would_harm_the_host_is_refused(here: VM, provider: LocalProvider) -> None:
    with pytest.raises(Unsupported, match="not press the sysrq keys c: they would harm what else runs on"):
        here.sysrq("c")
    with pytest.raises(Unsupported, match="cannot cut the power"):
        here.machine.attach_disk(DiskSpec(MIB, power_cut=True))
    with pytest.raises(Unsupported, match="cannot save machines"):
        provider.start_writable(here.kernel, SPEC)
    with pytest.raises(Unsupported, match=r"runs already: .* cannot boot it with the parameters 'quiet'"):
        provider.start(here.kernel, MachineSpec(1 << 30, 1, "quiet"))


def test_it_has_to_be_allowed(tmp_path: Path) -> None:
    provider = LocalProvider(Settings(tmp_path), allowed=False)
    for attempt in (provider.describe, provider.own_kernel):
        with pytest.raises(ProviderUnavailable, match="say --kernelfs-allow-local"):
            attempt()
