"""ext4, btrfs and tmpfs beside XFS, on every kernel."""

from __future__ import annotations

import pytest

from pytest_kernelfs import VM, Filesystem, FilesystemFactory, Kernel
from pytest_kernelfs.errors import GuestCommandError


def options_of(vm: VM, path: str) -> set[str]:
    lines = vm.run(["cat", "/proc/mounts"], check=True).stdout.splitlines()
    return set(next(line.split()[3] for line in lines if line.split()[1] == path).split(","))


@pytest.mark.dmesg_allow("nonsense")
@pytest.mark.parametrize("kind", ["ext4", "btrfs"])
def test_it_mounts_and_holds_data(vm: VM, filesystem_factory: FilesystemFactory, kind: str) -> None:
    made = filesystem_factory(kind, options=["noatime"])
    assert isinstance(made, Filesystem)
    if vm.kernel.version.matches(">=6.1"):
        assert made.mkfs == []
    made.write("folder/file", "3M")
    with made.frozen():
        pass
    made.umount()
    made.mount()
    assert "noatime" in options_of(vm, made.path)
    made.remount(["nosuid", "ro"])
    assert {"noatime", "nosuid", "ro"} <= options_of(vm, made.path)
    found = vm.run(f"stat -c %s {made.path}/folder/file && stat -f -c %T {made.path}", check=True).stdout
    assert found.split()[0] == str(3 << 20)
    assert found.split()[1].startswith(kind[:3])
    with pytest.raises(GuestCommandError, match=r"remount,nonsense=1.*: Invalid argument; the kernel said: "):
        made.remount(["nonsense=1"])
    made.umount()
    again = filesystem_factory.mount(on=made.on, kind=kind)
    assert vm.run(["test", "-f", f"{again.path}/folder/file"]).succeeded


def test_a_tmpfs_has_the_limits_asked_for(vm: VM, filesystem_factory: FilesystemFactory) -> None:
    small = filesystem_factory("tmpfs", size="4M", nr_inodes=20, huge="never")
    assert {"size=4096k", "nr_inodes=20"} <= options_of(vm, small.path)
    with pytest.raises(GuestCommandError, match="No space left on device"):
        small.write("file", "5M")
    small.remount(["size=8M"])
    small.write("file", "5M")
    full = vm.run(f"for i in $(seq 30); do echo > {small.path}/$i || exit 1; done")
    assert "No space left" in full.stderr


@pytest.mark.usefixtures("newest_only")
def test_what_this_kernel_lacks_is_named(filesystem_factory: FilesystemFactory, kernel: Kernel) -> None:
    if kernel.config_option("F2FS_FS") is not None:
        pytest.skip("this kernel has f2fs")
    with pytest.raises(GuestCommandError, match=r"no f2fs file system .* has no module f2fs"):
        filesystem_factory("f2fs")
