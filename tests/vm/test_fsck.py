"""Damage behind the kernel's back is found, by the checker of each file system; a log is no damage."""

from __future__ import annotations

import os

import pytest

from pytest_kernelfs import VM, Filesystem, FilesystemFactory, Kernel

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
