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
    assert records[0].text == "kernelfs: here"
    # On a busy host, the kernel may have had something to say of its clock.
    (bad,) = [record for record in records if record.text == "something bad"]
    assert bad.level == 3
    assert records[0].seconds <= bad.seconds
