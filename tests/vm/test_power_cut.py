"""What survives when the power goes: what was flushed, or what was written, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_kernelfs import VM, DiskFactory, Filesystem, FilesystemFactory
from pytest_kernelfs.errors import InfrastructureError, KernelNotFound, KernelPanic, UsageError
from pytest_kernelfs.machines.qemu import power
from pytest_kernelfs.machines.qemu.machine import QemuMachine
from tests.vm.direct import read_direct

MIB = 1 << 20


def _write_two(folder: str) -> None:
    """A file that is synced with its folder, and after it one that stays in the page cache."""
    Path("/proc/sys/vm/dirty_writeback_centisecs").write_text("0")
    with Path(folder, "synced").open("w") as file:
        file.write("synced" * 10000)
        file.flush()
        os.fsync(file.fileno())
    handle = os.open(folder, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
    Path(folder, "dirty").write_text("dirty" * 10000)


def _found(folder: str) -> dict[str, bool]:
    """Which of the two are whole."""
    found = {}
    for name in ("synced", "dirty"):
        try:
            found[name] = Path(folder, name).read_text() == name * 10000
        except FileNotFoundError:
            found[name] = False
    return found


def _write_past_the_cache(path: str, text: bytes) -> None:
    import mmap

    block = mmap.mmap(-1, 4096)
    block[: len(text)] = text
    handle = os.open(path, os.O_WRONLY | os.O_DIRECT)
    os.pwrite(handle, block, 0)
    os.close(handle)


def test_what_was_synced_survives_and_file_systems_recover(
    vm: VM, disk_factory: DiskFactory, filesystem_factory: FilesystemFactory
) -> None:
    disks = [disk_factory(size="512M", power_cut=True) for _ in range(2)]
    made: list[Filesystem] = []
    for kind, disk in zip(("xfs", "ext4"), disks, strict=True):
        filesystem = filesystem_factory(kind, on=disk)
        assert isinstance(filesystem, Filesystem)
        made.append(filesystem)
    for keep in ("flushed", "written"):
        for filesystem in made:
            vm.call(_write_two, filesystem.path)
        vm.power_cut(keep=keep)
        assert vm.run("cat /proc/mounts").stdout.count("/mnt/") == 0
        for filesystem in made:
            filesystem.mount()
            assert vm.call(_found, filesystem.path) == {"synced": True, "dirty": False}, (keep, filesystem)
            vm.run(["rm", "-f", f"{filesystem.path}/synced", f"{filesystem.path}/dirty"], check=True)
            filesystem.sync()
    assert [record.text for record in vm.dmesg() if "ecovery" in record.text]
    for filesystem in made:
        filesystem.umount()
        filesystem.assert_sound()


def test_a_write_that_no_flush_followed_is_in_the_disks_cache(vm: VM, disk_factory: DiskFactory) -> None:
    kept, lost = (disk_factory(size="16M", power_cut=True) for _ in range(2))
    through = disk_factory(size="16M", cache="writethrough")
    for disk in (kept, lost, through):
        vm.call(_write_past_the_cache, disk.path, b"first")
    vm.run(["dd", "if=/dev/null", f"of={kept.path}", "conv=notrunc,fsync"], check=True)
    vm.power_cut()
    assert [vm.call(read_direct, disk.path)[1] for disk in (kept, lost, through)] == [b"first", b"", b"first"]
    vm.call(_write_past_the_cache, lost.path, b"second")
    vm.power_cut(keep="written")
    assert [vm.call(read_direct, disk.path)[1] for disk in (kept, lost)] == [b"first", b"second"]
    vm.power_cut()
    assert vm.call(read_direct, lost.path)[1] == b"second"


def test_discards_and_zeros_are_part_of_what_is_kept(vm: VM, disk_factory: DiskFactory) -> None:
    disk = disk_factory(size="16M", power_cut=True)
    checksum = vm.call(_shuffle, disk.path)
    vm.power_cut()
    assert vm.run(["md5sum", disk.path], check=True).stdout.split()[0] == checksum


def _shuffle(path: str) -> str:
    """Write, zero and discard parts of a disk from several threads, flush, and say what it holds."""
    import fcntl
    import hashlib
    import struct
    import threading

    def one(part: int) -> None:
        handle = os.open(path, os.O_RDWR)
        for number in range(8):
            start = part * 4194304 + number * 262144
            os.pwrite(handle, os.urandom(262144), start)
            os.fsync(handle)
            fcntl.ioctl(handle, 0x127F, struct.pack("<QQ", start, 65536))  # BLKZEROOUT
            fcntl.ioctl(handle, 0x1277, struct.pack("<QQ", start + 131072, 65536))  # BLKDISCARD
        os.close(handle)

    threads = [threading.Thread(target=one, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Path(path).open("rb+") as file:
        os.fsync(file.fileno())
        return hashlib.md5(file.read()).hexdigest()


def test_what_waits_for_a_slow_disk_is_not_written(
    vm: VM, disk_factory: DiskFactory, newest_only: None
) -> None:
    disk = disk_factory(size="64M", write_bps="256K", power_cut=True)
    vm.run(
        f"dd if=/dev/urandom of={disk.path} bs=32M count=1 iflag=fullblock oflag=direct >/dev/null 2>&1 &"
        f" while ! grep -qv ' 0 *$' /sys/block/{disk.path.rpartition('/')[2]}/inflight; do :; done",
        check=True,
    )
    vm.power_cut(keep="written")
    disk.throttle()
    whole = vm.get(disk.path)
    assert len(whole) == disk.size
    assert sum(any(whole[start : start + 4096]) for start in range(0, disk.size, 4096)) * 4096 <= 16 * MIB


def test_what_cannot_be_told_is_refused_and_the_machine_runs_on(
    vm: VM, disk_factory: DiskFactory, newest_only: None
) -> None:
    disk = disk_factory(size="16M")
    vm.call(_write_past_the_cache, disk.path, b"text")
    with pytest.raises(UsageError, match=r"disk_factory\(power_cut=True\)"):
        vm.power_cut()
    with pytest.raises(UsageError, match="keep='all' is none of 'flushed', 'written'"):
        vm.power_cut(keep="all")
    with pytest.raises(KernelNotFound):
        vm.power_cut(kernel="1.0")
    assert vm.run("true").succeeded
    vm.power_cut(keep="written")
    assert vm.call(read_direct, disk.path)[1] == b"text"


def test_the_machine_before_is_gone_at_once(vm: VM, disk_factory: DiskFactory, newest_only: None) -> None:
    disk_factory(size="16M", power_cut=True)
    before = vm.machine
    assert isinstance(before, QemuMachine)
    data, pid = before.data, before.pid
    vm.power_cut()
    assert vm.machine is not before
    assert not before.alive
    assert not data.exists()
    assert not Path(f"/proc/{pid}").exists()


def test_a_panic_takes_nothing_from_the_disks(vm: VM, disk_factory: DiskFactory, newest_only: None) -> None:
    disk = disk_factory(size="16M", power_cut=True)
    vm.call(_write_past_the_cache, disk.path, b"text")
    with pytest.raises(KernelPanic):
        vm.run("echo c > /proc/sysrq-trigger; sleep 60")
    assert not vm.machine.alive
    vm.power_cut()
    assert vm.usable
    assert vm.call(read_direct, disk.path)[1] == b"text"


def test_a_power_cut_that_fails_leaves_nothing(
    vm: VM, disk_factory: DiskFactory, newest_only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk_factory(size="16M", power_cut=True)
    machine = vm.machine
    assert isinstance(machine, QemuMachine)
    data, pid = machine.data, machine.pid

    def fail(*_: object) -> None:
        raise InfrastructureError("no room")

    monkeypatch.setattr(power, "content", fail)
    with pytest.raises(InfrastructureError, match="no room"):
        vm.power_cut()
    assert not vm.usable
    assert not data.exists()
    assert not Path(f"/proc/{pid}").exists()
