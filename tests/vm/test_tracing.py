"""The kernel's tracer, and its own look-out for hung tasks."""

from __future__ import annotations

import time

import pytest

from pytest_kernelfs import VM, DiskFactory, HungTask, Kernel, Sysctl, Tracing, Xfs, XfsFactory
from pytest_kernelfs.errors import GuestCommandError, KernelPanic
from pytest_kernelfs.machines.machine import MachineSpec
from pytest_kernelfs.machines.qemu.provider import QemuProvider
from pytest_kernelfs.resources.stack import Resources


def test_events_are_collected_for_the_length_of_a_block(
    vm: VM, disk_factory: DiskFactory, xfs_factory: XfsFactory, tracing: Tracing
) -> None:
    xfs = xfs_factory(on=disk_factory(size="512M"))
    xfs.write("file", "1M")
    with tracing.events("block:block_rq_issue", "writeback:*") as trace:
        xfs.sync()
    assert trace.lost == 0
    writes = [event for event in trace.named("block_rq_issue") if " W" in event.text]
    assert writes
    assert [event.seconds for event in trace.events] == sorted(event.seconds for event in trace.events)
    now = float(vm.run("cut -d' ' -f1 /proc/uptime").stdout)
    assert 0 < now - writes[0].seconds < 600
    assert any(event.name.startswith("writeback_") and event.fields for event in trace.events)
    with tracing.events("xfs:xfs_file_fsync") as idle:
        vm.run(["true"])
    assert idle.events == []
    with tracing.events("sched:sched_process_exec", filter='filename == "/usr/bin/nproc"') as filtered:
        vm.run(["true"], check=True)
        vm.run(["/usr/bin/nproc"], check=True)
    assert [event.fields["filename"] for event in filtered.events] == ["/usr/bin/nproc"]
    assert vm.run("ls /sys/kernel/tracing/instances").stdout == ""


@pytest.mark.usefixtures("oldest_or_newest")
def test_functions_are_traced_and_what_this_kernel_lacks_is_named(vm: VM, xfs: Xfs, tracing: Tracing) -> None:
    vm.run(f"echo x > {xfs.path}/file", check=True)
    with tracing.functions("xfs_file_fsync") as trace:
        vm.run(["sync", xfs.path + "/file"], check=True)
    calls = trace.named("xfs_file_fsync")
    assert calls
    assert calls[0].task == "sync"
    assert calls[0].text
    for refused, match in (
        (
            tracing.events("block:block_rq_isue"),
            r"no event block:block_rq_isue; did you mean block:block_rq_",
        ),
        (tracing.functions("no_such_function"), r"cannot trace the function no_such_function"),
        (
            tracing.events("block:block_rq_issue", filter="nonsense >"),
            r"the filter 'nonsense >' .* was refused",
        ),
    ):
        with pytest.raises(GuestCommandError, match=match), refused:
            pass
    assert vm.run("ls /sys/kernel/tracing/instances").stdout == ""


@pytest.mark.checks(dmesg=False)
@pytest.mark.usefixtures("oldest_or_newest")
def test_the_kernel_reports_a_hung_task(vm: VM, xfs: Xfs, hung_task: HungTask) -> None:
    hung_task(timeout=1)
    vm.run(["fsfreeze", "-f", xfs.path], check=True)
    vm.run(f"(echo x > {xfs.path}/file) >/dev/null 2>&1 &")
    deadline = time.monotonic() + 300
    while not any("blocked for more than 1 seconds" in record.text for record in vm.dmesg()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    vm.run(["fsfreeze", "-u", xfs.path], check=True)


@pytest.mark.usefixtures("oldest_or_newest")
def test_a_hung_task_ends_a_machine_that_is_to_panic(
    kernel: Kernel, provider: QemuProvider, spec: MachineSpec
) -> None:
    machine = provider.start(kernel, spec)
    try:
        vm = VM(machine)
        vm.modprobe("loop")
        vm.run("truncate -s 64M /tmp/i && mkfs.ext4 -q /tmp/i && mount -o loop /tmp/i /mnt", check=True)
        HungTask(Sysctl(Resources(vm)))(timeout=1, panic=True)
        with pytest.raises(KernelPanic, match="hung_task: blocked tasks"):
            vm.run("fsfreeze -f /mnt && touch /mnt/file", timeout=600)
    finally:
        machine.destroy()
