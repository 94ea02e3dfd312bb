"""The probes that sample beside a test: each sees what was planted, and nothing on an idle machine."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest

from pytest_kernelfs import VM, DiskFactory, Probes, Xfs, XfsFactory

MIB = 1 << 20


@pytest.fixture
def frozen(vm: VM, xfs: Xfs) -> Iterator[Xfs]:
    """A file system on which every write waits."""
    vm.run(["fsfreeze", "-f", xfs.path], check=True)
    yield xfs
    vm.run(["fsfreeze", "-u", xfs.path], check=True)


def test_a_stuck_writer_is_seen_over_time(vm: VM, frozen: Xfs, probes: Probes) -> None:
    with probes.sampling("dstate", interval=0.05, stuck_after=0.5) as sampled:
        time.sleep(0.3)
        vm.run(f"(echo x > {frozen.path}/file) >/dev/null 2>&1 &")
        time.sleep(2)
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
    vm: VM, disk_factory: DiskFactory, xfs_factory: XfsFactory, probes: Probes
) -> None:
    disk = disk_factory(size="512M", write_bps="8M")
    xfs = xfs_factory(on=disk)
    name = disk.path.rpartition("/")[2]
    with probes.sampling("meminfo", "disk_io", "psi", interval=0.05) as sampled:
        xfs.write("file", "16M")
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
        time.sleep(1.5)
    print(sampled, sampled.processor, sampled["run_queue.wakeup"])
    sampled.assert_no_dstate()
    assert sampled.stuck == ()
    assert sampled["dstate.longest"].max < 500
    assert sampled["Dirty"].max < MIB
    assert sampled["Writeback"].max < MIB
    assert sampled.total("io.some") < 0.2
    assert sampled["io.some"].median == 0
    assert sampled.samples > 5


@pytest.mark.usefixtures("newest_only")
def test_sampling_goes_on_while_the_channel_is_busy(vm: VM, probes: Probes) -> None:
    with probes.sampling("meminfo", interval=0.05) as sampled:
        vm.call(spin, 2.0)
    times = [seconds for seconds, _ in sampled.points("MemFree")]
    assert len(times) > 10
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) < 1.0


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
