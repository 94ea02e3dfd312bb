"""Kernel modules, those in the machine and those that the host has to bring."""

from __future__ import annotations

import pytest

from pytest_kernelfs import VM
from pytest_kernelfs.errors import GuestCommandError


def test_a_module_at_hand_takes_parameters(vm: VM) -> None:
    vm.modprobe("scsi_debug", dev_size_mb=16, num_tgts=1)
    assert vm.run("cat /sys/module/scsi_debug/parameters/dev_size_mb", check=True).stdout.strip() == "16"


def test_a_module_that_was_left_out_is_brought_from_the_host(vm: VM) -> None:
    assert vm.run(["modprobe", "cifs"]).failed
    vm.modprobe("cifs")
    assert "cifs" in vm.run("cat /proc/filesystems", check=True).stdout


def test_a_module_that_no_kernel_has(vm: VM) -> None:
    with pytest.raises(GuestCommandError, match="has no module no_such_module"):
        vm.modprobe("no_such_module")
