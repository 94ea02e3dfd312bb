"""A machine that dies in a test: at once, and with the reason."""

from __future__ import annotations

import pytest

from pytest_kernelfs import VM, Xfs
from pytest_kernelfs.errors import KernelMisbehaved, KernelPanic


def test_a_panic_ends_the_call_with_its_text(vm: VM, xfs: Xfs) -> None:
    with pytest.raises(KernelPanic) as caught:
        vm.run("echo c > /proc/sysrq-trigger; sleep 100")
    assert "panicked" in str(caught.value)
    assert "sysrq triggered crash" in str(caught.value)
    assert not vm.usable
    with pytest.raises(KernelPanic):
        xfs.sync()


def test_a_reboot_is_told_from_a_panic(vm: VM) -> None:
    with pytest.raises(KernelMisbehaved, match="shut down or rebooted") as caught:
        vm.run("echo b > /proc/sysrq-trigger; sleep 100")
    assert not isinstance(caught.value, KernelPanic)


def test_the_agents_end_is_not_the_machines(vm: VM) -> None:
    with pytest.raises(KernelMisbehaved, match="closed its channel"):
        vm.run("kill -9 $PPID; sleep 100")
    assert not vm.usable
