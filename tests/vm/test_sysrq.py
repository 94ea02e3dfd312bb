"""Magic SysRq from outside: what the kernel tells, also of a machine that answers nothing else."""

from __future__ import annotations

import time

import pytest

from pytest_kernelfs import VM, Xfs
from pytest_kernelfs.errors import KernelPanic
from tests.vm.inner import until


def test_the_kernel_tells_of_its_tasks_and_processors(vm: VM, xfs: Xfs) -> None:
    # A thread of the kernel may be blocked for a moment, as when the file system was just mounted.
    until(lambda: "task:" not in vm.sysrq("w"), "a moment without blocked tasks")
    vm.run(["fsfreeze", "-f", xfs.path], check=True)
    vm.run(f"(echo x > {xfs.path}/file) >/dev/null 2>&1 &")
    deadline = time.monotonic() + 120
    while "percpu_rwsem_wait" not in (blocked := vm.sysrq("w")):
        assert time.monotonic() < deadline, blocked
    assert blocked.splitlines()[0].endswith("sysrq: Show Blocked State")
    assert "mnt_want_write" in blocked
    everything = vm.sysrq("lt")
    assert everything.index("backtrace") < everything.index("task:init")
    assert "task:kthreadd" in everything
    assert "Loglevel" not in everything
    vm.run(["fsfreeze", "-u", xfs.path], check=True)
    # The console is as quiet as it was.
    assert vm.run("cut -f1 /proc/sys/kernel/printk").stdout == "5\n"


def test_the_console_is_logged_whether_or_not_anybody_listens(vm: VM) -> None:
    vm.run("echo one > /dev/console", check=True)
    vm.sysrq("w")
    vm.run("echo two > /dev/console", check=True)
    console = vm.machine.console()
    places = [console.index(text) for text in ("one\n", "Show Blocked State", "two\n")]
    assert places == sorted(places)


def test_a_crash_on_request_is_a_panic(vm: VM) -> None:
    with pytest.raises(KernelPanic, match="sysrq triggered crash"):
        vm.sysrq("c")
    with pytest.raises(KernelPanic):
        vm.sysrq("w")
