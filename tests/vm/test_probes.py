"""The probes that sample beside a test: each sees what was planted, and nothing on an idle machine."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from pytest_kernelfs import VM, DiskFactory, Probes, Writeback, Xfs, XfsFactory
from pytest_kernelfs.guest import meminfo
from tests.vm.inner import until
from tests.vm.pace import live

MIB = 1 << 20


@pytest.fixture
def frozen(vm: VM, xfs: Xfs) -> Iterator[Xfs]:
    """A file system on which every write waits."""
    vm.run(["fsfreeze", "-f", xfs.path], check=True)
    yield xfs
    vm.run(["fsfreeze", "-u", xfs.path], check=True)


def test_a_stuck_writer_is_seen_over_time(vm: VM, frozen: Xfs, probes: Probes) -> None:
    with probes.sampling("dstate", interval=0.05, stuck_after=0.5) as sampled:
        vm.call(live, 0.3)
        vm.run(f"(echo x > {frozen.path}/file) >/dev/null 2>&1 &")
        until(lambda: "mnt_want_write" in vm.run("cat /proc/[0-9]*/stack").stdout, "a stuck writer")
        vm.call(live, 2.0)
    counts = [value for _, value in sampled.points("dstate")]
    assert min(counts) == 0
    assert counts[-1] >= 1
    assert sampled["dstate.longest"].max > 1000
    (task,) = sampled.stuck
    assert task.comm == "sh"
    assert task.wchan == "percpu_rwsem_wait"
    assert any("mnt_want_write" in frame for frame in task.stack)
    assert task.syscall.split()[0] in ("2", "257")
    with pytest.raises(AssertionError, match="1 task has been in uninterruptible sleep") as caught:
        sampled.assert_no_dstate()
    assert "percpu_rwsem_wait" in str(caught.value)
    sampled.assert_no_dstate(longer_than=60.0)


def test_a_slow_disk_is_seen_in_memory_queue_and_pressure(
    vm: VM, disk_factory: DiskFactory, xfs_factory: XfsFactory, probes: Probes, writeback: Writeback
) -> None:
    """All lasts until it can have been seen: dirty data is held, and the disk is slow for a while."""
    disk = disk_factory(size="512M", write_bps="1M")
    xfs = xfs_factory(on=disk)
    name = disk.path.rpartition("/")[2]
    writeback.hold()
    with probes.sampling("meminfo", "disk_io", "psi", interval=0.05) as sampled:
        xfs.write("file", "16M")
        vm.call(live, 0.3)
        vm.run(f"sync -f {xfs.path} >/dev/null 2>&1 &")
        until(lambda: vm.guest(meminfo.read, "Writeback")["Writeback"], "writeback")
        vm.call(live, 1.0)
        disk.throttle()
        xfs.sync()
    assert sampled["Dirty"].max >= 8 * MIB
    assert sampled["Writeback"].max > 0
    assert sampled[f"{name}.in_flight"].max > 0
    assert sampled[f"{name}.written"].max > MIB
    assert 15 * MIB < sampled.total(f"{name}.written") < 40 * MIB
    assert sampled.total(f"{name}.iops") > 0
    assert sampled["io.some"].max > 10
    assert sampled.total("io.some") > 0.3
    assert sampled.seconds > 1.0


def test_busy_processors_are_seen_in_the_run_queue(vm: VM, probes: Probes) -> None:
    with probes.sampling("run_queue", "psi", interval=0.05) as idle:
        time.sleep(1)
    vm.run("for i in 1 2 3 4 5; do (while :; do :; done) >/dev/null 2>&1 & done")
    with probes.sampling("run_queue", "psi", interval=0.05) as busy:
        time.sleep(1.5)
    vm.run(["pkill", "-9", "sh"])
    assert busy["run_queue.waiting"].median > 2 > idle["run_queue.waiting"].median
    assert busy.total("run_queue.waiting") > 2 * busy.seconds
    assert busy["cpu.some"].median > 50 > idle["cpu.some"].median


def test_an_idle_machine_shows_nothing(vm: VM, xfs: Xfs, probes: Probes) -> None:
    xfs.sync()
    with probes.sampling(interval=0.1) as sampled:
        vm.call(live, 1.5)
    sampled.assert_no_dstate()
    assert sampled.stuck == ()
    assert sampled["dstate.longest"].max < 500
    assert sampled["Dirty"].max < MIB
    assert sampled["Writeback"].max < MIB
    assert sampled["io.some"].median == 0
    assert sampled.samples > 3


@pytest.mark.usefixtures("newest_only")
def test_sampling_goes_on_while_the_channel_is_busy(vm: VM, probes: Probes) -> None:
    with probes.sampling("meminfo", interval=0.05) as sampled:
        begin, end = vm.call(spin, 2.0)
    times = [sampled.start + seconds for seconds, _ in sampled.points("MemFree")]
    assert len([seconds for seconds in times if begin < seconds < end]) > 10


def spin(seconds: float) -> tuple[float, float]:
    """Be busy for so long, in slices, of which a host that lets the machine stand still spoils only one."""
    begin = time.monotonic()
    for _ in range(round(seconds / 0.02)):
        end = time.monotonic() + 0.02
        while time.monotonic() < end:
            pass
    return begin, time.monotonic()
