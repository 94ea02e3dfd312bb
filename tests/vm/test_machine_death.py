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


def _end_in_a_crowd() -> None:
    """Use up all numbers of processes for some seconds, and be killed meanwhile."""
    import os
    import signal
    import time
    from pathlib import Path

    Path("/proc/sys/kernel/pid_max").write_text("400")
    while True:
        try:
            if not os.fork():
                time.sleep(3)
                os._exit(0)
        except OSError:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.usefixtures("oldest_or_newest")
@pytest.mark.checks(leaks=False)
def test_an_agent_that_ends_where_no_process_can_be_started_is_no_panic(vm: VM) -> None:
    """The first process waits until it can start another."""
    with pytest.raises(KernelMisbehaved, match="closed its channel") as caught:
        vm.call(_end_in_a_crowd, timeout=120)
    assert not isinstance(caught.value, KernelPanic)


def test_the_agents_end_is_not_the_machines(vm: VM) -> None:
    with pytest.raises(KernelMisbehaved, match="closed its channel"):
        vm.run("kill -9 $PPID; sleep 100")
    assert not vm.usable
