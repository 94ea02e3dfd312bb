"""Overlay's options do what they promise, on every kernel that has them."""

from __future__ import annotations

import os

import pytest

from pytest_kernelfs import VM, OverlayFactory
from pytest_kernelfs.errors import GuestCommandError


def extended_attributes(path: str) -> list[str]:
    return sorted(os.listxattr(path))


def rename(old: str, new: str) -> None:
    os.rename(old, new)  # noqa: PTH104  (it is sent to the guest)


def options_of(vm: VM, path: str) -> list[str]:
    lines = vm.run("cat /proc/self/mounts").stdout.splitlines()
    return next(line.split()[3] for line in lines if line.split()[1] == path).split(",")


@pytest.mark.kernel_needs("overlay:metacopy")
def test_metacopy_copies_no_data(vm: VM, overlay_factory: OverlayFactory) -> None:
    for metacopy in (True, False):
        overlay = overlay_factory(lower=[{"file": b"x" * 65536}], metacopy=metacopy)
        vm.run(["chmod", "600", f"{overlay.path}/file"], check=True)
        blocks = int(vm.run(["stat", "-c", "%b", f"{overlay.upper}/file"]).stdout)
        assert (blocks == 0) is metacopy
        marks = vm.call(extended_attributes, f"{overlay.upper}/file")
        assert ("trusted.overlay.metacopy" in marks) is metacopy
        assert vm.get(f"{overlay.path}/file") == b"x" * 65536


@pytest.mark.kernel_needs("overlay:redirect_dir")
def test_redirect_dir_lets_a_merged_folder_be_renamed(vm: VM, overlay_factory: OverlayFactory) -> None:
    layers = [{"folder/file": "content"}]
    without = overlay_factory(lower=layers, redirect_dir=False)
    with pytest.raises(GuestCommandError, match="cross-device link"):
        vm.call(rename, f"{without.path}/folder", f"{without.path}/other")
    overlay = overlay_factory(lower=layers, redirect_dir=True)
    vm.call(rename, f"{overlay.path}/folder", f"{overlay.path}/other")
    assert vm.get(f"{overlay.path}/other/file") == b"content"
    assert "trusted.overlay.redirect" in vm.call(extended_attributes, f"{overlay.upper}/other")


@pytest.mark.kernel_needs("overlay:userxattr")
def test_userxattr_marks_with_attributes_of_users(vm: VM, overlay_factory: OverlayFactory) -> None:
    overlay = overlay_factory(lower=[{"folder/file": ""}], userxattr=True)
    vm.run(f"rm -r {overlay.path}/folder && mkdir {overlay.path}/folder", check=True)
    assert vm.call(extended_attributes, f"{overlay.upper}/folder") == ["user.overlay.opaque"]


@pytest.mark.kernel_needs("overlay:index", "overlay:nfs_export", "overlay:xino")
def test_switches_reach_the_kernel(vm: VM, overlay_factory: OverlayFactory) -> None:
    vm.run(["mkdir", "/run/layer"], check=True)
    overlay = overlay_factory(lower=["/run/layer"], index=True, nfs_export=True, xino=True)
    assert {"index=on", "nfs_export=on", "xino=on"} <= set(options_of(vm, overlay.path))
    other = overlay_factory(lower=["/run/layer"], index=False, nfs_export=False, xino=False)
    assert not {"index=on", "nfs_export=on", "xino=on"} & set(options_of(vm, other.path))


@pytest.mark.kernel_needs("overlay:volatile")
def test_what_a_volatile_overlay_left_blocks_the_next_mount(vm: VM, overlay_factory: OverlayFactory) -> None:
    overlay = overlay_factory(volatile=True)
    overlay.write("file", "1M")
    overlay.umount()
    with pytest.raises(GuestCommandError) as caught:
        overlay.mount()
    mark = f"{overlay.work}/work/incompat/volatile"
    assert f"{mark} is there: a volatile overlay has used these folders" in str(caught.value)
    vm.run(["rm", "-r", mark], check=True)
    overlay.mount()
    assert len(vm.get(f"{overlay.path}/file")) == 1 << 20


@pytest.mark.kernel_needs("overlay:data_only")
def test_data_only_layers_are_reached_through_redirects_alone(
    vm: VM, overlay_factory: OverlayFactory
) -> None:
    """A file of the lower layer, empty but for its marks, gets its data from a layer that is not merged."""
    first = overlay_factory(lower=[{"blob": b"data", "folder/": ""}], metacopy=True, redirect_dir=True)
    vm.run(f"chmod 600 {first.path}/blob && mv {first.path}/blob {first.path}/folder/seen", check=True)
    first.umount()
    for api in ("old", "new"):
        overlay = overlay_factory(
            lower=[first.upper], data_lower=[{"blob": b"DATA"}], metacopy=True, upper=False, api=api
        )
        assert vm.run(["find", overlay.path, "-type", "f"]).stdout.split() == [f"{overlay.path}/folder/seen"]
        assert vm.get(f"{overlay.path}/folder/seen") == b"DATA"
        assert vm.run(["touch", f"{overlay.path}/folder/seen"]).stderr.endswith("Read-only file system\n")


@pytest.mark.kernel("<6.5")
def test_a_kernel_without_data_only_layers_says_so(overlay_factory: OverlayFactory) -> None:
    with pytest.raises(GuestCommandError, match=r"the kernel said: .*empty lowerdir"):
        overlay_factory(data_lower=[{"blob": ""}], metacopy=True)
