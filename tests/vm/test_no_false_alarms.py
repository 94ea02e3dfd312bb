"""Fifty ordinary tests on each kernel, of every kind: no check after a test may see anything in them."""

from __future__ import annotations

import pytest

from pytest_kernelfs import (
    VM,
    DiskFactory,
    DmFactory,
    FilesystemFactory,
    LoopDeviceFactory,
    NetnsPairFactory,
    OverlayFactory,
    Sysctl,
    XfsFactory,
)

# Each kind is run so often on each kernel, a little different every time. A false alarm is one at the first
# attempt: where failed tests are run again, these are not.
pytestmark = [pytest.mark.parametrize("number", range(1, 6)), pytest.mark.flaky(reruns=0)]


def test_commands(vm: VM, number: int) -> None:
    vm.run(f"sleep 300 >/dev/null 2>&1 & seq {number}000 | sort -rn | head -1 > /tmp/last", check=True)
    assert vm.get("/tmp/last").decode().strip() == f"{number}000"


def test_mounts_by_hand(vm: VM, number: int) -> None:
    vm.run(f"mkdir -p /mnt/a && mount -t tmpfs -o size={number}M none /mnt/a", check=True)
    vm.run(f"mkdir -p /mnt/b && mount --bind /mnt/a /mnt/b && echo {number} > /mnt/b/file", check=True)
    vm.run("umount /mnt/b && umount -l /mnt/a", check=True)


def test_loop_devices_by_hand(vm: VM, number: int) -> None:
    vm.run(f"truncate -s {64 * number}M /tmp/image && mkfs.ext4 -q /tmp/image && mkdir /mnt/x", check=True)
    vm.run("mount -o loop /tmp/image /mnt/x && touch /mnt/x/file && umount /mnt/x", check=True)


def test_a_file_system_on_a_loop_device(
    vm: VM, filesystem_factory: FilesystemFactory, loop_device_factory: LoopDeviceFactory, number: int
) -> None:
    device = loop_device_factory(size="400M")
    filesystem_factory(("ext4", "xfs", "btrfs")[number % 3], on=device).write("file", f"{number}M")


def test_a_file_system_on_a_disk(disk_factory: DiskFactory, xfs_factory: XfsFactory, number: int) -> None:
    xfs = xfs_factory(on=disk_factory(size="400M", write_bps="100M"))
    xfs.write("file", f"{number}M")
    xfs.sync()


def test_overlays(overlay_factory: OverlayFactory, number: int) -> None:
    for index in range(number):
        overlay_factory(volatile=index % 2 == 1).write("file", "1M")


def test_device_mapper(
    vm: VM,
    dm_factory: DmFactory,
    loop_device_factory: LoopDeviceFactory,
    filesystem_factory: FilesystemFactory,
    number: int,
) -> None:
    device = dm_factory.linear(on=loop_device_factory(size="64M"), offset=f"{number}M", size="32M")
    filesystem_factory("ext4", on=device).write("file", "1M")


def test_cgroups_and_processes(vm: VM, number: int) -> None:
    names = [f"/sys/fs/cgroup/group-{index}" for index in range(number)]
    vm.run(["mkdir", *names], check=True)
    vm.run(f"echo $$ > {names[-1]}/cgroup.procs && exec cat /proc/self/cgroup", check=True)
    vm.run(["rmdir", *names], check=True)


def test_network_namespaces(netns_pair_factory: NetnsPairFactory, number: int) -> None:
    pair = netns_pair_factory(delay=f"{number}ms")
    assert pair.left.run("ip -br link show").succeeded


def test_knobs_and_caches(vm: VM, sysctl: Sysctl, number: int) -> None:
    sysctl["vm.swappiness"] = 10 * number
    vm.run("sync; echo 3 > /proc/sys/vm/drop_caches", check=True)
    assert len(vm.dmesg()) >= 1
