"""Damage behind the kernel's back is found, by the checker of each file system; a log is no damage."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_kernelfs import VM, DmFactory, Filesystem, FilesystemFactory, Kernel, LoopDeviceFactory

# Where it hurts: the header of the first allocation group, the free inodes in the superblock, the checksum
# of the superblock; and what the checker says to it.
WHERE = {
    "xfs": (512, r"xfs_repair -n -P says:\n(.*\n)*.*bad magic # 0x\w+ for agf 0"),
    "ext4": (1024 + 0x10, r"e2fsck -f -n says:\n(.*\n)*.*Superblock checksum does not match"),
    "btrfs": (65536, r"btrfs check --readonly says:\n(.*\n)*.*superblock checksum mismatch"),
}


@pytest.fixture
def middle_kernels(kernel: Kernel) -> None:
    if not kernel.version.matches(">=5.11,<7.0"):
        pytest.skip("on the oldest and the newest kernel, whole runs of pytest show the same")


def damage(device: str, offset: int) -> None:
    handle = os.open(device, os.O_RDWR)
    os.pwrite(handle, b"damage" * 4, offset)
    os.fsync(handle)
    os.close(handle)


@pytest.mark.usefixtures("middle_kernels")
@pytest.mark.parametrize("kind", WHERE)
def test_damage_is_found(vm: VM, filesystem_factory: FilesystemFactory, kind: str) -> None:
    made = filesystem_factory(kind)
    assert isinstance(made, Filesystem)
    made.write("file", "1M")
    made.umount()
    made.assert_sound()
    offset, text = WHERE[kind]
    vm.call(damage, made.device, offset)
    with pytest.raises(AssertionError, match=text):
        made.assert_sound()
    made.checked = False


@pytest.mark.dmesg_allow("shut ?down", "Shutting down", "Please unmount", "Aborting journal", "I/O Error")
@pytest.mark.parametrize("kind", ["xfs", "ext4"])
def test_after_a_shutdown_the_log_is_replayed_first(
    vm: VM, filesystem_factory: FilesystemFactory, kind: str
) -> None:
    made = filesystem_factory(kind)
    assert isinstance(made, Filesystem)
    vm.run(f"cd {made.path} && mkdir a b && touch a/1 a/2 && sync -f . && rm a/1 && touch b/3", check=True)
    made.shutdown(write="log")
    assert "Input/output error" in vm.run(["touch", f"{made.path}/late"]).stderr
    made.umount()
    made.assert_sound()
    made.mount()
    assert vm.run(["ls", f"{made.path}/a", f"{made.path}/b"]).stdout.split()[1::2] == ["2", "3"]


def write_and_sync(path: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(handle, b"data" * 4096)
    os.fsync(handle)
    os.close(handle)


def spoil_log_tree(device: str) -> bool:
    """Overwrite the root of the log tree; False if it is not there."""
    with Path(device).open("r+b", buffering=0) as file:
        file.seek(65536 + 96)
        root = file.read(8)
        for part in range(1 << 20, file.seek(0, os.SEEK_END), 1 << 20):
            file.seek(part)
            data = file.read(1 << 20)
            for block in range(0, len(data), 16384):
                if data[block + 48 : block + 56] == root:
                    file.seek(part + block + 200)
                    file.write(b"damage" * 4)
                    os.fsync(file.fileno())
                    return True
    return False


def be_quick() -> None:
    """Nothing was said of failing devices that the kernel would keep quiet about them for a while."""
    from pytest_kernelfs.guest import fsck

    fsck._QUIET_S = 0.0


@pytest.mark.checks(dmesg=False)
@pytest.mark.usefixtures("newest_only")
def test_a_log_of_btrfs_that_cannot_be_replayed_is_damage(
    vm: VM,
    filesystem_factory: FilesystemFactory,
    dm_factory: DmFactory,
    loop_device_factory: LoopDeviceFactory,
) -> None:
    device = dm_factory.flakey(on=loop_device_factory(size="128M"), features=["drop_writes"])
    made = filesystem_factory("btrfs", on=device, mkfs=["-m", "single"])
    vm.call(write_and_sync, f"{made.path}/file")
    device.fail()  # so the umount leaves the log as it is
    made.umount()
    device.heal()
    assert vm.call(spoil_log_tree, device.path)
    vm.call(be_quick)
    with pytest.raises(AssertionError, match=r"mounting it again says:\n  Input/output error"):
        made.assert_sound()
    made.checked = False
