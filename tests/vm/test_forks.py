"""Every test has a machine of its own, and no two machines are alike."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from pytest_kernelfs import VM, Kernel
from pytest_kernelfs.machines.machine import MachineSpec
from pytest_kernelfs.machines.qemu.provider import QemuProvider


def _draw() -> tuple[bytes, str, float, int]:
    with open("/proc/sys/kernel/random/uuid") as file:  # noqa: PTH123  (it runs in the guest)
        uuid = file.read()
    return os.urandom(16), uuid, random.random(), int.from_bytes(os.getrandom(8), "little")


@pytest.fixture
def twins(kernel: Kernel, provider: QemuProvider, spec: MachineSpec) -> Iterator[tuple[VM, VM]]:
    """Two forks of one template, alive at once."""
    machines = [provider.start(kernel, spec) for _ in range(2)]
    yield VM(machines[0]), VM(machines[1])
    for machine in machines:
        machine.destroy()


def test_two_forks_draw_different_random_numbers(twins: tuple[VM, VM]) -> None:
    one, other = (twin.call(_draw) for twin in twins)
    assert all(mine != theirs for mine, theirs in zip(one, other, strict=True))


def test_two_forks_have_names_of_their_own(twins: tuple[VM, VM]) -> None:
    one, other = (twin.run("hostname", check=True).stdout for twin in twins)
    assert one.startswith("kernelfs-")
    assert one != other


def test_a_fork_knows_what_time_it_is(vm: VM) -> None:
    before = time.time()
    there = float(vm.run("date +%s.%N", check=True).stdout)
    assert before - 5 < there < time.time() + 5


def test_what_one_fork_does_the_other_does_not_see(twins: tuple[VM, VM]) -> None:
    one, other = twins
    one.run("echo changed > /tmp/file; sysctl -qw vm.swappiness=7; date -s 2001-01-01; rmmod xfs", check=True)
    one.run("dd if=/dev/zero of=/full bs=1M", timeout=600)
    assert other.run("test -e /tmp/file || test -e /full").failed
    assert other.run("sysctl -n vm.swappiness", check=True).stdout.strip() != "7"
    assert other.run("date +%Y", check=True).stdout.strip() != "2001"
    assert other.run("test -d /sys/module/xfs").succeeded


def test_ten_forks_share_their_pages(kernel: Kernel, provider: QemuProvider, spec: MachineSpec) -> None:
    # Its own: a small host has room for fewer whose memory is not shared, and others have some of them.
    roomy = QemuProvider(replace(provider._settings, max_vms=64))
    machines = []
    try:
        for _ in range(10):
            machines.append(roomy.start(kernel, spec))
            VM(machines[-1]).run("true", check=True)  # what all have looked at is shared by all
        shares = [_proportional_set_size(machine.pid) for machine in machines]
    finally:
        for machine in machines:
            machine.destroy()
        roomy.close()
    assert max(shares) < 80 << 20, [share >> 20 for share in shares]


def _proportional_set_size(pid: int) -> int:
    with open(f"/proc/{pid}/smaps_rollup") as file:  # noqa: PTH123
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("Pss:"))
