"""The clock of a machine goes on when its host lets it stand still, however busy that was at the boot."""

from __future__ import annotations

import os
import signal
import time

import pytest

from pytest_kernelfs import VM
from pytest_kernelfs.machines.qemu.machine import QemuMachine

# More than a counter of 24 bits at 3.58 MHz goes without coming round.
STANDS_S = 5.0


def now() -> tuple[float, str]:
    with open("/sys/devices/system/clocksource/clocksource0/current_clocksource") as file:  # noqa: PTH123
        return time.monotonic(), file.read().strip()


def test_time_passes_while_the_machine_stands_still(vm: VM) -> None:
    machine = vm.machine
    if not isinstance(machine, QemuMachine):
        pytest.skip("lets a machine of the provider qemu stand still")
    start, name = vm.call(now)
    assert name in ("tsc", "kvm-clock")
    if vm.kernel.version.matches(">=5.11") and vm.kernel.version.matches("<7.0"):
        return  # to wait for it in two of the kernels is enough
    os.kill(machine.pid, signal.SIGSTOP)
    try:
        time.sleep(STANDS_S)
    finally:
        os.kill(machine.pid, signal.SIGCONT)
    assert vm.call(now)[0] - start >= STANDS_S
