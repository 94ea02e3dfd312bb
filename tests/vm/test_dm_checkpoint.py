"""Device-mapper stacks are prepared once, and each fork has its own."""

from __future__ import annotations

import errno

import pytest

from pytest_kernelfs import VM, Checkpoint, Preparer
from tests.vm.direct import read_direct, write_direct


@pytest.fixture(scope="module")
def checkpoint(prepare: Preparer) -> Checkpoint:
    machine = prepare()
    pool = machine.dm_factory.thin_pool(
        meta=machine.brd_factory(size="8M"), data=machine.null_blk_factory(size="16M")
    )
    volume = pool.thin(size="1G")
    delay = machine.dm_factory.delay(on=volume)
    machine.vm.call(write_direct, delay.path, b"before")
    return machine.checkpoint(pool=pool, volumes=[volume], delay=delay)


@pytest.mark.kernel(">=7.0")
def test_kept_devices_work_in_a_fork(vm: VM) -> None:
    pool, (volume,), delay = vm.kept["pool"], vm.kept["volumes"], vm.kept["delay"]
    assert volume.pool is pool
    assert delay.on == (volume,)
    assert pool.status().used_data == 1
    copy = pool.snapshot(of=volume)
    delay.set(write_ms=100)
    # Delays are counted in ticks of the kernel's clock, and one of those can come late.
    assert max(vm.call(write_direct, delay.path, b"after")[1] for _ in range(3)) >= 0.1
    assert vm.call(read_direct, copy.path)[1] == b"before"
    assert pool.status().used_data == 2
    delay.fail()
    assert vm.call(read_direct, delay.path)[0] == errno.EIO
