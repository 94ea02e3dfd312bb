"""A frozen file system holds up who writes to it, and never a teardown."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from pytest_kernelfs import VM, Filesystem, FilesystemFactory, Overlay
from pytest_kernelfs.errors import GuestCommandError
from pytest_kernelfs.resources.stack import Resources


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def write_in_background(vm: VM, path: str) -> None:
    """Returns once the writer is about to write."""
    script = f"echo $$ > /tmp/writer; echo data > {path}"
    vm.run(f"setsid sh -c '{script}' > /dev/null 2>&1 < /dev/null & :", check=True)
    until(lambda: vm.run(["test", "-s", "/tmp/writer"]).succeeded)


def test_a_writer_waits_until_it_is_thawed(vm: VM, xfs: Filesystem) -> None:
    file = f"{xfs.path}/file"
    state = "cut -d' ' -f3 /proc/$(cat /tmp/writer)/stat"
    with xfs.frozen():
        write_in_background(vm, file)
        until(lambda: vm.run(state).stdout.strip() == "D")
        with pytest.raises(GuestCommandError, match="it is frozen already"):
            xfs.freeze()
    until(lambda: vm.run(["test", "-s", file]).succeeded)
    assert xfs.thaw() is False
    xfs.freeze()
    assert xfs.thaw() is True
    xfs.umount()
    with pytest.raises(GuestCommandError, match=f"nothing is mounted at {xfs.path}"):
        xfs.freeze()


def test_teardown_thaws_below_an_overlay_and_its_writer(
    vm: VM, overlay: Overlay, xfs: Filesystem, kernelfs_resources: Resources
) -> None:
    xfs.freeze()
    write_in_background(vm, f"{overlay.path}/file")
    start = time.monotonic()
    kernelfs_resources.close()
    assert time.monotonic() - start < 240
    assert xfs.path not in vm.run(["cat", "/proc/mounts"]).stdout


def test_teardown_thaws_what_was_frozen_by_a_command_or_unmounted_frozen(
    vm: VM, filesystem_factory: FilesystemFactory, xfs: Filesystem, kernelfs_resources: Resources
) -> None:
    vm.run(["fsfreeze", "-f", xfs.path], check=True)
    gone = filesystem_factory("ext4")
    gone.freeze()
    gone.umount()
    kernelfs_resources.close()
    devices = vm.run("cat /sys/block/loop*/loop/backing_file", check=False).stdout
    assert devices == ""
