"""Sysrq keys, as a test presses them."""

from __future__ import annotations

import pytest

from pytest_kernelfs.errors import GuestTimeout, UsageError
from pytest_kernelfs.machines.vm import VM
from tests.fake_machine import FakeMachine


def test_keys_go_to_the_machine_with_their_deadline() -> None:
    machine = FakeMachine(sysrq=lambda keys: f"pressed {keys}")
    assert VM(machine).sysrq("lw", timeout=7) == "pressed lw"
    assert machine.timeouts == [7]


@pytest.mark.parametrize("keys", ["", "w l", "é", "-"])
def test_what_is_no_key_is_told_before_anything_is_pressed(keys: str) -> None:
    machine = FakeMachine()
    with pytest.raises(UsageError, match="are no sysrq keys"):
        VM(machine).sysrq(keys)
    assert machine.calls == []


def test_a_kernel_that_takes_no_key_leaves_the_machine_usable() -> None:
    vm = VM(FakeMachine(sysrq=GuestTimeout("the kernel took no key")))
    with pytest.raises(GuestTimeout):
        vm.sysrq("w")
    assert vm.usable
