"""Overlays that a checkpoint keeps, one of them in a user namespace."""

from __future__ import annotations

import pytest

from pytest_kernelfs import VM, Checkpoint, Preparer
from pytest_kernelfs.errors import GuestCommandError


@pytest.fixture(scope="module")
def checkpoint(prepare: Preparer) -> Checkpoint:
    machine = prepare()
    overlay = machine.overlay_factory(lower=[{"file": "kept"}])
    try:
        rootless = machine.overlay_factory.in_user_namespace(lower=[{"file": "inside"}])
    except GuestCommandError:
        rootless = None  # a kernel that refuses; what it says is tested elsewhere
    return machine.checkpoint(overlay=overlay, rootless=rootless)


def test_they_are_the_forks_own(vm: VM) -> None:
    overlay, rootless = vm.kept["overlay"], vm.kept["rootless"]
    overlay.umount()
    overlay.mount()
    assert vm.get(f"{overlay.path}/file") == b"kept"
    assert (rootless is None) is vm.kernel.version.matches("<5.11")
    if rootless is not None:
        assert rootless.run(["cat", f"{rootless.path}/file"], check=True).stdout == "inside"
        rootless.umount()
        rootless.umount()
        assert rootless.run("true").failed
