"""The kernel's log."""

from __future__ import annotations

from pytest_kernelfs import VM


def test_the_log_of_a_fork_begins_with_the_fork(vm: VM) -> None:
    since = vm.dmesg()
    assert since[0].text.startswith("kernelfs: this is ")
    assert not any("Linux version" in record.text for record in since)
    assert any("Linux version" in record.text for record in vm.dmesg(0))


def test_a_mark_is_where_reading_begins(vm: VM) -> None:
    mark = vm.mark_dmesg("here")
    vm.run("echo '<3>something bad' > /dev/kmsg", check=True)
    records = vm.dmesg(mark)
    assert [record.text for record in records] == ["kernelfs: here", "something bad"]
    assert records[1].level == 3
    assert records[0].seconds <= records[1].seconds
